// Values picked along one axis by 1-based index. The text before this file defines
//   VALUE       an unsigned type of the size of the values moved (they are not looked at)
//   TYPE_INDEX  i64, i32, u8, ...
//   RANK        axes after merging
//   V           neighbours that share one index and are moved at once
//   INDEX       (a typedef) the type of offsets
#include "layout.cuh"

struct job {
  VALUE *out;
  const VALUE *in;
  const TYPE_INDEX *index;
  i64 count; // elements of out, over V
  axes shape;
  i64 stride[3][RANK_MAX]; // of out, of in (0 along the indexed axis), of index
  i64 step, limit;         // of in along the indexed axis: stride and size
  complaints complaint;
};

enum { THREADS = 256, UNROLL = 4 };

extern "C" __global__ void __launch_bounds__(THREADS) gather(const __grid_constant__ job j) {
  const INDEX start = (INDEX)blockIdx.x * (THREADS * UNROLL) + threadIdx.x;
  INDEX offset[UNROLL][3];
  i64 picked[UNROLL];
  pack<VALUE, V> values[UNROLL];
  // All indices, then all values, so that their loads are under way together.
#pragma unroll
  for (int u = 0; u < UNROLL; u++) {
    const INDEX at = start + u * THREADS;
    if (at >= j.count) continue;
    locate<RANK, 3, INDEX>(j.shape, j.stride, at, offset[u]);
    picked[u] = (i64)read<i64>(j.index[offset[u][2]]) - 1;
  }
#pragma unroll
  for (int u = 0; u < UNROLL; u++) {
    if (start + u * THREADS >= j.count) continue;
    if (picked[u] < 0 || picked[u] >= j.limit) {
      complain(j.complaint, COMPLAINT_INDEX, picked[u] + 1, offset[u][2] + 1, j.limit);
      picked[u] = 0; // something that exists; the complaint stops whoever reads the result
    }
    values[u] = load<VALUE, V>(j.in + offset[u][1] + (INDEX)picked[u] * (INDEX)j.step);
  }
#pragma unroll
  for (int u = 0; u < UNROLL; u++)
    if (start + u * THREADS < j.count) save<VALUE, V>(j.out + offset[u][0], values[u]);
}
