/* The variants of the kernels over lists of arrays, and of the random one, as text; compiled on demand, and all of them
 * by the test. */
#ifndef PL_CUDA_LISTS_H
#define PL_CUDA_LISTS_H

#include "host/device/device.h"

void pl_random_prelude(pl_distribution kind, pl_dtype type, int rank, pl_text *text);
void pl_list_prelude(pl_dtype type, pl_text *text); /* of squares.cu and scale.cu */
void pl_adam_prelude(pl_dtype type, pl_text *text);

#endif
