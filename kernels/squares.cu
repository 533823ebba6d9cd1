// Sums of squares over many contiguous arrays at once: one partial sum per block, in order of the arrays. The text before this
// file defines ACC, float or double (a typedef), and TYPE, the storage type.
#include "types.cuh"

enum { ARRAYS = 64, THREADS = 256, CHUNK = 4096 };

struct job {
  const TYPE *array[ARRAYS];
  i64 count[ARRAYS];     // elements of each
  u32 chunk[ARRAYS + 1]; // which block begins each
  ACC *partial;          // one per block
};

extern "C" __global__ void __launch_bounds__(THREADS) squares(const __grid_constant__ job j) {
  int which = 0;
  while (blockIdx.x >= j.chunk[which + 1]) which++;
  const TYPE *array = j.array[which];
  const i64 start = (i64)(blockIdx.x - j.chunk[which]) * CHUNK;
  const i64 end = start + CHUNK < j.count[which] ? start + CHUNK : j.count[which];
  ACC sum = 0;
#pragma unroll 4
  for (i64 i = start + threadIdx.x; i < end; i += THREADS) {
    const ACC x = read<ACC>(array[i]);
    sum += x * x;
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, mask);
  __shared__ ACC of_warp[THREADS / 32];
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < THREADS / 32; i++) sum += of_warp[i];
  j.partial[blockIdx.x] = sum;
}
