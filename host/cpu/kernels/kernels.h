/* The vector loops of the CPU, compiled once per instruction set (PL_LEVEL); host/cpu picks the widest that runs here.
 * They work on contiguous blocks of one compute type; everything about strides, types and threads is the caller's. */
#ifndef PL_CPU_KERNELS_H
#define PL_CPU_KERNELS_H

#include "host/cpu/kernels/recurrence.h"
#include "host/device/pointwise.h"

typedef enum { PL_COMPUTE_F32, PL_COMPUTE_F64, PL_COMPUTE_I64, PL_COMPUTES } pl_compute;

/* out[i] = formula(in[..][i]). Operands that the formula does not read may point anywhere readable. */
typedef void (*pl_loop)(long n, void *out, const void *const in[PL_OPERANDS]);

/* Blocks converted between a storage type and a compute type. */
typedef void (*pl_convert)(long n, void *to, const void *from);

typedef struct {
  const char *name; /* "AVX-512", ... */
  int vector_bytes;
  pl_loop pointwise[PL_COMPUTES][PL_OPS][PL_FORMULAS]; /* NULL: no such formula for that type */
  pl_convert load[PL_COMPUTES][PL_DTYPES];             /* storage -> compute */
  pl_convert store[PL_COMPUTES][PL_DTYPES];            /* compute -> storage */
  /* Over contiguous floats or doubles (by pl_compute): */
  double (*sum[PL_COMPUTES])(long n, const void *x); /* accumulated in double (float64: pairwise lanes) */
  void (*accumulate[PL_COMPUTES])(long n, void *sum, const void *x);     /* sum[i] += x[i] */
  void (*softmax[2])(long n, void *out, const void *in, bool logarithm); /* F32, F64 */
  void (*softmax_gradient[2])(long n, void *gin, const void *y, const void *g, bool logarithm);
  /* One row of layer norm (centred) or RMS norm: y = (x - mean) scale weight + bias; weight and bias may be NULL. */
  void (*norm[2])(long n, void *y, const void *x, const void *weight, const void *bias, bool centred, double epsilon,
                  double *mean, double *scale);
  /* The gradient of x from g, the one at y, into gx unless that is NULL. */
  void (*norm_input[2])(long n, void *gx, const void *g, const void *x, const void *weight, bool centred, double mean,
                        double scale);
  /* Adds this row's part of the gradients of weight and bias to the sums of double. */
  void (*norm_weight[2])(long n, double *gweight, double *gbias, const void *g, const void *x, double mean,
                         double scale);
  /* The largest of a row, the sum of exp(x - top) and the sum. */
  void (*exponentials[2])(long n, const void *x, double *top, double *total, double *sum);
  /* gx = g (exp(x - shift) - even) */
  void (*entropy_gradient[2])(long n, void *gx, const void *x, double shift, double even, double g);
  void (*adam[2])(long n, void *parameter, const void *gradient, void *first, void *second, const double *factors);
  const pl_recurrence_kernels *recurrence;
} pl_kernels;

/* Order of `factors` for adam. */
enum {
  PL_ADAM_RATE,
  PL_ADAM_BETA1,
  PL_ADAM_BETA2,
  PL_ADAM_EPSILON,
  PL_ADAM_DECAY,
  PL_ADAM_CORRECTION1,
  PL_ADAM_CORRECTION2,
  PL_ADAM_DECOUPLED,
  PL_ADAM_FACTORS
};

#define PL_PASTE_(a, b)     a##b
#define PL_PASTE(a, b)      PL_PASTE_(a, b)
#define PL_LEVEL_NAME(name) PL_PASTE(name, PL_LEVEL) /* the symbol of this level: pl_kernels_v4 */

extern const pl_kernels pl_kernels_base, pl_kernels_v3, pl_kernels_v4;

#endif
