// Softmax along one axis, its logarithm, and their gradients. The text before this file defines
//   LOGARITHM  0 or 1
//   GRADIENT   1: in is the gradient that arrives at y, out the gradient of softmax's operand
//   T          the type to compute in (a typedef)
//   TYPE_OUT, TYPE_IN, TYPE_Y
//   RANK       axes of a row's place after merging
//   W          threads that share a row: 1, 32 or 256
#include "layout.cuh"

struct job {
  TYPE_OUT *out;
  const TYPE_IN *in;
  const TYPE_Y *y;
  i64 rows, length;
  axes shape;              // of the rows
  i64 stride[3][RANK_MAX]; // of out, in, y
  i64 step[3];             // along the axis
};

enum { THREADS = 256 };

struct larger {
  static T of(T a, T b) { return a > b ? a : b; }
};
struct added {
  static T of(T a, T b) { return a + b; }
};

// Brings together what the W threads of a row have.
template <class JOIN> inline T together(T mine) {
  if constexpr (W > 1) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) mine = JOIN::of(mine, __shfl_xor_sync(0xFFFFFFFF, mine, mask));
  }
  if constexpr (W == THREADS) {
    __shared__ T of_warp[THREADS / 32];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = of_warp[0];
    for (int i = 1; i < THREADS / 32; i++) mine = JOIN::of(mine, of_warp[i]);
  }
  return mine;
}

extern "C" __global__ void __launch_bounds__(THREADS) softmax(const __grid_constant__ job j) {
  const i64 row = (i64)blockIdx.x * (THREADS / W) + threadIdx.x / W, lane = threadIdx.x % W;
  const bool here = row < j.rows; // all threads stay for the exchange
  const i64 length = here ? j.length : 0;
  i64 offset[3];
  locate<RANK, 3, i64>(j.shape, j.stride, here ? row : 0, offset);
  TYPE_OUT *out = j.out + offset[0];
  const TYPE_IN *in = j.in + offset[1];
  const i64 out_step = j.step[0], in_step = j.step[1];
#if GRADIENT
  const TYPE_Y *y = j.y + offset[2];
  const i64 y_step = j.step[2];
  T total = 0;
  for (i64 i = lane; i < length; i += W)
    total += LOGARITHM ? read<T>(in[i * in_step]) : read<T>(in[i * in_step]) * read<T>(y[i * y_step]);
  total = together<added>(total);
  for (i64 i = lane; i < length; i += W) {
    T g = read<T>(in[i * in_step]), of_y = read<T>(y[i * y_step]);
    out[i * out_step] = store_as<TYPE_OUT>(LOGARITHM ? g - exp(of_y) * total : of_y * (g - total));
  }
#else
  T top = lowest<T>();
  for (i64 i = lane; i < length; i += W) {
    T x = read<T>(in[i * in_step]);
    top = x > top ? x : top;
  }
  top = together<larger>(top);
  T total = 0;
  for (i64 i = lane; i < length; i += W) total += exp(read<T>(in[i * in_step]) - top);
  total = together<added>(total);
  const T shift = top + log(total), scale = 1 / total;
  for (i64 i = lane; i < length; i += W) {
    T x = read<T>(in[i * in_step]);
    out[i * out_step] = store_as<TYPE_OUT>(LOGARITHM ? x - shift : exp(x - top) * scale);
  }
#endif
}
