// What the formulas of host/device/pointwise.h are written in, for one compute type T (float, double or long long), which
// the text before this file names. It may define BRIEF as 1, when T is float and the result has 16 bits: then functions of
// many instructions give way to shorter ones, whose errors stay far below the result's rounding.
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

#if BRIEF
inline f32 exp_brief(f32 x) { return exp2_fast(x * 1.4426950408889634f); }

// 1 - 2 / (1 + e^2x), and near 0, where that cancels, the odd series.
inline f32 tanh_brief(f32 x) {
  const f32 square = x * x;
  const f32 near = x * (1 + square * (-0.33333334f + square * (0.13333334f - square * 0.053968254f)));
  return square < 0.0625f ? near : 1 - 2 * reciprocal_flushed(1 + exp2_flushed(x * 2.8853900817779268f));
}

// Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26: within 1.5e-7; near 0 the odd series.
inline f32 erf_brief(f32 x) {
  const f32 size = fabsf(x), square = x * x, t = reciprocal_flushed(1 + 0.3275911f * size);
  const f32 tail = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const f32 far = copysignf(1 - tail * exp2_flushed(square * -1.4426950408889634f), x);
  const f32 near = x * (1.1283792f + square * (-0.37612638f + square * 0.11283792f));
  return square < 0.01f ? near : far;
}
#define exp(x) exp_brief(x)
#define tanh(x) tanh_brief(x)
#define erf(x) erf_brief(x)
#endif

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
