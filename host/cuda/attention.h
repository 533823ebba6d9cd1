/* Attention on tensor cores, kernels/attention.cu: how its passes are cut, as text; compiled on demand, and all of them
 * by the test. */
#ifndef PL_CUDA_ATTENTION_H
#define PL_CUDA_ATTENTION_H

#include "host/cuda/cuda.h"

typedef enum { PL_ATTENTION_FORWARD, PL_ATTENTION_QUERIES, PL_ATTENTION_KEYS, PL_ATTENTION_SUMS } pl_attention_pass;

typedef struct {
  pl_attention_pass pass;
  pl_dtype type; /* float16 or bfloat16 */
  int features;  /* of a head */
  bool causal;
} pl_attention_variant;

/* Whether there are kernels for heads of that type and number of features. */
bool pl_attention_compiles(pl_dtype type, int64_t features);
/* The text in front of kernels/attention.cu. */
void pl_attention_prelude(const pl_attention_variant *variant, pl_text *text);

#endif
