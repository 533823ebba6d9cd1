/* OpenBLAS, loaded at the first product: loading it starts threads and costs more than a short script's whole run. */
#ifndef PL_CPU_BLAS_H
#define PL_CPU_BLAS_H

#include "host/base/status.h"
#include <cblas.h>

typedef struct {
  void (*sgemm)(enum CBLAS_ORDER, enum CBLAS_TRANSPOSE, enum CBLAS_TRANSPOSE, blasint m, blasint n, blasint k,
                float alpha, const float *a, blasint lda, const float *b, blasint ldb, float beta, float *c,
                blasint ldc);
  void (*dgemm)(enum CBLAS_ORDER, enum CBLAS_TRANSPOSE, enum CBLAS_TRANSPOSE, blasint m, blasint n, blasint k,
                double alpha, const double *a, blasint lda, const double *b, blasint ldb, double beta, double *c,
                blasint ldc);
} pl_blas;

/* The library's functions, loaded on first use; each runs on the thread that calls it. An error names the missing
 * library. */
pl_status pl_cpu_blas(const pl_blas **blas);

#endif
