/* The functions that the formulas of host/device/pointwise.h use, as vectorisable C for one scalar type. The includer
 * defines T before it expands formulas; float picks the float functions. */
#ifndef PL_CPU_FORMULAS_H
#define PL_CPU_FORMULAS_H

#include <math.h>
#include <stdint.h>

/* glibc's vector mathematics (libmvec) has these in every width; the declarations let `omp simd` loops call them. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define PL_VECTOR_FUNCTION __attribute__((simd("notinbranch")))
PL_VECTOR_FUNCTION float expf(float);
PL_VECTOR_FUNCTION float logf(float);
PL_VECTOR_FUNCTION float sinf(float);
PL_VECTOR_FUNCTION float cosf(float);
PL_VECTOR_FUNCTION float tanhf(float);
PL_VECTOR_FUNCTION float erff(float);
PL_VECTOR_FUNCTION float powf(float, float);
PL_VECTOR_FUNCTION float log1pf(float);
PL_VECTOR_FUNCTION float expm1f(float);
PL_VECTOR_FUNCTION double exp(double);
PL_VECTOR_FUNCTION double log(double);
PL_VECTOR_FUNCTION double sin(double);
PL_VECTOR_FUNCTION double cos(double);
PL_VECTOR_FUNCTION double tanh(double);
PL_VECTOR_FUNCTION double erf(double);
PL_VECTOR_FUNCTION double pow(double, double);
PL_VECTOR_FUNCTION double log1p(double);
PL_VECTOR_FUNCTION double expm1(double);
#endif

#define PL_TYPED(x, name) _Generic((x), float : name##f, default : name)
#define exp(x)            PL_TYPED(x, exp)(x)
#define log(x)            PL_TYPED(x, log)(x)
#define log1p(x)          PL_TYPED(x, log1p)(x)
#define expm1(x)          PL_TYPED(x, expm1)(x)
#define sqrt(x)           PL_TYPED(x, sqrt)(x)
#define tanh(x)           PL_TYPED(x, tanh)(x)
#define sin(x)            PL_TYPED(x, sin)(x)
#define cos(x)            PL_TYPED(x, cos)(x)
#define erf(x)            PL_TYPED(x, erf)(x)
#define floor(x)          PL_TYPED(x, floor)(x)
#define ceil(x)           PL_TYPED(x, ceil)(x)
#define round(x)          PL_TYPED(x, rint)(x) /* halves to even, as PyTorch rounds */
#define pow(x, y)         PL_TYPED(x, pow)(x, y)
#define abs(x)            PL_TYPED(x, fabs)(x)

/* The remainder with the divisor's sign, as Lua's % and PyTorch's remainder. */
static inline float pl_mod_f32(float a, float b) { return a - floorf(a / b) * b; }
static inline double pl_mod_f64(double a, double b) { return a - (floor)(a / b) * b; }
static inline int64_t pl_mod_i64(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0; /* the caller refuses b == 0 first; -1 would overflow on the least integer */
  int64_t r = a % b;
  return r != 0 && (r ^ b) < 0 ? r + b : r;
}
#define mod(x, y)      _Generic((x), float : pl_mod_f32, double : pl_mod_f64, default : pl_mod_i64)(x, y)

#define K(number)      ((T)(number))
#define where(c, x, y) ((c) != 0 ? (x) : (y))
#define eq(x, y)       ((T)((x) == (y)))
#define ne(x, y)       ((T)((x) != (y)))
#define lt(x, y)       ((T)((x) < (y)))
#define le(x, y)       ((T)((x) <= (y)))
#define gt(x, y)       ((T)((x) > (y)))
#define ge(x, y)       ((T)((x) >= (y)))

#endif
