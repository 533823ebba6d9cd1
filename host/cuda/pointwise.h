/* The elementwise kernel's variants, as text and options; compiled on demand, and all of them by the test. */
#ifndef PL_CUDA_POINTWISE_H
#define PL_CUDA_POINTWISE_H

#include "host/cuda/cuda.h"

/* How an operand lies along the last axis; kernels/pointwise.cu has the same numbers. */
typedef enum { PL_FORM_ABSENT, PL_FORM_NUMBER, PL_FORM_DENSE, PL_FORM_SPREAD, PL_FORM_STRIDED } pl_form;
typedef enum { PL_WORK_F32, PL_WORK_F64, PL_WORK_I64, PL_WORK_RAW } pl_work; /* the type computed in */

enum { PL_POINTWISE_COPY = PL_OPS }; /* beside the operations of the table: out = a */

typedef struct {
  int op; /* pl_op, or PL_POINTWISE_COPY */
  pl_formula formula;
  bool pair; /* formula is PL_GRADIENT_A, and PL_GRADIENT_B goes into a second result of the same layout */
  pl_work work;
  int rank, vector;               /* after merging; elements that a thread takes at once: 1, 2, 4 or 8 */
  bool small;                     /* offsets fit an int */
  pl_dtype type[PL_OPERANDS + 1]; /* of the result, then of the operands */
  pl_form form[PL_OPERANDS + 1];
} pl_pointwise_variant;

enum { PL_POINTWISE_THREADS = 256 };
/* Vectors that one thread takes. */
int pl_pointwise_unroll(const pl_pointwise_variant *variant);
/* Whether shorter functions are exact enough, for the result is rounded to 16 bits. */
bool pl_pointwise_brief(const pl_pointwise_variant *variant);
const char *pl_pointwise_options(const pl_pointwise_variant *variant); /* for the compiler */
/* The text that goes before kernels/pointwise.cu. */
void pl_pointwise_prelude(const pl_pointwise_variant *variant, pl_text *text);
/* The type in which a value of a storage type is computed. */
pl_work pl_work_of(pl_dtype type);
/* That type in C's words; `bytes` is the size of what PL_WORK_RAW moves. */
const char *pl_work_name(pl_work work, size_t bytes);

#endif
