/* The variants of the random, softmax, squares and Adam kernels, as text; compiled on demand, and all of them by the
 * test. */
#ifndef PL_CUDA_ROWS_H
#define PL_CUDA_ROWS_H

#include "host/device/device.h"

typedef struct {
  pl_softmax_kind kind;
  bool gradient;
  pl_dtype out, in, y;
  int rank, width; /* axes of a row's place; threads that share a row: 1, 32 or 256 */
} pl_softmax_variant;

void pl_random_prelude(pl_distribution kind, pl_dtype type, int rank, pl_text *text);
void pl_softmax_prelude(const pl_softmax_variant *variant, pl_text *text);
void pl_squares_prelude(pl_dtype type, pl_text *text);
void pl_adam_prelude(pl_dtype type, pl_text *text);

#endif
