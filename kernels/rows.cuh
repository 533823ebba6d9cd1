// Rows that several threads share: which vectors of a row a thread has, and how what the threads found comes together.
// The text before this file defines
//   T     the type to compute in (a typedef)
//   W     threads that share a row: 1, 4, 8, 16, 32, 256 or 1024
//   V     neighbours that a thread moves at once; rows have a multiple of it
//   HOLD  vectors that a thread keeps in registers, so that a row is read once; 0: longer rows, read once per pass
//   BRIEF 1: results have 16 bits, for which the hardware's own exponential is exact enough
#pragma once
#include "types.cuh"

enum { THREADS = W > 256 ? W : 256, WARPS = W > 32 ? W / 32 : 1 /* that share a row */ };

struct larger {
  static T of(T a, T b) { return a > b ? a : b; }
};
struct added {
  static T of(T a, T b) { return a + b; }
};

template <class JOIN, int lanes> inline T among_lanes(T mine) {
#pragma unroll
  for (int mask = lanes / 2; mask > 0; mask /= 2) mine = JOIN::of(mine, __shfl_xor_sync(0xFFFFFFFF, mine, mask));
  return mine;
}

// Brings together what the W threads of a row have; all threads of the block call it.
template <class JOIN> inline T together(T mine) {
  mine = among_lanes<JOIN, (W < 32 ? W : 32)>(mine);
  if constexpr (W > 32) {
    __shared__ T of_warp[WARPS];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = among_lanes<JOIN, WARPS>(of_warp[threadIdx.x % WARPS]);
    __syncthreads(); // of_warp is free for the next call
  }
  return mine;
}

inline i64 own_row() { return (i64)blockIdx.x * (THREADS / W) + threadIdx.x / W; }
inline int own_lane() { return threadIdx.x % W; }

// exp(x - from)
inline f32 raised(f32 x, f32 from) { return BRIEF ? exp2_fast((x - from) * 1.4426950408889634f) : expf(x - from); }
inline f64 raised(f64 x, f64 from) { return exp(x - from); }

// What a thread has of a row: vector number k begins at element (k W + lane) V.
template <class S> struct held {
  pack<S, V> at[HOLD > 0 ? HOLD : 1];

  inline void fetch(const S *row, i64 length) {
#pragma unroll
    for (int k = 0; k < HOLD; k++)
      if ((i64)(k * W + own_lane()) * V < length) at[k] = load<S, V>(row + (i64)(k * W + own_lane()) * V);
  }
};

// The largest so far and the sum of exp(x - top) over what was met: softmax in one pass.
struct tally {
  T top, total;
};
inline tally no_tally() { return {lowest<T>(), (T)0}; }

template <int N> inline void meet(tally &s, const T (&x)[N]) {
  T top = s.top;
#pragma unroll
  for (int i = 0; i < N; i++) top = larger::of(x[i], top);
  if (top == lowest<T>()) { // nothing but -inf so far, or a NaN, which must stay
#pragma unroll
    for (int i = 0; i < N; i++) s.total += x[i] == top ? (T)0 : x[i];
    return;
  }
  s.total *= raised(s.top, top);
#pragma unroll
  for (int i = 0; i < N; i++) s.total += raised(x[i], top);
  s.top = top;
}

inline tally join(tally a, tally b) {
  const T top = larger::of(a.top, b.top);
  if (top == lowest<T>()) return {top, a.total + b.total};
  return {top, a.total * raised(a.top, top) + b.total * raised(b.top, top)};
}

inline tally together(tally mine) {
  const T top = together<larger>(mine.top);
  if (top != lowest<T>()) mine.total *= raised(mine.top, top);
  return {top, together<added>(mine.total)};
}

template <class S> inline void widened(T (&to)[V], const pack<S, V> &from) {
#pragma unroll
  for (int i = 0; i < V; i++) to[i] = read<T>(from.at[i]);
}
