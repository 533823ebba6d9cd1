// Sums of squares over many contiguous arrays at once: one partial sum per block, in order of the arrays. The text
// before this file defines ACC, float or double (a typedef), and TYPE, the storage type.
#include "lists.cuh"

enum { ARRAYS = 64, CHUNK = 16384 / sizeof(TYPE), WIDE = 16 / sizeof(TYPE) };

struct job {
  const TYPE *array[ARRAYS];
  i64 count[ARRAYS];     // elements of each
  u32 chunk[ARRAYS + 1]; // which block begins each
  ACC *partial;          // one per block
};

extern "C" __global__ void __launch_bounds__(THREADS) squares(const __grid_constant__ job j) {
  const chunk_of_list own = own_chunk(j.chunk, j.count, CHUNK);
  const TYPE *array = j.array[own.which];
  ACC sum = 0;
  over_chunk<WIDE>(own, (u64)array % 16 == 0, [&](i64 i, auto size) {
    constexpr int N = sizeof size.at;
    const pack<TYPE, N> values = load<TYPE, N>(array + i);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const ACC x = read<ACC>(values.at[k]);
      sum += x * x;
    }
  });
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, mask);
  __shared__ ACC of_warp[THREADS / 32];
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < THREADS / 32; i++) sum += of_warp[i];
  j.partial[blockIdx.x] = sum;
}
