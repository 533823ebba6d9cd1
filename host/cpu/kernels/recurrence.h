/* The vector loops of the recurrence, compiled once per instruction-set level: the register-blocked product of rows by
 * packed panels, the passes between users' strided arrays and contiguous rows, and rounding to 16 bits. */
#ifndef PL_CPU_KERNELS_RECURRENCE_H
#define PL_CPU_KERNELS_RECURRENCE_H

#include "host/device/dtype.h"

/* out[r out_row + offset[v] + l] += sum over k < depth of A[r][k] B[k][v][l], for r < rows, v < vectors, l < lanes.
 * A: rows in tiles; A[r][k] = a[(r / tile) a_tile + (r % tile) a_row + k a_depth].
 * B: panels of pl_recurrence_loops.vectors vectors, panel i at b + i depth vectors lanes, each [depth][vectors][lanes]
 * (the last panel [depth][its own vectors][lanes]). Strides and offsets are in elements. */
typedef struct {
  long rows, vectors, depth;
  const void *a;
  long tile, a_tile, a_row, a_depth;
  const void *b;
  void *out;
  long out_row;
  const long *offset; /* [vectors] */
} pl_panel_product;

/* Rows at `row` elements from each other, their elements at `step`. */
typedef struct {
  const void *data;
  long row, step;
} pl_rows;

/* The loops for one element type. */
typedef struct {
  int lanes;   /* elements of a vector */
  int vectors; /* vectors of a panel */
  int tile;    /* most rows of a tile */
  void (*product)(const pl_panel_product *product);
  /* out[r out_row + u] = in (NULL data: 0) + addend (NULL data: 0; its step is 1; may be out itself). */
  void (*gather)(long rows, long count, void *out, long out_row, pl_rows in, pl_rows addend);
  /* out[r out_row + u out_step] = in[r in_row + u]. */
  void (*scatter)(long rows, long count, void *out, long out_row, long out_step, const void *in, long in_row);
  /* out[k out_depth + l] = in[k in_depth + l in_lane] for k < depth, l < valid; 0 for valid <= l < lanes. */
  void (*pack)(long depth, long lanes, long valid, void *out, long out_depth, const void *in, long in_depth,
               long in_lane);
  /* out[i] += in[i] clamped to +-limit; NaN stays. */
  void (*add_clamped)(long count, void *out, const void *in, double limit);
} pl_recurrence_loops;

typedef struct {
  pl_recurrence_loops f32, f64;
  /* Rounds rows of float32 in place to a 16-bit type's values. */
  void (*round)(pl_dtype type, long rows, long count, float *data, long row);
} pl_recurrence_kernels;

extern const pl_recurrence_kernels pl_recurrence_kernels_base, pl_recurrence_kernels_v3, pl_recurrence_kernels_v4;

#endif
