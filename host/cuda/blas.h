/* cuBLAS, loaded at the first matrix product: batched products with float32 (float64) accumulation. */
#ifndef PL_CUDA_BLAS_H
#define PL_CUDA_BLAS_H

#include "host/cuda/cuda.h"

/* Loads cuBLAS, once; later calls repeat the first one's result. */
pl_status pl_blas_open(void);

/* A batch of row-major matrices: element (i, j) of matrix k lies at data[k * batch_stride + i * leading + j], or with i
 * and j swapped when `transposed`. */
typedef struct {
  void *data; /* in device memory */
  pl_dtype type;
  bool transposed;
  int64_t leading, batch_stride; /* in elements */
} pl_blas_matrix;

/* c = alpha a b + beta c for each of `batches`: a [m, k], b [k, n], c [m, n]; c is not transposed. a and b have one
 * type; c has it too, or float32 when they are float16 or bfloat16. Products of float32 are rounded as float32, unless
 * pl_tf32_allow allows less; 16-bit types and tf32 add up in float32. On the device's stream; may be captured. */
pl_status pl_blas_multiply(pl_cuda *cuda, int64_t m, int64_t n, int64_t k, double alpha, const pl_blas_matrix *a,
                           const pl_blas_matrix *b, double beta, const pl_blas_matrix *c, int64_t batches);

/* The same for matrices that lie anywhere: data is an array in device memory of the addresses of `batches` matrices,
 * batch_stride is not read. */
pl_status pl_blas_multiply_each(pl_cuda *cuda, int64_t m, int64_t n, int64_t k, double alpha, const pl_blas_matrix *a,
                                const pl_blas_matrix *b, double beta, const pl_blas_matrix *c, int64_t batches);

/* Creates the handle before the first product; needed before a capture, since it allocates. */
pl_status pl_blas_ready(pl_cuda *cuda);

#endif
