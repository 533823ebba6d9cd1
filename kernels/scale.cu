// Many contiguous arrays times one number, in place. The text before this file defines ACC, float or double (a
// typedef), and TYPE, the storage type.
#include "lists.cuh"

enum { ARRAYS = 64, CHUNK = 16384 / sizeof(TYPE), WIDE = 16 / sizeof(TYPE) };

struct job {
  TYPE *array[ARRAYS];
  i64 count[ARRAYS];     // elements of each
  u32 chunk[ARRAYS + 1]; // which block begins each
  f64 factor;
};

extern "C" __global__ void __launch_bounds__(THREADS) scale(const __grid_constant__ job j) {
  const chunk_of_list own = own_chunk(j.chunk, j.count, CHUNK);
  TYPE *array = j.array[own.which];
  const ACC factor = (ACC)j.factor;
  over_chunk<WIDE>(own, (u64)array % 16 == 0, [&](i64 i, auto size) {
    constexpr int N = sizeof size.at;
    pack<TYPE, N> values = load<TYPE, N>(array + i);
#pragma unroll
    for (int k = 0; k < N; k++) values.at[k] = store_as<TYPE>(read<ACC>(values.at[k]) * factor);
    save<TYPE, N>(array + i, values);
  });
}
