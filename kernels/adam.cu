// One step of Adam or AdamW over many contiguous parameters at once. The text before this file defines T, float or
// double, in which the step is taken, and TYPE, the parameters' and gradients'. Where these differ the step is the
// master's, and the parameter is the master rounded.
#include "lists.cuh"

enum { TENSORS = 48, CHUNK = 2048, WIDE = 16 / sizeof(TYPE), MASTER = sizeof(TYPE) != sizeof(T) };

struct job {
  TYPE *parameter[TENSORS];
  T *master[TENSORS], *first[TENSORS], *second[TENSORS];
  const TYPE *gradient[TENSORS];
  i64 count[TENSORS];     // elements of each
  u32 chunk[TENSORS + 1]; // which block begins each
  f64 beta1, beta2, rate, epsilon, root, joined, shrink;
};

extern "C" __global__ void __launch_bounds__(THREADS) adam(const __grid_constant__ job j) {
  const T beta1 = (T)j.beta1, beta2 = (T)j.beta2, rate = (T)j.rate, epsilon = (T)j.epsilon, root = (T)j.root;
  const T joined = (T)j.joined, shrink = (T)j.shrink;
  const chunk_of_list own = own_chunk(j.chunk, j.count, CHUNK);
  TYPE *parameter = j.parameter[own.which];
  T *master = j.master[own.which], *first = j.first[own.which], *second = j.second[own.which];
  const TYPE *gradient = j.gradient[own.which];
  const bool aligned = ((u64)parameter | (u64)master | (u64)first | (u64)second | (u64)gradient) % 16 == 0;
  over_chunk<WIDE>(own, aligned, [&](i64 i, auto size) {
    constexpr int N = sizeof size.at;
    pack<TYPE, N> stored = load<TYPE, N>(parameter + i);
    const pack<TYPE, N> arrived = load<TYPE, N>(gradient + i);
    pack<T, N> p, m = load<T, N>(first + i), v = load<T, N>(second + i);
    if constexpr (MASTER) p = load<T, N>(master + i);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const T now = read<T>(stored.at[k]);
      // A master that is not the parameter's any more, because somebody set that, starts again from it.
      if (!MASTER || read<T>(store_as<TYPE>(p.at[k])) != now) p.at[k] = now;
      const T g = read<T>(arrived.at[k]) + joined * p.at[k];
      m.at[k] = beta1 * m.at[k] + (1 - beta1) * g;
      v.at[k] = beta2 * v.at[k] + (1 - beta2) * g * g;
      p.at[k] = shrink * p.at[k] - rate * m.at[k] / (sqrt(v.at[k]) * root + epsilon);
      stored.at[k] = store_as<TYPE>(p.at[k]);
    }
    save<T, N>(first + i, m);
    save<T, N>(second + i, v);
    if constexpr (MASTER) save<T, N>(master + i, p);
    save<TYPE, N>(parameter + i, stored);
  });
}
