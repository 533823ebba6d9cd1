/* Copies between arrays whose neighbours lie along different axes. */
#ifndef PL_CUDA_TRANSPOSE_H
#define PL_CUDA_TRANSPOSE_H

#include "host/cuda/pointwise.h"

typedef struct {
  pl_dtype out, in;
  pl_work work;             /* PL_WORK_RAW where both types are the same */
  int rank;                 /* axes beside the two */
  bool whole_out, whole_in; /* aligned for vectors */
  int edge;                 /* a thread turns so many elements each way */
} pl_transpose_variant;

/* How many elements a thread turns each way; more where they are small and there are `many`. */
int pl_transpose_edge(pl_dtype out, pl_dtype in, bool many);
void pl_transpose_prelude(const pl_transpose_variant *variant, pl_text *text);
/* The axis along which in's neighbours lie when it is not out's last one and both are long enough for tiles; else -1.
 * Both arrays are merged and of one shape. */
int pl_transpose_axis(const pl_array *out, const pl_array *in);
pl_status pl_transpose_copy(pl_cuda *cuda, const pl_array *out, const pl_array *in, int axis, pl_work work);

#endif
