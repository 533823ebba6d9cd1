// Many contiguous arrays in one launch: which block takes which chunk of which array.
#pragma once
#include "types.cuh"

enum { THREADS = 256 };

// The array of this block and its elements [start, end). `first` holds the first block of each array.
struct chunk_of_list {
  int which;
  i64 start, end;
};

inline chunk_of_list own_chunk(const u32 *first, const i64 *count, i64 chunk) {
  chunk_of_list own;
  own.which = 0;
  while (blockIdx.x >= first[own.which + 1]) own.which++;
  own.start = (i64)(blockIdx.x - first[own.which]) * chunk;
  own.end = own.start + chunk < count[own.which] ? own.start + chunk : count[own.which];
  return own;
}

// Calls f<V>(i) for vectors of V elements while they are whole, and f<1>(i) for what is left; all of them one by one
// where the arrays are not aligned.
template <int V, class F> inline void over_chunk(const chunk_of_list &own, bool aligned, F f) {
  const i64 whole = aligned ? own.start + (own.end - own.start) / V * V : own.start;
#pragma unroll 4
  for (i64 i = own.start + (i64)threadIdx.x * V; i < whole; i += THREADS * V) f(i, pack<u8, V>());
  for (i64 i = whole + threadIdx.x; i < own.end; i += THREADS) f(i, pack<u8, 1>());
}
