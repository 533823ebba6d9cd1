/* The reduction kernels' variants, as text; compiled on demand, and all of them by the test. */
#ifndef PL_CUDA_REDUCE_H
#define PL_CUDA_REDUCE_H

#include "host/cuda/pointwise.h"
#include "host/device/device.h"

typedef struct {
  pl_reduction kind;
  pl_work work;
  pl_dtype in, out;
  int kept, reduced; /* axes after merging */
  int vector;        /* neighbours that a thread takes at once */
  int width;         /* threads that share a row: 1, 4, 16, 32 or 256; 0: by columns */
  int lanes;         /* by columns: threads side by side, 1, 2, 4, .. or 32 */
  bool small, partial_in, partial_out;
} pl_reduce_variant;

void pl_reduce_prelude(const pl_reduce_variant *variant, pl_text *text);
const char *pl_reduce_name(const pl_reduce_variant *variant); /* of the kernel in kernels/reduce.cu */

#endif
