/* The variants of the gather and scatter kernels, as text; compiled on demand, and all of them by the test. */
#ifndef PL_CUDA_INDEX_H
#define PL_CUDA_INDEX_H

#include "host/base/text.h"
#include "host/device/dtype.h"

typedef struct {
  size_t bytes; /* of one value */
  pl_dtype index;
  int rank, vector;
  bool small;
} pl_gather_variant;

typedef struct {
  pl_dtype type, index; /* type: of what is added, and of what is added to */
  int rank, vector;     /* vector: neighbours that a thread takes at once, where whole slices are added */
} pl_scatter_variant;

void pl_gather_prelude(const pl_gather_variant *variant, pl_text *text);
void pl_scatter_prelude(const pl_scatter_variant *variant, pl_text *text);

#endif
