// One step of Adam or AdamW over many contiguous parameters at once. The text before this file defines T, float or double.
#include "types.cuh"

enum { TENSORS = 48, THREADS = 256, CHUNK = 2048 };

struct job {
  T *parameter[TENSORS], *first[TENSORS], *second[TENSORS];
  const T *gradient[TENSORS];
  i64 count[TENSORS];      // elements of each
  u32 chunk[TENSORS + 1];  // which block begins each
  f64 beta1, beta2, rate, epsilon, root, joined, shrink;
};

extern "C" __global__ void __launch_bounds__(THREADS) adam(const __grid_constant__ job j) {
  const T beta1 = (T)j.beta1, beta2 = (T)j.beta2, rate = (T)j.rate, epsilon = (T)j.epsilon, root = (T)j.root;
  const T joined = (T)j.joined, shrink = (T)j.shrink;
  int which = 0;
  while (blockIdx.x >= j.chunk[which + 1]) which++;
  T *parameter = j.parameter[which], *first = j.first[which], *second = j.second[which];
  const T *gradient = j.gradient[which];
  const i64 start = (i64)(blockIdx.x - j.chunk[which]) * CHUNK;
  const i64 end = start + CHUNK < j.count[which] ? start + CHUNK : j.count[which];
  for (i64 i = start + threadIdx.x; i < end; i += THREADS) {
    const T p = parameter[i], g = gradient[i] + joined * p;
    const T m = beta1 * first[i] + (1 - beta1) * g, v = beta2 * second[i] + (1 - beta2) * g * g;
    first[i] = m;
    second[i] = v;
    parameter[i] = shrink * p - rate * m / (sqrt(v) * root + epsilon);
  }
}
