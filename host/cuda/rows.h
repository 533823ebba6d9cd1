/* Kernels whose threads share rows, kernels/rows.cuh: how many threads take a row, and the variants as text; compiled
 * on demand, and all of them by the test. */
#ifndef PL_CUDA_ROWS_H
#define PL_CUDA_ROWS_H

#include "host/cuda/layout.h"

typedef struct {
  int width;  /* threads that share a row: 1, 4, 8, 16, 32, 256 or 1024 */
  int vector; /* neighbours that a thread moves at once */
  int hold;   /* vectors that a thread keeps in registers; 0: the row is read once per pass */
} pl_rows_shape;

/* The widest vectors in which rows of `length` of all the arrays can be moved; the last axis goes along the rows. */
int pl_rows_vector(const pl_array *const arrays[], int count, int64_t length);
/* For kernels that hold `held` arrays, or none: they read rows once anyway. */
pl_rows_shape pl_rows_shape_of(int64_t length, int vector, int held);
/* Threads of a block, and how many rows it takes. */
int pl_rows_threads(const pl_rows_shape *shape);
int64_t pl_rows_blocks(const pl_rows_shape *shape, int64_t rows);
/* What kernels/rows.cuh asks for; `result` is the type that is stored. */
void pl_rows_prelude(const pl_rows_shape *shape, pl_dtype compute, pl_dtype result, pl_text *text);
/* Ten bits that tell shapes apart in the key of a kernel. */
uint64_t pl_rows_key(const pl_rows_shape *shape);

typedef struct {
  pl_softmax_kind kind;
  bool gradient;
  pl_dtype out, in, y;
  int rank; /* axes of a row's place */
  pl_rows_shape shape;
  bool across; /* rows lie side by side, and vectors hold neighbours of several rows */
  int part;    /* 0: in one launch; 1, 2: by slices of the rows, in two */
} pl_softmax_variant;

typedef enum { PL_NORM_FORWARD, PL_NORM_INPUT, PL_NORM_WEIGHT } pl_norm_step;

typedef struct {
  pl_norm_step step;
  bool centred, weighted, biased, adding;
  pl_dtype y, x, weight, bias;
  pl_rows_shape shape;
} pl_norm_variant;

typedef struct {
  bool gradient, smooth;
  pl_dtype type, label;
  pl_rows_shape shape;
} pl_cross_entropy_variant;

void pl_softmax_prelude(const pl_softmax_variant *variant, pl_text *text);
void pl_norm_prelude(const pl_norm_variant *variant, pl_text *text);
void pl_cross_entropy_prelude(const pl_cross_entropy_variant *variant, pl_text *text);

#endif
