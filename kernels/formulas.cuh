// What the formulas of host/device/pointwise.h are written in, for one compute type T (float, double or long long), which
// the text before this file names.
#pragma once
#include "types.cuh"

// The remainder with the divisor's sign, as Lua's % and PyTorch's remainder.
inline f32 floored(f32 a, f32 b) { return a - floorf(a / b) * b; }
inline f64 floored(f64 a, f64 b) { return a - floor(a / b) * b; }
inline i64 floored(i64 a, i64 b) {
  if (b == 0 || b == -1) return 0; // 0 is complained of by the kernel; -1 would overflow on the least integer
  i64 r = a % b;
  return r != 0 && (r ^ b) < 0 ? r + b : r;
}

#define K(number) ((T)(number))
#define where(c, x, y) ((c) != 0 ? (T)(x) : (T)(y))
#define eq(x, y) ((T)((x) == (y)))
#define ne(x, y) ((T)((x) != (y)))
#define lt(x, y) ((T)((x) < (y)))
#define le(x, y) ((T)((x) <= (y)))
#define gt(x, y) ((T)((x) > (y)))
#define ge(x, y) ((T)((x) >= (y)))
#define mod(x, y) floored((T)(x), (T)(y))
#define abs(x) fabs((T)(x))
#define round(x) rint((T)(x)) // halves to even, as PyTorch rounds
#define pow(x, y) power((T)(x), (T)(y))
inline f32 power(f32 x, f32 y) { return powf(x, y); }
inline f64 power(f64 x, f64 y) { return (::pow)(x, y); }
