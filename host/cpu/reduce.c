/* Sums, also of squares and of squared deviations, extrema and their positions over any set of axes. */
#include "host/cpu/blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* `in` seen as [kept..., reduced...]: kept axes in their order, then the axes where out has size 1. */
typedef struct {
  pl_array in, out;
  int64_t kept, reduced;
  pl_compute compute;
  pl_reduction kind;
  double factor; /* of sums and deviations */
} job;

/* What is known of some elements: their sum, or that of their squares, or that of their squared deviations from their
 * mean. */
typedef struct {
  double count, total, mean;
} tally;

static job arrange(pl_reduction kind, double factor, const pl_array *out, const pl_array *in) {
  job work = {.in = *in, .out = *out, .kept = 1, .reduced = 1, .compute = pl_compute_of(in->dtype)};
  work.kind = kind;
  work.factor = factor;
  int at = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int axis = 0; axis < in->rank; axis++) {
      bool reduce = out->size[axis] == 1 && in->size[axis] != 1;
      if (reduce != (pass == 1)) continue;
      work.in.size[at] = in->size[axis];
      work.in.stride[at++] = in->stride[axis];
      *(reduce ? &work.reduced : &work.kept) *= in->size[axis];
    }
  pl_array *views[] = {&work.in};
  pl_arrays_merge(views, 1);
  return work;
}

/* Sum of the squares of x - mean. */
static double squares(int64_t n, const double *x, double mean) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; i++) total += (x[i] - mean) * (x[i] - mean);
  return total;
}

static tally tally_block(const job *work, int64_t start, int64_t n) {
  const pl_kernels *kernels = pl_cpu_kernels();
  _Alignas(64) char room[PL_BLOCK_BYTES];
  tally block = {.count = (double)n};
  if (work->kind == PL_SUM) {
    block.total = kernels->sum[work->compute](n, pl_blocks_read(&work->in, work->compute, start, n, room));
    return block;
  }
  const double *x = pl_blocks_read(&work->in, PL_COMPUTE_F64, start, n, room);
  if (work->kind == PL_DEVIATIONS) block.mean = kernels->sum[PL_COMPUTE_F64](n, x) / (double)n;
  block.total = squares(n, x, block.mean);
  return block;
}

/* The rule of Chan, Golub and LeVeque; means are 0 but for deviations. */
static tally join(tally a, tally b) {
  if (b.count == 0) return a;
  double count = a.count + b.count, apart = b.mean - a.mean, share = b.count / count;
  return (tally){count, a.total + b.total + apart * (apart * (a.count * share)), a.mean + apart * share};
}

static tally tally_range(const job *work, int64_t start, int64_t count) {
  tally all = {0};
  for (int64_t done = 0; done < count && !pl_interrupt_pending(); done += PL_BLOCK)
    all = join(all, tally_block(work, start + done, count - done < PL_BLOCK ? count - done : PL_BLOCK));
  return all;
}

static double finished(const job *work, double total) {
  return work->kind == PL_EUCLIDEAN ? sqrt(total) : total * work->factor;
}

static int64_t sum_integers(const job *work, int64_t start, int64_t count) {
  _Alignas(64) char room[PL_BLOCK_BYTES];
  uint64_t total = 0;
  for (int64_t done = 0; done < count && !pl_interrupt_pending(); done += PL_BLOCK) {
    int64_t n = count - done < PL_BLOCK ? count - done : PL_BLOCK;
    const int64_t *x = pl_blocks_read(&work->in, work->compute, start + done, n, room);
    for (int64_t i = 0; i < n; i++) total += (uint64_t)x[i];
  }
  return (int64_t)total;
}

static void put(const job *work, int64_t at, double number, int64_t integer) {
  bool integers = work->compute == PL_COMPUTE_I64;
  if (integers)
    pl_blocks_write(&work->out, PL_COMPUTE_I64, at, 1, &integer);
  else
    pl_blocks_write(&work->out, PL_COMPUTE_F64, at, 1, &number);
}

/* One long sum: fixed pieces, so that the result does not depend on the number of threads. */
static pl_status sum_all(const job *work) {
  enum { PIECE = 1 << 16 };
  int64_t pieces = (work->reduced + PIECE - 1) / PIECE;
  tally *part = malloc((size_t)(pieces + 1) * sizeof *part), all = {0};
  if (!part) return PL_FAIL_MEMORY("sum: no memory for %lld partial sums", (long long)pieces);
#pragma omp parallel for if (pieces > 1)
  for (int64_t i = 0; i < pieces; i++)
    part[i] = tally_range(work, i * PIECE, work->reduced - i * PIECE < PIECE ? work->reduced - i * PIECE : PIECE);
  for (int64_t i = 0; i < pieces; i++) all = join(all, part[i]);
  free(part);
  put(work, 0, finished(work, all.total), 0);
  return PL_OK;
}

/* Takes the row after `before` others into the tallies of n columns; the means are those of Welford's recurrence. */
static void add_row(pl_reduction kind, int64_t before, int64_t n, double *restrict total, double *restrict mean,
                    const double *restrict x) {
  if (kind == PL_SUM) {
    pl_cpu_kernels()->accumulate[PL_COMPUTE_F64](n, total, x);
    return;
  }
  const double share = kind == PL_DEVIATIONS ? 1 / (double)(before + 1) : 0; /* a mean that stays 0 gives squares */
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const double apart = x[i] - mean[i];
    mean[i] += apart * share;
    total[i] += apart * (x[i] - mean[i]);
  }
}

/* The last kept axis, where its elements lie side by side in memory and are many enough to add whole rows of them
 * instead of striding down columns; else -1. */
static int column_axis(const job *work) {
  const pl_array *in = &work->in;
  int64_t kept = 1;
  for (int axis = 0; axis + 1 < in->rank; axis++) {
    kept *= in->size[axis];
    if (kept == work->kept) return in->stride[axis] == 1 && in->size[axis] >= 8 ? axis : -1;
  }
  return -1;
}

/* How far into the memory the element number `at` of the axes [first, end) lies. */
static int64_t distance(const pl_array *in, int first, int end, int64_t at) {
  int64_t offset = 0;
  for (int axis = end - 1; axis >= first; axis--) {
    offset += at % in->size[axis] * in->stride[axis];
    at /= in->size[axis];
  }
  return offset;
}

/* The results [start, start + n), which lie in one run of the column axis. */
static void sum_columns(const job *work, int columns, int64_t start, int64_t n) {
  _Alignas(64) char room[PL_BLOCK_BYTES];
  _Alignas(64) double total[PL_BLOCK] = {0}, mean[PL_BLOCK] = {0};
  pl_array row = work->in;
  row.rank = 1;
  row.size[0] = n;
  row.stride[0] = 1;
  int64_t offset = row.offset + distance(&work->in, 0, columns + 1, start);
  for (int64_t r = 0; r < work->reduced && !pl_interrupt_pending(); r++) {
    row.offset = offset + distance(&work->in, columns + 1, work->in.rank, r);
    add_row(work->kind, r, n, total, mean, pl_blocks_read(&row, PL_COMPUTE_F64, 0, n, room));
  }
  for (int64_t i = 0; i < n; i++) total[i] = finished(work, total[i]);
  pl_blocks_write(&work->out, PL_COMPUTE_F64, start, n, total);
}

static pl_status sum(const job *work) {
  enum { COLUMNS = PL_BLOCK / 8 }; /* that one thread takes at once */
  bool integers = work->compute == PL_COMPUTE_I64, parallel = work->kept * work->reduced > PL_PARALLEL_MIN;
  if (!integers && work->kept == 1) return sum_all(work);
  int columns = integers ? -1 : column_axis(work);
  if (columns >= 0) {
    int64_t width = work->in.size[columns], pieces = (width + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for if (parallel)
    for (int64_t i = 0; i < work->kept / width * pieces; i++) {
      int64_t first = i % pieces * COLUMNS;
      sum_columns(work, columns, i / pieces * width + first, width - first < COLUMNS ? width - first : COLUMNS);
    }
    return PL_OK;
  }
#pragma omp parallel for if (parallel)
  for (int64_t k = 0; k < work->kept; k++)
    if (integers)
      put(work, k, 0, sum_integers(work, k * work->reduced, work->reduced));
    else
      put(work, k, finished(work, tally_range(work, k * work->reduced, work->reduced).total), 0);
  return PL_OK;
}

/* The extreme of one range and its 0-based position; a NaN wins, the first of equals stays. */
static int64_t extreme(const job *work, int64_t start, bool largest, double *number, int64_t *integer) {
  _Alignas(64) char room[PL_BLOCK_BYTES];
  bool integers = work->compute == PL_COMPUTE_I64;
  int64_t position = 0;
  for (int64_t done = 0; done < work->reduced && !pl_interrupt_pending(); done += PL_BLOCK) {
    int64_t n = work->reduced - done < PL_BLOCK ? work->reduced - done : PL_BLOCK;
    const void *block = pl_blocks_read(&work->in, work->compute, start + done, n, room);
    for (int64_t i = 0; i < n; i++) {
      bool better;
      double x = 0;
      int64_t whole = 0;
      if (integers) {
        whole = ((const int64_t *)block)[i];
        better = largest ? whole > *integer : whole < *integer;
      } else {
        x = work->compute == PL_COMPUTE_F32 ? (double)((const float *)block)[i] : ((const double *)block)[i];
        better = !isnan(*number) && (isnan(x) || (largest ? x > *number : x < *number));
      }
      if (!better && done + i > 0) continue;
      *number = x;
      *integer = whole;
      position = done + i;
    }
  }
  return position;
}

pl_status pl_cpu_reduce(pl_device *device, pl_reduction kind, double factor, const pl_array *out, const pl_array *in) {
  (void)device;
  job work = arrange(kind, factor, out, in);
  if (work.kept == 0) return PL_OK;
  if (kind == PL_SUM || kind == PL_EUCLIDEAN || kind == PL_DEVIATIONS) {
    PL_TRY(sum(&work));
    return pl_check_interrupt();
  }
  PL_REQUIRE(work.reduced > 0, "max, min, argmax and argmin need at least one element; got shape %s",
             pl_shape_text(in));
  bool largest = kind == PL_MAX || kind == PL_ARGMAX, position_wanted = kind == PL_ARGMAX || kind == PL_ARGMIN;
#pragma omp parallel for if (work.kept * work.reduced > PL_PARALLEL_MIN)
  for (int64_t k = 0; k < work.kept; k++) {
    double number = 0;
    int64_t integer = 0;
    int64_t position = extreme(&work, k * work.reduced, largest, &number, &integer) + PL_INDEX_BASE;
    if (position_wanted)
      pl_blocks_write(&work.out, PL_COMPUTE_I64, k, 1, &position);
    else
      put(&work, k, number, integer);
  }
  return pl_check_interrupt();
}
