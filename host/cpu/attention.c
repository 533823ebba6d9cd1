/* Attention and its gradient: head by head, in blocks of queries whose scores are all that is held of them. */
#include "host/cpu/blas.h"
#include "host/cpu/blocks.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { QUERIES = 64, WORK_MIN = 1 << 20 }; /* multiplications below which a second thread does not pay */

typedef struct {
  const pl_attention *attention;
  const pl_blas *blas;
  pl_dtype type; /* of the arithmetic */
  pl_compute compute;
  size_t each;                            /* bytes of an element */
  int64_t heads, queries, keys, features; /* heads of all batches */
} job;

/* A matrix with rows that are contiguous. */
typedef struct {
  void *data;
  int64_t leading;
} matrix;

static pl_status job_of(const pl_attention *attention, job *work) {
  const pl_array *q = attention->q, *k = attention->k;
  pl_dtype type = q->dtype == PL_F64 ? PL_F64 : PL_F32;
  PL_REQUIRE(q->size[2] <= INT_MAX && k->size[2] <= INT_MAX && q->size[3] <= INT_MAX,
             "attention: sizes past 2^31 are not supported");
  *work = (job){.attention = attention,
                .type = type,
                .compute = pl_compute_of(type),
                .each = pl_dtype_size(type),
                .heads = q->size[0] * q->size[1],
                .queries = q->size[2],
                .keys = k->size[2],
                .features = q->size[3]};
  return pl_cpu_blas(&work->blas);
}

/* The rows [first, first + count) of one head of [B,H,rows,D]. */
static pl_array rows_of(const pl_array *array, int64_t head, int64_t first, int64_t count) {
  pl_array view = *array;
  view.rank = 2;
  view.offset += head / array->size[1] * array->stride[0] + head % array->size[1] * array->stride[1];
  view.offset += first * array->stride[2];
  view.size[0] = count, view.size[1] = array->size[3];
  view.stride[0] = array->stride[2], view.stride[1] = array->stride[3];
  return view;
}

static bool fits(const job *work, const pl_array *view) {
  return view->dtype == work->type && (view->stride[1] == 1 || view->size[1] == 1) &&
         view->stride[0] >= view->size[1] && view->stride[0] <= INT_MAX;
}

/* `room` as an array of the shape of `view`. */
static pl_array packed(const job *work, const pl_array *view, pl_buffer *buffer, void *room) {
  *buffer = (pl_buffer){.data = room};
  pl_array array = *view;
  array.buffer = buffer, array.dtype = work->type, array.offset = 0;
  pl_array_pack(&array);
  return array;
}

/* Where products find a view: in place where BLAS can take it, else in `room`, filled when `read`. */
static matrix matrix_of(const job *work, const pl_array *view, void *room, bool read) {
  if (fits(work, view)) return (matrix){pl_array_data(view), view->stride[0]};
  pl_buffer buffer;
  pl_array copy = packed(work, view, &buffer, room);
  if (read) (void)pl_cpu_copy(NULL, &copy, view); /* between types that convert it does not fail */
  return (matrix){room, view->size[1]};
}

/* Puts what was computed at matrix_of's place into the view. */
static void put(const job *work, const pl_array *view, void *room) {
  if (fits(work, view)) return;
  pl_buffer buffer;
  pl_array copy = packed(work, view, &buffer, room);
  (void)pl_cpu_copy(NULL, view, &copy);
}

/* c [m, n] = alpha a b + beta c, with a or b transposed first. */
static void multiply(const job *work, int64_t m, int64_t n, int64_t k, double alpha, matrix a, bool transpose_a,
                     matrix b, bool transpose_b, double beta, matrix c) {
  enum CBLAS_TRANSPOSE ta = transpose_a ? CblasTrans : CblasNoTrans, tb = transpose_b ? CblasTrans : CblasNoTrans;
  blasint rows = (blasint)m, columns = (blasint)n, inner = (blasint)k;
  if (work->type == PL_F32)
    work->blas->sgemm(CblasRowMajor, ta, tb, rows, columns, inner, (float)alpha, a.data, (blasint)a.leading, b.data,
                      (blasint)b.leading, (float)beta, c.data, (blasint)c.leading);
  else
    work->blas->dgemm(CblasRowMajor, ta, tb, rows, columns, inner, alpha, a.data, (blasint)a.leading, b.data,
                      (blasint)b.leading, beta, c.data, (blasint)c.leading);
}

/* How many keys the query sees. */
static int64_t seen_by(const job *work, int64_t query) {
  return work->attention->causal ? work->keys - work->queries + query + 1 : work->keys;
}

static char *row_at(const job *work, matrix m, int64_t row) {
  return (char *)m.data + (size_t)(row * m.leading) * work->each;
}

/* Row `row` ends behind the first `seen` of `all` elements: the others are 0. */
static void clear_rest(const job *work, matrix m, int64_t row, int64_t seen, int64_t all) {
  memset(row_at(work, m, row) + (size_t)seen * work->each, 0, (size_t)(all - seen) * work->each);
}

/* A piece of a thread's memory for rows x columns elements. */
static matrix take(const job *work, char **memory, int64_t rows, int64_t columns) {
  matrix m = {*memory, columns > 0 ? columns : 1};
  *memory += (size_t)(rows * columns) * work->each;
  return m;
}

bool pl_cpu_attends(pl_device *device, pl_dtype type, int64_t features) {
  (void)device, (void)features;
  return pl_dtype_is_float(type);
}

/* ---- forward ---- */

static void head_forward(const job *work, const pl_array *out, const pl_array *logsumexp, int64_t head, char *memory) {
  const pl_attention *a = work->attention;
  const pl_kernels *kernels = pl_cpu_kernels();
  int64_t size = work->features, keys = work->keys;
  matrix room_q = take(work, &memory, QUERIES, size), room_out = take(work, &memory, QUERIES, size);
  matrix scores = take(work, &memory, QUERIES, keys), weights = take(work, &memory, QUERIES, keys);
  pl_array all_k = rows_of(a->k, head, 0, keys), all_v = rows_of(a->v, head, 0, keys);
  matrix k = matrix_of(work, &all_k, take(work, &memory, keys, size).data, true);
  matrix v = matrix_of(work, &all_v, take(work, &memory, keys, size).data, true);
  for (int64_t first = 0; first < work->queries && !pl_interrupt_pending(); first += QUERIES) {
    int64_t count = work->queries - first < QUERIES ? work->queries - first : QUERIES;
    int64_t seen = seen_by(work, first + count - 1); /* by the last of them */
    pl_array block = rows_of(a->q, head, first, count), result = rows_of(out, head, first, count);
    matrix q = matrix_of(work, &block, room_q.data, true), y = matrix_of(work, &result, room_out.data, false);
    multiply(work, count, seen, size, a->scale, q, false, k, true, 0, scores);
    for (int64_t i = 0; i < count; i++) {
      double top, total, sum;
      int64_t own = seen_by(work, first + i), at = head * work->queries + first + i;
      kernels->exponentials[work->compute](own, row_at(work, scores, i), &top, &total, &sum);
      double of_row = top + log(total);
      kernels->entropy_gradient[work->compute](own, row_at(work, weights, i), row_at(work, scores, i), of_row, 0, 1);
      clear_rest(work, weights, i, own, seen);
      pl_blocks_write(logsumexp, PL_COMPUTE_F64, at, 1, &of_row);
    }
    multiply(work, count, size, seen, 1, weights, false, v, false, 0, y);
    put(work, &result, room_out.data);
  }
}

/* Runs over all heads, each thread with memory for so many elements. */
static pl_status over_heads(const job *work, int64_t elements, void (*head_of)(const job *, int64_t, char *, void *),
                            void *context) {
  bool failed = false;
  double products = (double)work->heads * (double)work->queries * (double)work->keys * (double)work->features;
#pragma omp parallel if (products > WORK_MIN) reduction(|| : failed)
  {
    char *memory = malloc((size_t)elements * work->each);
    failed = !memory;
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < work->heads; head++)
      if (memory && !pl_interrupt_pending()) head_of(work, head, memory, context);
    free(memory);
  }
  if (failed) return PL_FAIL_MEMORY("attention: no memory for %lld scores", (long long)(QUERIES * work->keys));
  return pl_check_interrupt();
}

static void forward_of(const job *work, int64_t head, char *memory, void *context) {
  const pl_array *const *made = context;
  head_forward(work, made[0], made[1], head, memory);
}

pl_status pl_cpu_attention(pl_device *device, const pl_attention *attention, const pl_array *out,
                           const pl_array *logsumexp) {
  (void)device;
  job work;
  PL_TRY(job_of(attention, &work));
  const pl_array *made[] = {out, logsumexp};
  int64_t elements = 2 * QUERIES * work.features + 2 * QUERIES * work.keys + 2 * work.keys * work.features;
  return over_heads(&work, elements, forward_of, made);
}

/* ---- gradient ---- */

typedef struct {
  const pl_array *logsumexp, *g, *gq, *gk, *gv;
} gradients;

/* With P the weights and S the scores before they are scaled: gV = P^T g, gP = g V^T, gS = scale P (gP - sum(P gP)),
 * gQ = gS K, gK = gS^T Q. */
static void gradient_of(const job *work, int64_t head, char *memory, void *context) {
  const gradients *to = context;
  const pl_attention *a = work->attention;
  const pl_kernels *kernels = pl_cpu_kernels();
  int64_t size = work->features, keys = work->keys;
  matrix room_q = take(work, &memory, QUERIES, size), room_g = take(work, &memory, QUERIES, size);
  matrix room_gq = take(work, &memory, QUERIES, size), scores = take(work, &memory, QUERIES, keys);
  matrix weights = take(work, &memory, QUERIES, keys), g_scores = take(work, &memory, QUERIES, keys);
  matrix gk = take(work, &memory, keys, size), gv = take(work, &memory, keys, size);
  pl_array all_k = rows_of(a->k, head, 0, keys), all_v = rows_of(a->v, head, 0, keys);
  matrix k = matrix_of(work, &all_k, take(work, &memory, keys, size).data, true);
  matrix v = matrix_of(work, &all_v, take(work, &memory, keys, size).data, true);
  memset(gk.data, 0, (size_t)(2 * keys * size) * work->each); /* and gv behind it */
  for (int64_t first = 0; first < work->queries && !pl_interrupt_pending(); first += QUERIES) {
    int64_t count = work->queries - first < QUERIES ? work->queries - first : QUERIES;
    int64_t seen = seen_by(work, first + count - 1);
    pl_array block = rows_of(a->q, head, first, count), arrived = rows_of(to->g, head, first, count);
    matrix q = matrix_of(work, &block, room_q.data, true), g = matrix_of(work, &arrived, room_g.data, true);
    multiply(work, count, seen, size, a->scale, q, false, k, true, 0, scores);
    for (int64_t i = 0; i < count; i++) {
      _Alignas(64) char room[PL_BLOCK_BYTES];
      int64_t own = seen_by(work, first + i), at = head * work->queries + first + i;
      double of_row = *(const double *)pl_blocks_read(to->logsumexp, PL_COMPUTE_F64, at, 1, room);
      kernels->entropy_gradient[work->compute](own, row_at(work, weights, i), row_at(work, scores, i), of_row, 0, 1);
      clear_rest(work, weights, i, own, seen);
    }
    multiply(work, seen, size, count, 1, weights, true, g, false, 1, gv);
    multiply(work, count, seen, size, 1, g, false, v, true, 0, scores);
    for (int64_t i = 0; i < count; i++)
      kernels->softmax_gradient[work->compute](seen, row_at(work, g_scores, i), row_at(work, weights, i),
                                               row_at(work, scores, i), false);
    multiply(work, seen, size, count, a->scale, g_scores, true, q, false, 1, gk);
    if (to->gq) {
      pl_array result = rows_of(to->gq, head, first, count);
      multiply(work, count, size, seen, a->scale, g_scores, false, k, false, 0,
               matrix_of(work, &result, room_gq.data, false));
      put(work, &result, room_gq.data);
    }
  }
  const pl_array *of_keys[] = {to->gk, to->gv};
  for (int i = 0; i < 2; i++) {
    if (!of_keys[i]) continue;
    pl_buffer buffer;
    pl_array result = rows_of(of_keys[i], head, 0, keys);
    pl_array sum = packed(work, &result, &buffer, i == 0 ? gk.data : gv.data);
    (void)pl_cpu_copy(NULL, &result, &sum);
  }
}

pl_status pl_cpu_attention_gradient(pl_device *device, const pl_attention *attention, const pl_array *out,
                                    const pl_array *logsumexp, const pl_array *g, const pl_array *gq,
                                    const pl_array *gk, const pl_array *gv) {
  (void)device, (void)out; /* sum(P gP), which is the sum of out g, comes with softmax_gradient */
  job work;
  PL_TRY(job_of(attention, &work));
  gradients to = {logsumexp, g, gq, gk, gv};
  int64_t elements = 3 * QUERIES * work.features + 3 * QUERIES * work.keys + 4 * work.keys * work.features;
  return over_heads(&work, elements, gradient_of, &to);
}
