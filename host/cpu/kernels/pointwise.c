/* Vector loops for every elementwise formula, for sums, softmax and Adam, and the table of them for one instruction
 * set. */
#include "host/cpu/kernels/formulas.h"
#include "host/cpu/kernels/kernels.h"

/* ---- elementwise formulas ---- */

#define LOOP(suffix, type, label, name, formula)                                                                       \
  static void label##_##name##_##suffix(long n, void *out, const void *const in[PL_OPERANDS]) {                        \
    typedef type T;                                                                                                    \
    T *restrict o = out;                                                                                               \
    const T *A = in[0], *B = in[1], *C = in[2], *G = in[3], *Y = in[4];                                                \
    _Pragma("omp simd") for (long i = 0; i < n; i++) {                                                                 \
      const T a = A[i], b = B[i], c = C[i], g = G[i], y = Y[i];                                                        \
      (void)a, (void)b, (void)c, (void)g, (void)y;                                                                     \
      o[i] = (T)(formula);                                                                                             \
    }                                                                                                                  \
  }
#define LOOPS_1(s, t, name, value, da, db, dc)         LOOP(s, t, f0, name, value) LOOP(s, t, f1, name, da)
#define LOOPS_2(s, t, name, value, da, db, dc)         LOOPS_1(s, t, name, value, da, db, dc) LOOP(s, t, f2, name, db)
#define LOOPS_3(s, t, name, value, da, db, dc)         LOOPS_2(s, t, name, value, da, db, dc) LOOP(s, t, f3, name, dc)

#define F32(name, arity, value, da, db, dc, low, high) LOOPS_##arity(f32, float, name, value, da, db, dc)
#define F64(name, arity, value, da, db, dc, low, high) LOOPS_##arity(f64, double, name, value, da, db, dc)
/* Integers have values only; no gradient ever reaches them. */
#define I64(name, arity, value, da, db, dc, low, high) LOOP(i64, int64_t, f0, name, value)
PL_POINTWISE(F32)
PL_POINTWISE(F64)
PL_POINTWISE_ANY(I64)
PL_POINTWISE_TEST(I64)

#define ENTRY_1(s, name)                                                                                               \
  { f0_##name##_##s, f1_##name##_##s }
#define ENTRY_2(s, name)                                                                                               \
  { f0_##name##_##s, f1_##name##_##s, f2_##name##_##s }
#define ENTRY_3(s, name)                                                                                               \
  { f0_##name##_##s, f1_##name##_##s, f2_##name##_##s, f3_##name##_##s }
#define ENTRY_F32(name, arity, ...) [PL_OP_##name] = ENTRY_##arity(f32, name),
#define ENTRY_F64(name, arity, ...) [PL_OP_##name] = ENTRY_##arity(f64, name),
#define ENTRY_I64(name, arity, ...) [PL_OP_##name] = {f0_##name##_i64},

/* ---- conversions between storage and compute types ---- */

#define CONVERT(name, to_type, from_type, expression)                                                                  \
  static void name(long n, void *to, const void *from) {                                                               \
    to_type *restrict t = to;                                                                                          \
    const from_type *restrict f = from;                                                                                \
    _Pragma("omp simd") for (long i = 0; i < n; i++) {                                                                 \
      const from_type x = f[i];                                                                                        \
      t[i] = (to_type)(expression);                                                                                    \
    }                                                                                                                  \
  }
#define STORAGE(compute, ctype, from_f, to_f, to_int)                                                                  \
  CONVERT(load_##compute##_bool, ctype, uint8_t, x)                                                                    \
  CONVERT(load_##compute##_u8, ctype, uint8_t, x)                                                                      \
  CONVERT(load_##compute##_i32, ctype, int32_t, x)                                                                     \
  CONVERT(load_##compute##_i64, ctype, int64_t, x)                                                                     \
  CONVERT(load_##compute##_f16, ctype, uint16_t, from_f(pl_f16_to_float(x)))                                           \
  CONVERT(load_##compute##_bf16, ctype, uint16_t, from_f(pl_bf16_to_float(x)))                                         \
  CONVERT(load_##compute##_f32, ctype, float, from_f(x))                                                               \
  CONVERT(load_##compute##_f64, ctype, double, from_f(x))                                                              \
  CONVERT(store_##compute##_bool, uint8_t, ctype, x != 0)                                                              \
  CONVERT(store_##compute##_u8, uint8_t, ctype, to_int(x))                                                             \
  CONVERT(store_##compute##_i32, int32_t, ctype, to_int(x))                                                            \
  CONVERT(store_##compute##_i64, int64_t, ctype, to_int(x))                                                            \
  CONVERT(store_##compute##_f16, uint16_t, ctype, pl_float_to_f16((float)to_f(x)))                                     \
  CONVERT(store_##compute##_bf16, uint16_t, ctype, pl_float_to_bf16((float)to_f(x)))                                   \
  CONVERT(store_##compute##_f32, float, ctype, to_f(x))                                                                \
  CONVERT(store_##compute##_f64, double, ctype, to_f(x))
#define SAME(x) (x)
STORAGE(f32, float, SAME, SAME, pl_saturate)
STORAGE(f64, double, SAME, SAME, pl_saturate)
STORAGE(i64, int64_t, pl_saturate, SAME, SAME)
#define CONVERSIONS(way, compute)                                                                                      \
  {                                                                                                                    \
    [PL_BOOL] = way##_##compute##_bool, [PL_U8] = way##_##compute##_u8, [PL_I32] = way##_##compute##_i32,              \
    [PL_I64] = way##_##compute##_i64, [PL_F16] = way##_##compute##_f16, [PL_BF16] = way##_##compute##_bf16,            \
    [PL_F32] = way##_##compute##_f32, [PL_F64] = way##_##compute##_f64                                                 \
  }

/* ---- sums: short runs in lanes of the type, their sums in double ---- */

enum { RUN = 512 };

#define SUM(suffix, type)                                                                                              \
  static double sum_##suffix(long n, const void *x) {                                                                  \
    const type *v = x;                                                                                                 \
    double total = 0;                                                                                                  \
    for (long start = 0; start < n; start += RUN) {                                                                    \
      long end = start + RUN < n ? start + RUN : n;                                                                    \
      type part = 0;                                                                                                   \
      _Pragma("omp simd reduction(+ : part)") for (long i = start; i < end; i++) part += v[i];                         \
      total += (double)part;                                                                                           \
    }                                                                                                                  \
    return total;                                                                                                      \
  }                                                                                                                    \
  static void accumulate_##suffix(long n, void *sum, const void *x) {                                                  \
    type *restrict s = sum;                                                                                            \
    const type *restrict v = x;                                                                                        \
    _Pragma("omp simd") for (long i = 0; i < n; i++) s[i] += v[i];                                                     \
  }
SUM(f32, float)
SUM(f64, double)
SUM(i64, int64_t)

/* ---- softmax over one contiguous row ---- */

#define SOFTMAX(suffix, type)                                                                                          \
  static void softmax_##suffix(long n, void *out, const void *in, bool logarithm) {                                    \
    type *restrict o = out;                                                                                            \
    const type *restrict x = in;                                                                                       \
    type top = -INFINITY;                                                                                              \
    _Pragma("omp simd reduction(max : top)") for (long i = 0; i < n; i++) top = x[i] > top ? x[i] : top;               \
    double sum = 0;                                                                                                    \
    for (long start = 0; start < n; start += RUN) {                                                                    \
      long end = start + RUN < n ? start + RUN : n;                                                                    \
      type part = 0;                                                                                                   \
      _Pragma("omp simd reduction(+ : part)") for (long i = start; i < end; i++) part += o[i] = exp(x[i] - top);       \
      sum += (double)part;                                                                                             \
    }                                                                                                                  \
    const type total = (type)sum;                                                                                      \
    if (logarithm) {                                                                                                   \
      const type shift = top + log(total);                                                                             \
      _Pragma("omp simd") for (long i = 0; i < n; i++) o[i] = x[i] - shift;                                            \
    } else {                                                                                                           \
      const type scale = 1 / total;                                                                                    \
      _Pragma("omp simd") for (long i = 0; i < n; i++) o[i] *= scale;                                                  \
    }                                                                                                                  \
  }                                                                                                                    \
  static void softmax_gradient_##suffix(long n, void *gin, const void *yy, const void *gg, bool logarithm) {           \
    type *restrict o = gin;                                                                                            \
    const type *restrict y = yy, *restrict g = gg;                                                                     \
    double sum = logarithm ? sum_##suffix(n, g) : 0;                                                                   \
    for (long start = 0; !logarithm && start < n; start += RUN) {                                                      \
      long end = start + RUN < n ? start + RUN : n;                                                                    \
      type part = 0;                                                                                                   \
      _Pragma("omp simd reduction(+ : part)") for (long i = start; i < end; i++) part += g[i] * y[i];                  \
      sum += (double)part;                                                                                             \
    }                                                                                                                  \
    const type total = (type)sum;                                                                                      \
    if (logarithm) {                                                                                                   \
      _Pragma("omp simd") for (long i = 0; i < n; i++) o[i] = g[i] - exp(y[i]) * total;                                \
    } else {                                                                                                           \
      _Pragma("omp simd") for (long i = 0; i < n; i++) o[i] = y[i] * (g[i] - total);                                   \
    }                                                                                                                  \
  }
SOFTMAX(f32, float)
SOFTMAX(f64, double)

/* ---- norms of one contiguous row ---- */

#define NORM(suffix, type)                                                                                             \
  static void norm_##suffix(long n, void *out, const void *in, const void *weight, const void *bias, bool centred,     \
                            double epsilon, double *mean_out, double *scale_out) {                                     \
    type *restrict y = out;                                                                                            \
    const type *restrict x = in, *restrict w = weight, *restrict b = bias;                                             \
    const type mean = centred ? (type)(sum_##suffix(n, x) / (double)n) : 0;                                            \
    double square = 0;                                                                                                 \
    for (long start = 0; start < n; start += RUN) {                                                                    \
      long end = start + RUN < n ? start + RUN : n;                                                                    \
      type part = 0;                                                                                                   \
      _Pragma("omp simd reduction(+ : part)") for (long i = start; i < end; i++) {                                     \
        const type u = x[i] - mean;                                                                                    \
        part += u * u;                                                                                                 \
      }                                                                                                                \
      square += (double)part;                                                                                          \
    }                                                                                                                  \
    *scale_out = 1 / (sqrt)(square / (double)n + epsilon);                                                             \
    *mean_out = (double)mean;                                                                                          \
    const type scale = (type)*scale_out;                                                                               \
    if (w && b) {                                                                                                      \
      _Pragma("omp simd") for (long i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * w[i] + b[i];                     \
    } else if (w) {                                                                                                    \
      _Pragma("omp simd") for (long i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * w[i];                            \
    } else if (b) {                                                                                                    \
      _Pragma("omp simd") for (long i = 0; i < n; i++) y[i] = (x[i] - mean) * scale + b[i];                            \
    } else {                                                                                                           \
      _Pragma("omp simd") for (long i = 0; i < n; i++) y[i] = (x[i] - mean) * scale;                                   \
    }                                                                                                                  \
  }                                                                                                                    \
  static void norm_input_##suffix(long n, void *out, const void *arrived, const void *in, const void *weight,          \
                                  bool centred, double of_x, double by) {                                              \
    type *restrict gx = out;                                                                                           \
    const type *restrict g = arrived, *restrict x = in, *restrict w = weight;                                          \
    const type mean = (type)of_x, scale = (type)by;                                                                    \
    double of_h = 0, of_hn = 0;                                                                                        \
    for (long start = 0; start < n; start += RUN) {                                                                    \
      long end = start + RUN < n ? start + RUN : n;                                                                    \
      type part = 0, product = 0;                                                                                      \
      if (w) {                                                                                                         \
        _Pragma("omp simd reduction(+ : part, product)") for (long i = start; i < end; i++) {                          \
          const type h = g[i] * w[i];                                                                                  \
          part += h;                                                                                                   \
          product += h * ((x[i] - mean) * scale);                                                                      \
        }                                                                                                              \
      } else {                                                                                                         \
        _Pragma("omp simd reduction(+ : part, product)") for (long i = start; i < end; i++) {                          \
          part += g[i];                                                                                                \
          product += g[i] * ((x[i] - mean) * scale);                                                                   \
        }                                                                                                              \
      }                                                                                                                \
      of_h += (double)part;                                                                                            \
      of_hn += (double)product;                                                                                        \
    }                                                                                                                  \
    const type a = centred ? (type)(of_h / (double)n) : 0, b = (type)(of_hn / (double)n);                              \
    if (w) {                                                                                                           \
      _Pragma("omp simd") for (long i = 0; i < n; i++) gx[i] = scale * (g[i] * w[i] - a - (x[i] - mean) * scale * b);  \
    } else {                                                                                                           \
      _Pragma("omp simd") for (long i = 0; i < n; i++) gx[i] = scale * (g[i] - a - (x[i] - mean) * scale * b);         \
    }                                                                                                                  \
  }                                                                                                                    \
  static void norm_weight_##suffix(long n, double *gweight, double *gbias, const void *arrived, const void *in,        \
                                   double of_x, double by) {                                                           \
    const type *restrict g = arrived, *restrict x = in;                                                                \
    const type mean = (type)of_x, scale = (type)by;                                                                    \
    double *restrict sum = gweight, *restrict plain = gbias;                                                           \
    _Pragma("omp simd") for (long i = 0; i < n; i++) {                                                                 \
      sum[i] += (double)(g[i] * ((x[i] - mean) * scale));                                                              \
      plain[i] += (double)g[i];                                                                                        \
    }                                                                                                                  \
  }
NORM(f32, float)
NORM(f64, double)

/* ---- cross-entropy of one contiguous row ---- */

#define ENTROPY(suffix, type)                                                                                          \
  static void exponentials_##suffix(long n, const void *in, double *top_out, double *total_out, double *sum_out) {     \
    const type *restrict x = in;                                                                                       \
    type top = -INFINITY;                                                                                              \
    _Pragma("omp simd reduction(max : top)") for (long i = 0; i < n; i++) top = x[i] > top ? x[i] : top;               \
    double total = 0;                                                                                                  \
    for (long start = 0; start < n; start += RUN) {                                                                    \
      long end = start + RUN < n ? start + RUN : n;                                                                    \
      type part = 0;                                                                                                   \
      _Pragma("omp simd reduction(+ : part)") for (long i = start; i < end; i++) part += exp(x[i] - top);              \
      total += (double)part;                                                                                           \
    }                                                                                                                  \
    *top_out = (double)top;                                                                                            \
    *total_out = total;                                                                                                \
    *sum_out = sum_##suffix(n, x);                                                                                     \
  }                                                                                                                    \
  static void entropy_gradient_##suffix(long n, void *out, const void *in, double from, double share, double factor) { \
    type *gx = out; /* may be x */                                                                                     \
    const type *x = in;                                                                                                \
    const type shift = (type)from, even = (type)share, g = (type)factor;                                               \
    _Pragma("omp simd") for (long i = 0; i < n; i++) gx[i] = g * (exp(x[i] - shift) - even);                           \
  }
ENTROPY(f32, float)
ENTROPY(f64, double)

/* ---- Adam ---- */

#define ADAM(suffix, type)                                                                                             \
  static void adam_##suffix(long n, void *parameter, const void *gradient, void *first, void *second,                  \
                            const double *f) {                                                                         \
    type *restrict p = parameter, *restrict m = first, *restrict v = second;                                           \
    const type *restrict gr = gradient;                                                                                \
    const type beta1 = (type)f[PL_ADAM_BETA1], beta2 = (type)f[PL_ADAM_BETA2];                                         \
    const type rate = (type)(f[PL_ADAM_RATE] / f[PL_ADAM_CORRECTION1]), epsilon = (type)f[PL_ADAM_EPSILON];            \
    const type root = (type)(1 / sqrt(f[PL_ADAM_CORRECTION2]));                                                        \
    const type joined = (type)(f[PL_ADAM_DECOUPLED] != 0 ? 0 : f[PL_ADAM_DECAY]);                                      \
    const type shrink = (type)(f[PL_ADAM_DECOUPLED] != 0 ? 1 - f[PL_ADAM_RATE] * f[PL_ADAM_DECAY] : 1);                \
    _Pragma("omp simd") for (long i = 0; i < n; i++) {                                                                 \
      const type g = gr[i] + joined * p[i];                                                                            \
      m[i] = beta1 * m[i] + (1 - beta1) * g;                                                                           \
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;                                                                       \
      p[i] = shrink * p[i] - rate * m[i] / (sqrt(v[i]) * root + epsilon);                                              \
    }                                                                                                                  \
  }
ADAM(f32, float)
ADAM(f64, double)

#if defined(__AVX512F__)
#define WIDTH "AVX-512", .vector_bytes = 64
#elif defined(__AVX2__)
#define WIDTH "AVX2", .vector_bytes = 32
#elif defined(__x86_64__)
#define WIDTH "SSE2", .vector_bytes = 16
#else
#define WIDTH "generic vectors", .vector_bytes = 16
#endif

const pl_kernels PL_LEVEL_NAME(pl_kernels_) = {
    .name = WIDTH,
    .pointwise = {[PL_COMPUTE_F32] = {PL_POINTWISE(ENTRY_F32)},
                  [PL_COMPUTE_F64] = {PL_POINTWISE(ENTRY_F64)},
                  [PL_COMPUTE_I64] = {PL_POINTWISE_ANY(ENTRY_I64) PL_POINTWISE_TEST(ENTRY_I64)}},
    .load = {CONVERSIONS(load, f32), CONVERSIONS(load, f64), CONVERSIONS(load, i64)},
    .store = {CONVERSIONS(store, f32), CONVERSIONS(store, f64), CONVERSIONS(store, i64)},
    .sum = {sum_f32, sum_f64, sum_i64},
    .accumulate = {accumulate_f32, accumulate_f64, accumulate_i64},
    .softmax = {softmax_f32, softmax_f64},
    .softmax_gradient = {softmax_gradient_f32, softmax_gradient_f64},
    .norm = {norm_f32, norm_f64},
    .norm_input = {norm_input_f32, norm_input_f64},
    .norm_weight = {norm_weight_f32, norm_weight_f64},
    .exponentials = {exponentials_f32, exponentials_f64},
    .entropy_gradient = {entropy_gradient_f32, entropy_gradient_f64},
    .adam = {adam_f32, adam_f64},
    .recurrence = &PL_LEVEL_NAME(pl_recurrence_kernels_),
};
