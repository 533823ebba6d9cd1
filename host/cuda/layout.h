/* What kernels are told about strided arrays; kernels/layout.cuh has the same structures. */
#ifndef PL_CUDA_LAYOUT_H
#define PL_CUDA_LAYOUT_H

#include "host/cuda/cuda.h"

/* Axes shared by several arrays, outermost first, with what division by a size needs. */
typedef struct {
  int64_t size[PL_RANK_MAX];
  uint32_t magic[PL_RANK_MAX], shift[PL_RANK_MAX];
} pl_axes;

typedef struct {
  uint64_t place, lock;
} pl_complaints;

/* `last_divisor`: the last size is divided by it (a vector counts as one). */
pl_axes pl_axes_of(const pl_array *array, int64_t last_divisor);
pl_complaints pl_complaints_of(const pl_cuda *cuda);

/* Whether every offset into the array, and its element count, fit 31 bits. */
bool pl_layout_small(const pl_array *array);
/* Whether vectors of `count` elements along the last axis can be moved at once: stride 1 there, and the start and all
 * other strides aligned. */
bool pl_layout_dense(const pl_array *array, int count);

/* The storage type's name in kernels/types.cuh. */
const char *pl_layout_type(pl_dtype type);
/* The name of an unsigned type of that many bytes: for moving values without looking at them. */
const char *pl_layout_raw(size_t bytes);

#endif
