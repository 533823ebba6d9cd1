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

extern "C" __global__ void __launch_bounds__(256) gather(const __grid_constant__ job j) {
  INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x, offset[3];
  if (at >= j.count) return;
  locate<RANK, 3, INDEX>(j.shape, j.stride, at, offset);
  i64 picked = (i64)read<i64>(j.index[offset[2]]) - 1;
  if (picked < 0 || picked >= j.limit) {
    complain(j.complaint, COMPLAINT_INDEX, picked + 1, offset[2] + 1, j.limit);
    picked = 0; // something that exists; the complaint stops whoever reads the result
  }
  save<VALUE, V>(j.out + offset[0], load<VALUE, V>(j.in + offset[1] + (INDEX)picked * (INDEX)j.step));
}
