// One elementwise formula over strided, broadcast operands. The text before this file defines
//   FORMULA     in terms of a b c g y
//   PAIR        1: FORMULA_SECOND is computed as well, into a second result of the same layout
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
#define ABSENT  0
#define NUMBER  1
#define DENSE   2
#define SPREAD  3
#define STRIDED 4
#include "formulas.cuh"
#include "layout.cuh"

struct job {
  void *data[6];           // out, a, b, c, g, y
  i64 count;               // elements of out
  axes shape;              // the last size counts vectors
  i64 stride[6][RANK_MAX]; // in elements; the last one is multiplied by V
  i64 step[6];             // stride along the last axis
  f64 number[6];
  i64 integer[6];
  complaints complaint;
  void *second;
};

enum { THREADS = 256 };

// What a thread has of one operand: V neighbours, or the one value in their place. They stay as they are stored until
// they are computed with, so that no load waits for the one before it.
template <class S, int form> struct operand {
  enum { COUNT = form == DENSE || form == STRIDED ? V : 1 };
  pack<S, COUNT> values;

  inline void fetch(const job &j, int which, INDEX offset, i64 left) {
    const S *from = (const S *)j.data[which] + offset;
    if constexpr (form == SPREAD) {
      values.at[0] = *from;
    } else if constexpr (form == DENSE) {
      if (V == 1 || left >= V)
        values = load<S, COUNT>(from);
      else
#pragma unroll
        for (int i = 0; i < COUNT; i++) values.at[i] = i < left ? from[i] : store_as<S>((T)1);
    } else if constexpr (form == STRIDED) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) values.at[i] = i < left ? from[(INDEX)j.step[which] * i] : store_as<S>((T)1);
    }
  }

  inline T value(const job &j, int which, int i) const {
    if constexpr (form == NUMBER) return sizeof(T) == 8 && (T)0.5 == 0 ? (T)j.integer[which] : (T)j.number[which];
    if constexpr (form == ABSENT) return (T)0;
    return read<T>(values.at[COUNT == 1 ? 0 : i]);
  }
};

struct operands {
  operand<TYPE_A, FORM_A> a;
  operand<TYPE_B, FORM_B> b;
  operand<TYPE_C, FORM_C> c;
  operand<TYPE_G, FORM_G> g;
  operand<TYPE_Y, FORM_Y> y;
};

inline void put(const job &j, void *out, INDEX offset, i64 left, const T (&from)[V]) {
  TYPE_OUT *to = (TYPE_OUT *)out + offset;
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

// The block's vectors; `whole`: all of them are there and complete.
template <bool whole> inline void compute(const job &j) {
  INDEX vectors = (INDEX)((j.count + V - 1) / V), first = (INDEX)blockIdx.x * (THREADS * U) + threadIdx.x;
  operands in[U];
  INDEX offset[U][6];
  // All loads before the first store: the result may lie where an operand lies.
#pragma unroll
  for (int u = 0; u < U; u++) {
    INDEX at = first + u * THREADS;
    if (!whole && at >= vectors) continue;
    locate<RANK, 6, INDEX>(j.shape, j.stride, at, offset[u]);
    const i64 left = whole ? V : j.count - (i64)at * V;
    in[u].a.fetch(j, 1, offset[u][1], left);
    in[u].b.fetch(j, 2, offset[u][2], left);
    in[u].c.fetch(j, 3, offset[u][3], left);
    in[u].g.fetch(j, 4, offset[u][4], left);
    in[u].y.fetch(j, 5, offset[u][5], left);
  }
#pragma unroll
  for (int u = 0; u < U; u++) {
    INDEX at = first + u * THREADS;
    if (!whole && at >= vectors) continue;
    const i64 left = whole ? V : j.count - (i64)at * V;
    T result[V], second[V];
#pragma unroll
    for (int i = 0; i < V; i++) {
      const T a = in[u].a.value(j, 1, i), b = in[u].b.value(j, 2, i), c = in[u].c.value(j, 3, i);
      const T g = in[u].g.value(j, 4, i), y = in[u].y.value(j, 5, i);
      (void)a, (void)b, (void)c, (void)g, (void)y;
#if CHECK_DIVISOR
      if (b == 0) complain(j.complaint, COMPLAINT_DIVISION, 0, (i64)at * V + i, 0);
#endif
      result[i] = (T)(FORMULA);
#if PAIR
      second[i] = (T)(FORMULA_SECOND);
#endif
    }
    put(j, j.data[0], offset[u][0], left, result);
    if (PAIR) put(j, j.second, offset[u][0], left, second);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) pointwise(const __grid_constant__ job j) {
  if (((i64)blockIdx.x + 1) * (THREADS * U * V) <= j.count)
    compute<true>(j);
  else
    compute<false>(j);
}
