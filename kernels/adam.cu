// One step of Adam or AdamW over contiguous parameters. The text before this file defines T, float or double.
#include "types.cuh"

struct job {
  T *parameter, *first, *second;
  const T *gradient;
  i64 count;
  f64 beta1, beta2, rate, epsilon, root, joined, shrink;
};

extern "C" __global__ void __launch_bounds__(256) adam(const __grid_constant__ job j) {
  const T beta1 = (T)j.beta1, beta2 = (T)j.beta2, rate = (T)j.rate, epsilon = (T)j.epsilon, root = (T)j.root;
  const T joined = (T)j.joined, shrink = (T)j.shrink;
  for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < j.count; i += (i64)gridDim.x * 256) {
    const T p = j.parameter[i], g = j.gradient[i] + joined * p;
    const T m = beta1 * j.first[i] + (1 - beta1) * g, v = beta2 * j.second[i] + (1 - beta2) * g * g;
    j.first[i] = m;
    j.second[i] = v;
    j.parameter[i] = shrink * p - rate * m / (sqrt(v) * root + epsilon);
  }
}
