// One elementwise formula over strided, broadcast operands. The text before this file defines
//   FORMULA     in terms of a b c g y
//   T           the type to compute in (a typedef, as INDEX)
//   RANK        axes after merging
//   V           elements along the last axis that a thread takes at once
//   U           such vectors per thread
//   INDEX       the type of offsets: int where they fit, else long long
//   TYPE_OUT, FORM_OUT and TYPE_A, FORM_A, ... for the result and each operand: its storage type and form,
//     one of ABSENT, NUMBER (one value for all), DENSE (stride 1 along the last axis, aligned for vectors),
//     SPREAD (stride 0 along the last axis) or STRIDED
//   BRIEF          as in formulas.cuh
//   CHECK_DIVISOR  1 when b must not be 0
#define ABSENT 0
#define NUMBER 1
#define DENSE 2
#define SPREAD 3
#define STRIDED 4
#include "formulas.cuh"
#include "layout.cuh"

struct job {
  void *data[6];              // out, a, b, c, g, y
  i64 count;                  // elements of out
  axes shape;                 // the last size counts vectors
  i64 stride[6][RANK_MAX];    // in elements; the last one is multiplied by V
  i64 step[6];                // stride along the last axis
  f64 number[6];
  i64 integer[6];
  complaints complaint;
};

enum { THREADS = 256 };

template <class S, int form>
inline void fetch(T (&to)[V], const job &j, int operand, INDEX offset, i64 left) {
  const S *from = (const S *)j.data[operand] + offset;
  if constexpr (form == NUMBER) {
    T value = sizeof(T) == 8 && (T)0.5 == 0 ? (T)j.integer[operand] : (T)j.number[operand];
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = value;
  } else if constexpr (form == SPREAD) {
    T value = read<T>(*from);
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = value;
  } else if constexpr (form == DENSE) {
    if (V == 1 || left >= V) {
      pack<S, V> values = load<S, V>(from);
#pragma unroll
      for (int i = 0; i < V; i++) to[i] = read<T>(values.at[i]);
    } else {
      for (int i = 0; i < V; i++) to[i] = i < left ? read<T>(from[i]) : (T)1;
    }
  } else if constexpr (form == STRIDED) {
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = i < left ? read<T>(from[(INDEX)j.step[operand] * i]) : (T)1;
  } else {
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = (T)0;
  }
}

inline void put(const job &j, INDEX offset, i64 left, const T (&from)[V]) {
  TYPE_OUT *to = (TYPE_OUT *)j.data[0] + offset;
  if (FORM_OUT == DENSE && (V == 1 || left >= V)) {
    pack<TYPE_OUT, V> values;
#pragma unroll
    for (int i = 0; i < V; i++) values.at[i] = store_as<TYPE_OUT>(from[i]);
    save<TYPE_OUT, V>(to, values);
  } else {
    for (int i = 0; i < V; i++)
      if (i < left) to[(INDEX)j.step[0] * i] = store_as<TYPE_OUT>(from[i]);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) pointwise(const __grid_constant__ job j) {
  INDEX vectors = (INDEX)((j.count + V - 1) / V), first = (INDEX)blockIdx.x * (THREADS * U) + threadIdx.x;
  T in[U][5][V];
  INDEX offset[U][6];
  // All loads before the first store: the result may lie where an operand lies.
#pragma unroll
  for (int u = 0; u < U; u++) {
    INDEX at = first + u * THREADS;
    if (at >= vectors) continue;
    locate<RANK, 6, INDEX>(j.shape, j.stride, at, offset[u]);
    i64 left = j.count - (i64)at * V;
    fetch<TYPE_A, FORM_A>(in[u][0], j, 1, offset[u][1], left);
    fetch<TYPE_B, FORM_B>(in[u][1], j, 2, offset[u][2], left);
    fetch<TYPE_C, FORM_C>(in[u][2], j, 3, offset[u][3], left);
    fetch<TYPE_G, FORM_G>(in[u][3], j, 4, offset[u][4], left);
    fetch<TYPE_Y, FORM_Y>(in[u][4], j, 5, offset[u][5], left);
  }
#pragma unroll
  for (int u = 0; u < U; u++) {
    INDEX at = first + u * THREADS;
    if (at >= vectors) continue;
    i64 left = j.count - (i64)at * V;
    T result[V];
#pragma unroll
    for (int i = 0; i < V; i++) {
      const T a = in[u][0][i], b = in[u][1][i], c = in[u][2][i], g = in[u][3][i], y = in[u][4][i];
      (void)a, (void)b, (void)c, (void)g, (void)y;
#if CHECK_DIVISOR
      if (b == 0) complain(j.complaint, COMPLAINT_DIVISION, 0, (i64)at * V + i, 0);
#endif
      result[i] = (T)(FORMULA);
    }
    put(j, offset[u][0], left, result);
  }
}
