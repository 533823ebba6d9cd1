/* The table of elementwise operations. One line here gives an operation its C loops, its CUDA text, its gradient, its
 * Lua binding, its place in cells, and its test.
 *
 * A line is  X(name, arity, value, da, db, dc, low, high):
 *   value       the result in terms of the operands a, b, c
 *   da db dc    the gradient of each operand in terms of g (gradient of the result), a, b, c and the result y; 0: none
 *   low, high   the range from which tests draw operands: inside the domain and away from kinks
 * The formulas are C, CUDA and Lua at once, so they use only + - * /, parentheses, numbers, K(decimal number) and the
 * functions below: exp log log1p expm1 sqrt tanh sin cos erf floor ceil round pow mod abs, where(c, x, y) and the tests
 * eq ne lt le gt ge, which are 1 or 0. */
#ifndef PL_DEVICE_POINTWISE_H
#define PL_DEVICE_POINTWISE_H

#include "host/device/dtype.h"

/* On every type; the result has the promoted type of the operands. NaN passes through relu, maximum and minimum. */
// clang-format off
#define PL_POINTWISE_ANY(X)                                                                                            \
  X(add, 2, a + b, g, g, 0, -2, 2)                                                                                     \
  X(sub, 2, a - b, g, -g, 0, -2, 2)                                                                                    \
  X(mul, 2, a * b, g * b, g * a, 0, -2, 2)                                                                             \
  X(neg, 1, -a, -g, 0, 0, -2, 2)                                                                                       \
  X(abs, 1, where(lt(a, 0), -a, a), g * (gt(a, 0) - lt(a, 0)), 0, 0, 0.2, 2)                                           \
  X(sign, 1, gt(a, 0) - lt(a, 0), 0, 0, 0, 0.2, 2)                                                                     \
  X(square, 1, a * a, 2 * g * a, 0, 0, -2, 2)                                                                          \
  X(relu, 1, where(le(a, 0), 0, a), g * gt(a, 0), 0, 0, 0.2, 2)                                                        \
  X(maximum, 2, where(ge(a, b), a, where(eq(a, a), b, a)), g * (gt(a, b) + eq(a, b) / K(2.0)), g * (lt(a, b) + eq(a, b) / K(2.0)), 0, -2, 2) \
  X(minimum, 2, where(le(a, b), a, where(eq(a, a), b, a)), g * (lt(a, b) + eq(a, b) / K(2.0)), g * (gt(a, b) + eq(a, b) / K(2.0)), 0, -2, 2) \
  X(remainder, 2, mod(a, b), g, g * ((y - a) / b), 0, 1.1, 1.9)                                                        \
  X(clamp, 3, where(lt(a, b), b, where(gt(a, c), c, a)), g * (ge(a, b) * le(a, c)), g * lt(a, b), g * gt(a, c), -2, 2) \
  X(where, 3, where(ne(a, 0), b, c), 0, g * ne(a, 0), g * eq(a, 0), -2, 2)                                             \
  X(gradient_clip, 2, a + 0 * b, where(lt(g, -b), -b, where(gt(g, b), b, g)), 0, 0, 2, 3)

/* Comparisons: operands of every type, the result is bool (and the number 1 or 0 inside a cell). */
#define PL_POINTWISE_TEST(X)                                                                                           \
  X(eq, 2, eq(a, b), 0, 0, 0, -2, 2)                                                                                   \
  X(ne, 2, ne(a, b), 0, 0, 0, -2, 2)                                                                                   \
  X(lt, 2, lt(a, b), 0, 0, 0, -2, 2)                                                                                   \
  X(le, 2, le(a, b), 0, 0, 0, -2, 2)                                                                                   \
  X(gt, 2, gt(a, b), 0, 0, 0, -2, 2)                                                                                   \
  X(ge, 2, ge(a, b), 0, 0, 0, -2, 2)

/* On floating-point types; integers are promoted to float32. */
#define PL_POINTWISE_REAL(X)                                                                                           \
  X(div, 2, a / b, g / b, -(g * y / b), 0, 0.2, 2)                                                                     \
  X(pow, 2, pow(a, b), where(eq(b, 0), 0, g * b * pow(a, b - 1)), where(eq(y, 0), 0, g * y * log(a)), 0, 0.2, 2)       \
  X(exp, 1, exp(a), g * y, 0, 0, -2, 2)                                                                                \
  X(expm1, 1, expm1(a), g * (y + 1), 0, 0, -2, 2)                                                                      \
  X(log, 1, log(a), g / a, 0, 0, 0.2, 2)                                                                               \
  X(log1p, 1, log1p(a), g / (1 + a), 0, 0, -0.5, 2)                                                                    \
  X(sqrt, 1, sqrt(a), g / (2 * y), 0, 0, 0.2, 2)                                                                       \
  X(rsqrt, 1, 1 / sqrt(a), -(g * y / (2 * a)), 0, 0, 0.2, 2)                                                           \
  X(reciprocal, 1, 1 / a, -(g * y * y), 0, 0, 0.2, 2)                                                                  \
  X(sin, 1, sin(a), g * cos(a), 0, 0, -2, 2)                                                                           \
  X(cos, 1, cos(a), -(g * sin(a)), 0, 0, -2, 2)                                                                        \
  X(tanh, 1, tanh(a), g * (1 - y * y), 0, 0, -2, 2)                                                                    \
  X(sigmoid, 1, 1 / (1 + exp(-a)), g * y * (1 - y), 0, 0, -2, 2)                                                       \
  X(logsigmoid, 1, where(lt(a, 0), a, 0) - log1p(exp(-abs(a))), g / (1 + exp(a)), 0, 0, -2, 2)                         \
  X(softplus, 1, where(gt(a, 0), a, 0) + log1p(exp(-abs(a))), g / (1 + exp(-a)), 0, 0, -2, 2)                          \
  X(silu, 1, a / (1 + exp(-a)), g * (1 + a * (1 - 1 / (1 + exp(-a)))) / (1 + exp(-a)), 0, 0, -2, 2)                    \
  X(swiglu, 2, a / (1 + exp(-a)) * b, g * b * (1 + a * (1 - 1 / (1 + exp(-a)))) / (1 + exp(-a)),                       \
    g * a / (1 + exp(-a)), 0, -2, 2)                                                                                   \
  X(gelu, 1, a * (1 + erf(a * K(0.70710678118654752))) / 2,                                                            \
    g * ((1 + erf(a * K(0.70710678118654752))) / 2 + a * exp(-a * a / 2) * K(0.39894228040143268)), 0, 0, -2, 2)       \
  X(erf, 1, erf(a), g * exp(-a * a) * K(1.1283791670955126), 0, 0, -2, 2)                                              \
  X(floor, 1, floor(a), 0, 0, 0, 0.2, 0.8)                                                                             \
  X(ceil, 1, ceil(a), 0, 0, 0, 0.2, 0.8)                                                                               \
  X(round, 1, round(a), 0, 0, 0, 0.6, 1.4)

// clang-format on

#define PL_POINTWISE(X) PL_POINTWISE_ANY(X) PL_POINTWISE_TEST(X) PL_POINTWISE_REAL(X)

typedef enum {
#define PL_ENUM_LINE_(name, ...) PL_OP_##name,
  PL_POINTWISE(PL_ENUM_LINE_)
#undef PL_ENUM_LINE_
      PL_OPS
} pl_op;

typedef enum { PL_DOMAIN_ANY, PL_DOMAIN_TEST, PL_DOMAIN_REAL } pl_domain;

/* Which of an operation's formulas to evaluate. */
typedef enum { PL_VALUE, PL_GRADIENT_A, PL_GRADIENT_B, PL_GRADIENT_C, PL_FORMULAS } pl_formula;

/* Positions of a formula's operands. */
enum { PL_OPERAND_A, PL_OPERAND_B, PL_OPERAND_C, PL_OPERAND_G, PL_OPERAND_Y, PL_OPERANDS };

typedef struct {
  const char *name;
  int arity;
  pl_domain domain;
  const char *text[PL_FORMULAS]; /* the formulas as text; "0" where there is no gradient */
  double low, high;
} pl_pointwise;

extern const pl_pointwise pl_pointwise_table[PL_OPS];

/* Bit i is set when the formula reads operand i. */
unsigned pl_pointwise_reads(pl_op op, pl_formula formula);
/* The operation of that name; PL_OPS when there is none. */
pl_op pl_pointwise_named(const char *name);

#endif
