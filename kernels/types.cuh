// Element types of tensors as device code sees them: storage types, their conversion to and from the types in which
// kernels compute (float, double, long long), and vectors of them in memory.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;
typedef float f32;
typedef double f64;

struct truth { // bool: 0 or 1
  u8 byte;
};
struct f16 {
  u16 bits;
};
struct bf16 {
  u16 bits;
};

// ---- from storage ----

inline f32 widen(f16 x) {
  f32 y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
inline f32 widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
inline u8 widen(truth x) { return x.byte; }
template <class S> inline S widen(S x) { return x; }

// The integer part; out of range it is the nearest integer there is, of NaN it is 0.
inline i64 whole(f32 x) { return x == x ? __float2ll_rz(x) : 0; }
inline i64 whole(f64 x) { return x == x ? __double2ll_rz(x) : 0; }
template <class X> inline i64 whole(X x) { return (i64)x; }

template <class T> struct converted {
  template <class X> static T from(X x) { return (T)x; }
};
template <> struct converted<i64> {
  template <class X> static i64 from(X x) { return whole(x); }
};

// A stored value as a value to compute with.
template <class T, class S> inline T read(S x) { return converted<T>::from(widen(x)); }

// ---- to storage ----

template <class S> struct stored {
  template <class T> static S from(T x) { return (S)x; }
};
template <> struct stored<truth> {
  template <class T> static truth from(T x) { return {(u8)(x != 0)}; }
};
template <> struct stored<u8> {
  template <class T> static u8 from(T x) { return (u8)whole(x); }
};
template <> struct stored<i32> {
  template <class T> static i32 from(T x) { return (i32)whole(x); }
};
template <> struct stored<i64> {
  template <class T> static i64 from(T x) { return whole(x); }
};
template <> struct stored<f16> {
  template <class T> static f16 from(T x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"((f32)x));
    return y;
  }
};
template <> struct stored<bf16> {
  template <class T> static bf16 from(T x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"((f32)x));
    return y;
  }
};

// A computed value as a value to store; floats become integers as C++ cannot: saturated.
template <class S, class T> inline S store_as(T x) { return stored<S>::from(x); }

// ---- vectors: N neighbours that one thread moves at once ----

template <class S, int N> struct alignas(sizeof(S) * N < 16 ? sizeof(S) * N : 16) pack { S at[N]; };
template <class S, int N> inline pack<S, N> load(const S *from) { return *(const pack<S, N> *)from; }
template <class S, int N> inline void save(S *to, const pack<S, N> &values) { *(pack<S, N> *)to = values; }

// 2^x by the hardware's unit, within 2^-22.
inline f32 exp2_fast(f32 x) {
  f32 y;
  asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The same, and 1 / x within 2^-23, where results below 2^-126 are 0: an instruction each, while exp2_fast and a
// division scale their operands.
inline f32 exp2_flushed(f32 x) {
  f32 y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
inline f32 reciprocal_flushed(f32 x) {
  f32 y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The larger and the smaller; a NaN wins.
inline f32 larger_of(f32 x, f32 y) {
  f32 z;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}
inline f32 smaller_of(f32 x, f32 y) {
  f32 z;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}
template <class X> inline X larger_of(X x, X y) { return x >= y || x != x ? x : y; }
template <class X> inline X smaller_of(X x, X y) { return x <= y || x != x ? x : y; }

template <class T> inline T lowest();
template <> inline f32 lowest<f32>() { return -__int_as_float(0x7F800000); }
template <> inline f64 lowest<f64>() { return -__longlong_as_double(0x7FF0000000000000); }
template <> inline i64 lowest<i64>() { return (i64)0x8000000000000000; }
template <class T> inline T highest();
template <> inline f32 highest<f32>() { return __int_as_float(0x7F800000); }
template <> inline f64 highest<f64>() { return __longlong_as_double(0x7FF0000000000000); }
template <> inline i64 highest<i64>() { return 0x7FFFFFFFFFFFFFFF; }
