// Elementwise operations by the chip's own approximations, for cells whose states are stored in 16 bits: relative
// errors of 2^-11 for tanh (and absolute ones of 2^-12 for sigmoid), 2^-21 and better for the others. Each takes the
// place of the formula of the same name in host/device/pointwise.h; host/cuda/cell_text.c lists them.
#pragma once

inline float approximate_tanh(float a) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(a));
  return y;
}
inline float approximate_sigmoid(float a) { return fmaf(0.5f, approximate_tanh(0.5f * a), 0.5f); }
inline float approximate_exp(float a) { return __expf(a); }
inline float approximate_log(float a) { return __logf(a); }
inline float approximate_reciprocal(float a) {
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(a));
  return y;
}
// A product with the reciprocal; __fdividef gives 0 for divisors above 2^126.
inline float approximate_div(float a, float b) { return a * approximate_reciprocal(b); }
inline float approximate_sqrt(float a) {
  float y;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(a));
  return y;
}
inline float approximate_rsqrt(float a) {
  float y;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(a));
  return y;
}
// log(1 + exp(-|a|)) is at most log 2, and what its argument loses by rounding is far below that of 16 bits.
inline float approximate_softplus(float a) { return fmaxf(a, 0.0f) + __logf(1.0f + __expf(-fabsf(a))); }
inline float approximate_logsigmoid(float a) { return fminf(a, 0.0f) - __logf(1.0f + __expf(-fabsf(a))); }
inline float approximate_silu(float a) { return a * approximate_sigmoid(a); }
