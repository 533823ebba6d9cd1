/* The element types of tensors: names, sizes, promotion, and the 16-bit conversions. */
#ifndef PL_DEVICE_DTYPE_H
#define PL_DEVICE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { PL_BOOL, PL_U8, PL_I32, PL_I64, PL_F16, PL_BF16, PL_F32, PL_F64, PL_DTYPES } pl_dtype;

const char *pl_dtype_name(pl_dtype type); /* "float32", ... */
size_t pl_dtype_size(pl_dtype type);      /* bytes */
bool pl_dtype_is_float(pl_dtype type);
/* The type by its name; PL_DTYPES when there is none. */
pl_dtype pl_dtype_named(const char *name);
/* The type that holds both, as PyTorch promotes: bool < uint8 < int32 < int64 < any float; float16 with bfloat16 is
 * float32. */
pl_dtype pl_dtype_promote(pl_dtype a, pl_dtype b);

/* The integer part; out of range it is the nearest integer there is, of NaN it is 0. C leaves both undefined. */
static inline int64_t pl_saturate(double x) {
  if (!(x == x)) return 0;
  return x >= 9223372036854775807.0 ? INT64_MAX : x <= -9223372036854775808.0 ? INT64_MIN : (int64_t)x;
}

/* Round to nearest even; NaN stays NaN. */
static inline float pl_bf16_to_float(uint16_t h) {
  union {
    uint32_t bits;
    float value;
  } u = {(uint32_t)h << 16};
  return u.value;
}

static inline uint16_t pl_float_to_bf16(float f) {
  union {
    float value;
    uint32_t bits;
  } u = {f};
  if ((u.bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(u.bits >> 16 | 0x40);
  return (uint16_t)((u.bits + 0x7FFF + (u.bits >> 16 & 1)) >> 16);
}

static inline float pl_f16_to_float(uint16_t h) {
  union {
    uint32_t bits;
    float value;
  } u, magic = {(254 - 15) << 23};
  /* Shift exponent and mantissa into place and scale: the multiplication also rights subnormal numbers. */
  u.bits = (uint32_t)(h & 0x7FFF) << 13;
  u.value *= magic.value;
  if ((h & 0x7C00) == 0x7C00) u.bits |= 255u << 23;
  u.bits |= (uint32_t)(h & 0x8000) << 16;
  return u.value;
}

static inline uint16_t pl_float_to_f16(float f) {
  union {
    float value;
    uint32_t bits;
  } u = {f};
  uint32_t sign = u.bits >> 16 & 0x8000;
  u.bits &= 0x7FFFFFFF;
  if (u.bits > 0x7F800000) return (uint16_t)(sign | 0x7E00);
  if (u.bits >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* rounds past 65504 */
  if (u.bits < 0x38800000) {                                  /* subnormal: let the adder round */
    u.value += 0.5f;
    return (uint16_t)(sign | (u.bits - 0x3F000000));
  }
  u.bits += 0xC8000FFFu + (u.bits >> 13 & 1);
  return (uint16_t)(sign | u.bits >> 13);
}

#endif
