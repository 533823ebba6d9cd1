/* Cross-entropy of rows of logits, and its gradient. */
#include "host/cpu/blocks.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
  const pl_cross_entropy *entropy;
  int64_t rows, classes;
  pl_compute compute;
} job;

static job job_of(const pl_cross_entropy *entropy) {
  return (job){entropy, entropy->logits->size[0], entropy->logits->size[1], pl_compute_of(entropy->logits->dtype)};
}

static int64_t label_of(const job *work, int64_t row) {
  _Alignas(64) char room[PL_BLOCK_BYTES];
  return *(const int64_t *)pl_blocks_read(work->entropy->labels, PL_COMPUTE_I64, row, 1, room);
}

/* Counted from 0; -1 for a row that counts for nothing. */
static int64_t class_of(const job *work, int64_t row) {
  int64_t label = label_of(work, row);
  return work->entropy->ignoring && label == work->entropy->ignored ? -1 : label - PL_INDEX_BASE;
}

static pl_status check_labels(const job *work) {
  for (int64_t row = 0; row < work->rows; row++) {
    int64_t label = label_of(work, row);
    if (work->entropy->ignoring && label == work->entropy->ignored) continue;
    PL_REQUIRE(label >= PL_INDEX_BASE && label < work->classes + PL_INDEX_BASE,
               "index: value %lld at position %lld is outside 1..%lld", (long long)label,
               (long long)(work->entropy->first + row) + PL_INDEX_BASE, (long long)work->classes);
  }
  return PL_OK;
}

static double at(pl_compute compute, const void *row, int64_t i) {
  return compute == PL_COMPUTE_F32 ? (double)((const float *)row)[i] : ((const double *)row)[i];
}

/* -((1 - s) log p[class] + s mean(log p)) with log p = x - shift. */
static double loss_of(const job *work, const void *x, int64_t class, double *shift) {
  double top, total, sum, s = work->entropy->smoothing;
  pl_cpu_kernels()->exponentials[work->compute](work->classes, x, &top, &total, &sum);
  *shift = top + log(total);
  if (class < 0) return 0;
  double loss = log(total) + (1 - s) * (top - at(work->compute, x, class));
  return s > 0 ? loss + s * (top - sum / (double)work->classes) : loss;
}

pl_status pl_cpu_cross_entropy(pl_device *device, const pl_cross_entropy *entropy, const pl_array *loss,
                               const pl_array *shift) {
  (void)device;
  job work = job_of(entropy);
  PL_TRY(check_labels(&work));
  bool failed = false;
#pragma omp parallel if (work.rows * work.classes > PL_PARALLEL_MIN / 4) reduction(|| : failed)
  {
    char *room = malloc((size_t)work.classes * pl_compute_size(work.compute));
    failed = !room;
#pragma omp for
    for (int64_t row = 0; row < work.rows; row++) {
      if (!room || pl_interrupt_pending()) continue;
      double from;
      const void *x = pl_blocks_row(entropy->logits, work.compute, row, work.classes, room, true);
      double value = loss_of(&work, x, class_of(&work, row), &from);
      pl_blocks_write(loss, PL_COMPUTE_F64, row, 1, &value);
      pl_blocks_write(shift, PL_COMPUTE_F64, row, 1, &from);
    }
    free(room);
  }
  if (failed) return PL_FAIL_MEMORY("cross_entropy: no memory for rows of %lld", (long long)work.classes);
  return pl_check_interrupt();
}

/* One row into `target`: g (softmax - the smoothed target). */
static void row_gradient(const job *work, void *target, const void *x, double from, int64_t class, double g) {
  double s = work->entropy->smoothing;
  pl_cpu_kernels()->entropy_gradient[work->compute](work->classes, target, x, from, s / (double)work->classes, g);
  if (work->compute == PL_COMPUTE_F32)
    ((float *)target)[class] -= (float)(g * (1 - s));
  else
    ((double *)target)[class] -= g * (1 - s);
}

pl_status pl_cpu_cross_entropy_gradient(pl_device *device, const pl_cross_entropy *entropy, const pl_array *shift,
                                        const pl_array *g, const pl_array *gradient) {
  (void)device;
  job work = job_of(entropy);
  PL_TRY(check_labels(&work));
  size_t bytes = (size_t)work.classes * pl_compute_size(work.compute);
  bool failed = false;
#pragma omp parallel if (work.rows * work.classes > PL_PARALLEL_MIN / 4) reduction(|| : failed)
  {
    char *room = malloc(2 * bytes);
    failed = !room;
#pragma omp for
    for (int64_t row = 0; row < work.rows; row++) {
      if (!room || pl_interrupt_pending()) continue;
      _Alignas(64) char block[2][PL_BLOCK_BYTES];
      double from = *(const double *)pl_blocks_read(shift, PL_COMPUTE_F64, row, 1, block[0]);
      double of_loss = *(const double *)pl_blocks_read(g, PL_COMPUTE_F64, row, 1, block[1]);
      int64_t class = class_of(&work, row);
      char *target = pl_blocks_row(gradient, work.compute, row, work.classes, room, false);
      if (class < 0)
        for (size_t i = 0; i < bytes; i++) target[i] = 0;
      else
        row_gradient(&work, target, pl_blocks_row(entropy->logits, work.compute, row, work.classes, room + bytes, true),
                     from, class, of_loss);
      pl_blocks_put_row(gradient, work.compute, row, work.classes, target);
    }
    free(room);
  }
  if (failed) return PL_FAIL_MEMORY("cross_entropy: no memory for rows of %lld", (long long)work.classes);
  return pl_check_interrupt();
}
