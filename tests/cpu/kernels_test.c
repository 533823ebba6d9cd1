/* The vector loops of every instruction set that this processor runs, against the formulas in long double: all
 * elementwise operations and gradients, conversions, sums, softmax, norms, cross-entropy, Adam, with every
 * length of tail. Exits with 1 on a difference. */
#include "host/cpu/kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;
static uint64_t random_state = 88172645463325252u;

static double random_unit(void) { /* xorshift64*, in [0, 1) */
  random_state ^= random_state >> 12, random_state ^= random_state << 25, random_state ^= random_state >> 27;
  return (double)(random_state * 2685821657736338717u >> 11) * 0x1p-53;
}

static void complain(const char *level, const char *what, int length, int at, long double expected, long double got) {
  if (failures++ < 30)
    fprintf(stderr, "%s: %s, element %d of %d: expected %.21Lg, got %.21Lg\n", level, what, at, length, expected, got);
}

/* ---- the formulas in long double ---- */

typedef long double wide;
typedef wide (*reference)(wide a, wide b, wide c, wide g, wide y);

#define exp(x)         expl(x)
#define log(x)         logl(x)
#define log1p(x)       log1pl(x)
#define expm1(x)       expm1l(x)
#define sqrt(x)        sqrtl(x)
#define tanh(x)        tanhl(x)
#define sin(x)         sinl(x)
#define cos(x)         cosl(x)
#define erf(x)         erfl(x)
#define floor(x)       floorl(x)
#define ceil(x)        ceill(x)
#define round(x)       rintl(x)
#define pow(x, y)      powl(x, y)
#define abs(x)         fabsl(x)
#define mod(x, y)      ((x)-floorl((x) / (y)) * (y))
#define K(number)      number##L
#define where(c, x, y) ((c) != 0 ? (wide)(x) : (wide)(y))
#define eq(x, y)       ((wide)((x) == (y)))
#define ne(x, y)       ((wide)((x) != (y)))
#define lt(x, y)       ((wide)((x) < (y)))
#define le(x, y)       ((wide)((x) <= (y)))
#define gt(x, y)       ((wide)((x) > (y)))
#define ge(x, y)       ((wide)((x) >= (y)))

#define FORMULA(label, name, formula)                                                                                  \
  static wide label##_##name(wide a, wide b, wide c, wide g, wide y) {                                                 \
    (void)a, (void)b, (void)c, (void)g, (void)y;                                                                       \
    return formula;                                                                                                    \
  }
#define FORMULAS(name, arity, value, da, db, dc, ...)                                                                  \
  FORMULA(f0, name, value) FORMULA(f1, name, da) FORMULA(f2, name, db) FORMULA(f3, name, dc)
PL_POINTWISE(FORMULAS)
#define ROW(name, ...) [PL_OP_##name] = {f0_##name, f1_##name, f2_##name, f3_##name},
static const reference references[PL_OPS][PL_FORMULAS] = {PL_POINTWISE(ROW)};

#undef exp
#undef log
#undef sqrt
#undef floor
#undef pow
#undef abs

/* ---- elementwise ---- */

enum { LENGTH_MAX = 600, GUARD = 64 };

typedef union {
  float f32[LENGTH_MAX + GUARD];
  double f64[LENGTH_MAX + GUARD];
  int64_t i64[LENGTH_MAX + GUARD];
} block;

static const int lengths[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 511, 512, 513, 600};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static wide value_at(pl_compute compute, const block *b, int i) {
  return compute == PL_COMPUTE_F32 ? b->f32[i] : compute == PL_COMPUTE_F64 ? b->f64[i] : (wide)b->i64[i];
}

static void put_at(pl_compute compute, block *b, int i, wide value) {
  if (compute == PL_COMPUTE_F32)
    b->f32[i] = (float)value;
  else if (compute == PL_COMPUTE_F64)
    b->f64[i] = (double)value;
  else
    b->i64[i] = (int64_t)value;
}

static const wide epsilon[] = {FLT_EPSILON, DBL_EPSILON, 0};

static void draw(pl_compute compute, const pl_pointwise *row, int n, block operand[PL_OPERANDS]) {
  bool integers = compute == PL_COMPUTE_I64;
  for (int i = 0; i < n; i++) {
    for (int k = 0; k < 4; k++) {
      double low = k < 3 ? row->low : -1, high = k < 3 ? row->high : 1;
      wide x = integers ? (wide)((int)(random_unit() * 19) - 9) : low + (high - low) * random_unit();
      if (integers && x == 0) x = 10; /* a divisor of remainder */
      put_at(compute, &operand[k], i, x);
    }
    const block *o = operand;
    put_at(compute, &operand[PL_OPERAND_Y], i,
           references[row - pl_pointwise_table][PL_VALUE](value_at(compute, &o[0], i), value_at(compute, &o[1], i),
                                                          value_at(compute, &o[2], i), 0, 0));
  }
}

/* A few units in the last place of the result or, where parts of it cancel, of 1. */
static bool near(pl_compute compute, wide expected, wide got) {
  if (isnan(expected)) return isnan(got);
  if (compute == PL_COMPUTE_I64) return expected == got;
  wide scale = fabsl(expected) > 1 ? fabsl(expected) : 1;
  return fabsl(expected - got) <= 8 * epsilon[compute] * scale;
}

static void check_pointwise(const pl_kernels *kernels, pl_compute compute, int op, int formula) {
  static block operand[PL_OPERANDS], out;
  const pl_pointwise *row = &pl_pointwise_table[op];
  pl_loop loop = kernels->pointwise[compute][op][formula];
  bool wanted = formula <= row->arity && (compute != PL_COMPUTE_I64 || (formula == 0 && row->domain != PL_DOMAIN_REAL));
  if (!wanted) {
    if (loop) complain(kernels->name, "a loop too many", op, formula, 0, 1);
    return;
  }
  const void *in[PL_OPERANDS];
  for (int k = 0; k < PL_OPERANDS; k++) in[k] = &operand[k];
  for (int l = 0; l < LENGTHS; l++) {
    int n = lengths[l];
    draw(compute, row, n, operand);
    memset(&out, 0x5A, sizeof out);
    block before = out;
    loop(n, &out, in);
    for (int i = 0; i < n; i++) {
      wide x[PL_OPERANDS];
      for (int k = 0; k < PL_OPERANDS; k++) x[k] = value_at(compute, &operand[k], i);
      wide expected = references[op][formula](x[0], x[1], x[2], x[3], x[4]), got = value_at(compute, &out, i);
      if (!near(compute, expected, got)) complain(kernels->name, row->name, n, i, expected, got);
    }
    size_t size = compute == PL_COMPUTE_F32 ? 4 : 8, used = (size_t)n * size;
    if (memcmp((char *)&out + used, (char *)&before + used, GUARD * size) != 0)
      complain(kernels->name, row->name, n, n, 0, 1);
  }
}

/* ---- conversions: the same bits as the loops for every processor ---- */

static void check_conversions(const pl_kernels *kernels) {
  static const double special[] = {
      0,     -0.0, 1,      -1,  0.5,      255,       256,          65504,     65520,     1e-8,     6e-8,    1e30,
      -1e30, 3e38, 9.3e18, NAN, INFINITY, -INFINITY, 2147483648.0, 0x1.002p0, 0x1.006p0, 0x1.01p0, 0x1.03p0};
  enum { SPECIAL = sizeof special / sizeof *special };
  static block from, expected, got, back;
  for (int compute = 0; compute < PL_COMPUTES; compute++)
    for (int type = 0; type < PL_DTYPES; type++)
      for (int l = 0; l < LENGTHS; l++) {
        int n = lengths[l];
        for (int i = 0; i < n; i++) {
          wide x = i < SPECIAL && compute != PL_COMPUTE_I64 ? (wide)special[i] : floorl((random_unit() - 0.5) * 3e10L);
          put_at((pl_compute)compute, &from, i, x);
        }
        memset(&expected, 1, sizeof expected), memset(&got, 1, sizeof got);
        pl_kernels_base.store[compute][type](n, &expected, &from);
        kernels->store[compute][type](n, &got, &from);
        if (memcmp(&expected, &got, sizeof got) != 0)
          complain(kernels->name, pl_dtype_name((pl_dtype)type), n, compute, 0, 1);
        memset(&back, 1, sizeof back), memset(&from, 1, sizeof from);
        pl_kernels_base.load[compute][type](n, &from, &expected);
        kernels->load[compute][type](n, &back, &expected);
        if (memcmp(&from, &back, sizeof back) != 0)
          complain(kernels->name, pl_dtype_name((pl_dtype)type), n, compute, 1, 0);
      }
}

/* ---- sums, softmax, norms, cross-entropy, Adam ---- */

static void check_sums(const pl_kernels *kernels, pl_compute compute, int n) {
  static block x, sum, before;
  wide total = 0;
  for (int i = 0; i < n + 5; i++) {
    put_at(compute, &x, i, compute == PL_COMPUTE_I64 ? (wide)i - 7 : (wide)random_unit());
    put_at(compute, &sum, i, 3);
  }
  before = sum;
  for (int i = 0; i < n; i++) total += value_at(compute, &x, i);
  wide got = (wide)kernels->sum[compute](n, &x);
  if (fabsl(total - got) > 32 * (wide)epsilon[compute] * (1 + fabsl(total)))
    complain(kernels->name, "sum", n, compute, total, got);
  kernels->accumulate[compute](n, &sum, &x);
  for (int i = 0; i < n + 5; i++) {
    wide expected = i < n ? 3 + value_at(compute, &x, i) : value_at(compute, &before, i);
    if (!near(compute, expected, value_at(compute, &sum, i)))
      complain(kernels->name, "accumulate", n, i, expected, value_at(compute, &sum, i));
  }
}

static void check_softmax(const pl_kernels *kernels, pl_compute compute, int n, bool logarithm) {
  static block x, y, g, gin;
  static wide exact[LENGTH_MAX];
  wide total = 0, weighted = 0;
  for (int i = 0; i < n; i++) {
    put_at(compute, &x, i, 50 + 6 * random_unit());
    put_at(compute, &g, i, random_unit() - 0.5);
    total += exact[i] = expl(value_at(compute, &x, i) - 50);
  }
  for (int i = 0; i < n; i++) {
    wide p = exact[i] / total;
    exact[i] = logarithm ? logl(p) : p;
    weighted += logarithm ? value_at(compute, &g, i) : value_at(compute, &g, i) * p;
  }
  kernels->softmax[compute](n, &y, &x, logarithm);
  kernels->softmax_gradient[compute](n, &gin, &y, &g, logarithm);
  wide tolerance = 64 * epsilon[compute]; /* rounding of sums and of x itself near 50 */
  for (int i = 0; i < n; i++) {
    wide gi = value_at(compute, &g, i), got = value_at(compute, &gin, i);
    wide expected = logarithm ? gi - expl(exact[i]) * weighted : exact[i] * (gi - weighted);
    if (fabsl(exact[i] - value_at(compute, &y, i)) > tolerance)
      complain(kernels->name, "softmax", n, i, exact[i], value_at(compute, &y, i));
    if (fabsl(expected - got) > tolerance) complain(kernels->name, "softmax's gradient", n, i, expected, got);
  }
}

/* Rows of layer norm with weight and bias (way 0), with weight (1), with bias (2), and RMS norm without (3). */
static void check_norm(const pl_kernels *kernels, pl_compute compute, int n, int way) {
  static block x, w, b, g, y, gx;
  static double gweight[LENGTH_MAX], gbias[LENGTH_MAX];
  bool centred = way < 3, weighted = way < 2, biased = way == 0 || way == 2;
  wide mean = 0, square = 0, of_h = 0, of_hn = 0;
  for (int i = 0; i < n; i++) {
    put_at(compute, &x, i, random_unit() - 0.4), put_at(compute, &w, i, random_unit() + 0.5);
    put_at(compute, &b, i, random_unit()), put_at(compute, &g, i, random_unit() - 0.5);
    gweight[i] = gbias[i] = 2;
    mean += centred ? value_at(compute, &x, i) / n : 0;
  }
  for (int i = 0; i < n; i++) square += powl(value_at(compute, &x, i) - mean, 2) / n;
  wide scale = 1 / sqrtl(square + 0.01L), tolerance = 256 * epsilon[compute];
  double got_mean, got_scale;
  kernels->norm[compute](n, &y, &x, weighted ? &w : NULL, biased ? &b : NULL, centred, 0.01, &got_mean, &got_scale);
  kernels->norm_input[compute](n, &gx, &g, &x, weighted ? &w : NULL, centred, got_mean, got_scale);
  kernels->norm_weight[compute](n, gweight, gbias, &g, &x, got_mean, got_scale);
  for (int i = 0; i < n; i++) {
    wide h = value_at(compute, &g, i) * (weighted ? value_at(compute, &w, i) : 1);
    of_h += centred ? h / n : 0;
    of_hn += h * (value_at(compute, &x, i) - mean) * scale / n;
  }
  for (int i = 0; i < n; i++) {
    wide normal = (value_at(compute, &x, i) - mean) * scale, gi = value_at(compute, &g, i);
    wide of_w = weighted ? value_at(compute, &w, i) : 1, of_b = biased ? value_at(compute, &b, i) : 0;
    const wide expected[] = {normal * of_w + of_b, scale * (gi * of_w - of_h - normal * of_hn), 2 + gi * normal,
                             2 + gi};
    const wide got[] = {value_at(compute, &y, i), value_at(compute, &gx, i), gweight[i], gbias[i]};
    for (int k = 0; k < 4; k++)
      if (!(fabsl(expected[k] - got[k]) <= tolerance * (1 + scale)))
        complain(kernels->name, "norm", n, i, expected[k], got[k]);
  }
}

static void check_cross_entropy(const pl_kernels *kernels, pl_compute compute, int n) {
  static block x, gx;
  wide top_expected = -1e9L, total_expected = 0, sum_expected = 0;
  for (int i = 0; i < n; i++) {
    put_at(compute, &x, i, 8 * random_unit() - 3);
    wide xi = value_at(compute, &x, i);
    top_expected = xi > top_expected ? xi : top_expected;
    sum_expected += xi;
  }
  for (int i = 0; i < n; i++) total_expected += expl(value_at(compute, &x, i) - top_expected);
  double top, total, sum;
  wide tolerance = 64 * epsilon[compute];
  kernels->exponentials[compute](n, &x, &top, &total, &sum);
  if (top != (double)top_expected) complain(kernels->name, "top", n, 0, top_expected, top);
  if (fabsl(total - total_expected) > tolerance * total_expected)
    complain(kernels->name, "exponentials", n, 0, total_expected, total);
  if (fabsl(sum - sum_expected) > tolerance * (1 + n)) complain(kernels->name, "sum", n, 0, sum_expected, sum);
  kernels->entropy_gradient[compute](n, &gx, &x, 2.5, 0.25, -3);
  for (int i = 0; i < n; i++) {
    wide expected = -3 * (expl(value_at(compute, &x, i) - 2.5L) - 0.25L);
    if (fabsl(expected - value_at(compute, &gx, i)) > tolerance * (1 + fabsl(expected)))
      complain(kernels->name, "cross-entropy's gradient", n, i, expected, value_at(compute, &gx, i));
  }
}

static void check_adam(const pl_kernels *kernels, pl_compute compute, int n, bool decoupled) {
  static block p, g, m, v, p0, m0, v0;
  const double f[PL_ADAM_FACTORS] = {0.01, 0.9, 0.99, 1e-6, 0.1, 0.19, 0.0199, decoupled};
  for (int i = 0; i < n; i++) {
    put_at(compute, &p, i, random_unit() - 0.5), put_at(compute, &g, i, random_unit() - 0.5);
    put_at(compute, &m, i, random_unit() - 0.5), put_at(compute, &v, i, random_unit() + 0.1);
  }
  p0 = p, m0 = m, v0 = v;
  kernels->adam[compute](n, &p, &g, &m, &v, f);
  for (int i = 0; i < n; i++) {
    wide old = value_at(compute, &p0, i), gi = value_at(compute, &g, i) + (decoupled ? 0 : f[PL_ADAM_DECAY] * old);
    wide mi = f[PL_ADAM_BETA1] * value_at(compute, &m0, i) + (1 - f[PL_ADAM_BETA1]) * gi;
    wide vi = f[PL_ADAM_BETA2] * value_at(compute, &v0, i) + (1 - f[PL_ADAM_BETA2]) * gi * gi;
    wide shrunk = decoupled ? old * (1 - f[PL_ADAM_RATE] * f[PL_ADAM_DECAY]) : old;
    wide expected = shrunk - f[PL_ADAM_RATE] * (mi / f[PL_ADAM_CORRECTION1]) /
                                 (sqrtl(vi / f[PL_ADAM_CORRECTION2]) + f[PL_ADAM_EPSILON]);
    if (!near(compute, expected, value_at(compute, &p, i)))
      complain(kernels->name, "adam", n, i, expected, value_at(compute, &p, i));
  }
}

static void check_level(const pl_kernels *kernels) {
  for (int compute = 0; compute < PL_COMPUTES; compute++)
    for (int op = 0; op < PL_OPS; op++)
      for (int formula = 0; formula < PL_FORMULAS; formula++)
        check_pointwise(kernels, (pl_compute)compute, op, formula);
  check_conversions(kernels);
  for (int l = 0; l < LENGTHS; l++)
    for (int compute = 0; compute < PL_COMPUTES; compute++) {
      int n = lengths[l];
      check_sums(kernels, (pl_compute)compute, n < LENGTH_MAX ? n : LENGTH_MAX - 5);
      for (int way = 0; way < 2 && compute != PL_COMPUTE_I64 && n > 0; way++) {
        check_softmax(kernels, (pl_compute)compute, n, way);
        check_adam(kernels, (pl_compute)compute, n, way);
      }
      if (compute == PL_COMPUTE_I64 || n == 0) continue;
      for (int way = 0; way < 4; way++) check_norm(kernels, (pl_compute)compute, n, way);
      check_cross_entropy(kernels, (pl_compute)compute, n);
    }
  printf("%s: %d differences so far\n", kernels->name, failures);
}

int main(void) {
  check_level(&pl_kernels_base);
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v3")) check_level(&pl_kernels_v3);
  if (__builtin_cpu_supports("x86-64-v4")) check_level(&pl_kernels_v4);
#endif
  return failures != 0;
}
