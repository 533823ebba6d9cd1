/* Layer norm and RMS norm of rows of float32 or float64, forward and backward. */
#include "host/cpu/blocks.h"

#include <stdlib.h>
#include <string.h>

/* Pieces into which the rows are cut for the sums over them: fixed by the shape, so that results do not depend on the
 * number of threads. */
enum { PIECES_MAX = 64, SUMS_MAX = 1 << 22 };

static void put(const pl_array *array, int64_t at, double value) {
  if (array->dtype == PL_F64)
    ((double *)pl_array_data(array))[at] = value;
  else
    ((float *)pl_array_data(array))[at] = (float)value;
}

static double get(const pl_array *array, int64_t at) {
  return array->dtype == PL_F64 ? ((double *)pl_array_data(array))[at] : ((float *)pl_array_data(array))[at];
}

/* A vector as compute type, in `room` where it is of another one; NULL stays NULL. */
static const void *vector_of(const pl_array *array, pl_compute compute, int64_t n, void *room) {
  return array ? pl_blocks_row(array, compute, 0, n, room, true) : NULL;
}

pl_status pl_cpu_norm(pl_device *device, const pl_norm *norm, const pl_array *y, const pl_array *mean,
                      const pl_array *scale) {
  (void)device;
  int64_t rows = norm->x->size[0], n = norm->x->size[1];
  if (rows * n == 0) return PL_OK;
  pl_compute compute = pl_compute_of(y->dtype);
  size_t bytes = (size_t)n * pl_compute_size(compute);
  const pl_kernels *kernels = pl_cpu_kernels();
  bool failed = false;
#pragma omp parallel if (rows * n > PL_PARALLEL_MIN) reduction(|| : failed)
  {
    char *room = malloc(bytes * 4);
    failed = !room;
    const void *weight = room ? vector_of(norm->weight, compute, n, room + 2 * bytes) : NULL;
    const void *bias = room ? vector_of(norm->bias, compute, n, room + 3 * bytes) : NULL;
#pragma omp for
    for (int64_t row = 0; row < rows; row++) {
      if (!room || pl_interrupt_pending()) continue;
      double of_x, by;
      void *target = pl_blocks_row(y, compute, row, n, room, false);
      kernels->norm[compute](n, target, pl_blocks_row(norm->x, compute, row, n, room + bytes, true), weight, bias,
                             norm->centred, norm->epsilon, &of_x, &by);
      pl_blocks_put_row(y, compute, row, n, target);
      if (norm->centred) put(mean, row, of_x);
      put(scale, row, by);
    }
    free(room);
  }
  if (failed) return PL_FAIL_MEMORY("norm: no memory for rows of %lld", (long long)n);
  return pl_check_interrupt();
}

typedef struct {
  const pl_norm *norm;
  const pl_array *mean, *scale, *g, *gx;
  int64_t rows, n;
  pl_compute compute;
  double *sums; /* [pieces, 2, n], zero; or NULL */
} passage;

/* The rows of one piece; `room` holds five rows. */
static void backward_piece(const passage *p, int64_t piece, int64_t pieces, char *room) {
  const pl_kernels *kernels = pl_cpu_kernels();
  size_t bytes = (size_t)p->n * pl_compute_size(p->compute);
  const void *weight = vector_of(p->norm->weight, p->compute, p->n, room + 3 * bytes);
  double *sums = p->sums ? p->sums + piece * 2 * p->n : NULL;
  for (int64_t row = piece * p->rows / pieces; row < (piece + 1) * p->rows / pieces && !pl_interrupt_pending(); row++) {
    const void *x = pl_blocks_row(p->norm->x, p->compute, row, p->n, room, true);
    const void *g = pl_blocks_row(p->g, p->compute, row, p->n, room + bytes, true);
    double of_x = p->norm->centred ? get(p->mean, row) : 0, by = get(p->scale, row);
    if (p->gx) {
      bool adding = p->norm->adding;
      void *target = pl_blocks_row(p->gx, p->compute, row, p->n, room + 2 * bytes, adding);
      void *made = adding ? room + 4 * bytes : target;
      kernels->norm_input[p->compute](p->n, made, g, x, weight, p->norm->centred, of_x, by);
      if (adding) kernels->accumulate[p->compute](p->n, target, made);
      pl_blocks_put_row(p->gx, p->compute, row, p->n, target);
    }
    if (sums) kernels->norm_weight[p->compute](p->n, sums, sums + p->n, g, x, of_x, by);
  }
}

/* out = the sum over the pieces of vector `which`. */
static void add_pieces(double *sums, int64_t pieces, int64_t n, int which, const pl_array *out) {
  double *total = sums + which * n;
  for (int64_t piece = 1; piece < pieces; piece++)
    for (int64_t i = 0; i < n; i++) total[i] += sums[(piece * 2 + which) * n + i];
  for (int64_t at = 0; at < n; at += PL_BLOCK)
    pl_blocks_write(out, PL_COMPUTE_F64, at, n - at < PL_BLOCK ? n - at : PL_BLOCK, total + at);
}

pl_status pl_cpu_norm_gradient(pl_device *device, const pl_norm *norm, const pl_array *mean, const pl_array *scale,
                               const pl_array *g, const pl_array *gx, const pl_array *gweight, const pl_array *gbias) {
  (void)device;
  passage p = {norm, mean, scale, g, gx, g->size[0], g->size[1], pl_compute_of(g->dtype), NULL};
  if (p.n == 0) return PL_OK;
  int64_t pieces = p.rows < PIECES_MAX ? p.rows : PIECES_MAX;
  if (pieces > SUMS_MAX / p.n) pieces = SUMS_MAX / p.n;
  if (pieces < 1) pieces = 1;
  size_t bytes = (size_t)p.n * pl_compute_size(p.compute);
  if (gweight || gbias) p.sums = calloc((size_t)(pieces * 2 * p.n), sizeof(double));
  bool failed = (gweight || gbias) && !p.sums;
#pragma omp parallel for if (p.rows * p.n > PL_PARALLEL_MIN) reduction(|| : failed)
  for (int64_t piece = 0; piece < pieces; piece++) {
    char *room = failed ? NULL : malloc(bytes * 5);
    if (room) backward_piece(&p, piece, pieces, room);
    failed = failed || !room;
    free(room);
  }
  const pl_array *const gradients[] = {gweight, gbias};
  for (int i = 0; i < 2 && !failed; i++)
    if (gradients[i]) add_pieces(p.sums, pieces, p.n, i, gradients[i]);
  free(p.sums);
  if (failed) return PL_FAIL_MEMORY("norm: no memory for rows of %lld", (long long)p.n);
  return pl_check_interrupt();
}
