/* Batched matrix products on OpenBLAS for any strides and floating-point types. */
#include "host/cpu/blas.h"
#include "host/cpu/blocks.h"

#include <limits.h>
#include <omp.h>
#include <stdlib.h>

/* A matrix as BLAS takes it: rows or columns lie at a leading dimension, and the other stride is 1. */
typedef struct {
  void *data;
  int64_t leading;
  bool transposed;
  void *owned; /* scratch to free, or NULL */
} matrix;

static bool fits(const pl_array *array, int fast, int slow) {
  return (array->stride[fast] == 1 || array->size[fast] == 1) &&
         (array->stride[slow] >= array->size[fast] || array->size[slow] == 1) && array->stride[slow] <= INT_MAX;
}

/* The last two axes of `array` (rank 2 by now) as a matrix of `type`, copied when BLAS cannot take them as they are. */
static pl_status as_matrix(const pl_array *array, pl_dtype type, matrix *m) {
  int64_t rows = array->size[0], columns = array->size[1];
  *m = (matrix){0};
  if (array->dtype == type && (fits(array, 1, 0) || fits(array, 0, 1))) {
    m->data = pl_array_data(array);
    m->transposed = !fits(array, 1, 0);
    m->leading = m->transposed ? array->stride[1] : array->stride[0];
    int64_t least = m->transposed ? rows : columns;
    if (m->leading < least) m->leading = least;
    return PL_OK;
  }
  size_t bytes = (size_t)(rows * columns) * pl_dtype_size(type);
  /* Not posix_memalign, whose blocks glibc before 2.38 cannot use again (host/cpu/recurrence_run.c). */
  m->owned = malloc(bytes ? bytes : 1);
  if (!m->owned) return PL_FAIL_MEMORY("matmul: no memory for a packed operand of %zu bytes", bytes);
  pl_buffer buffer = {.data = m->owned};
  pl_array packed = {.buffer = &buffer, .dtype = type, .rank = 2, .size = {rows, columns}};
  pl_array_pack(&packed);
  m->data = m->owned;
  m->leading = columns ? columns : 1;
  return pl_cpu_copy(NULL, &packed, array);
}

static pl_array slice(const pl_array *array, const pl_array *out, int64_t batch) {
  pl_array view = *array;
  int last = array->rank - 2;
  for (int axis = last - 1; axis >= 0; axis--) {
    int64_t at = batch % out->size[axis];
    batch /= out->size[axis];
    if (array->size[axis] != 1) view.offset += at * array->stride[axis];
  }
  view.rank = 2;
  for (int i = 0; i < 2; i++) {
    view.size[i] = array->size[last + i];
    view.stride[i] = array->stride[last + i];
  }
  return view;
}

static void multiply(const pl_blas *blas, pl_dtype type, const matrix *a, const matrix *b, double beta, const matrix *c,
                     blasint m, blasint n, blasint k) {
  enum CBLAS_TRANSPOSE ta = a->transposed ? CblasTrans : CblasNoTrans, tb = b->transposed ? CblasTrans : CblasNoTrans;
  if (type == PL_F32)
    blas->sgemm(CblasRowMajor, ta, tb, m, n, k, 1, a->data, (blasint)a->leading, b->data, (blasint)b->leading,
                (float)beta, c->data, (blasint)c->leading);
  else
    blas->dgemm(CblasRowMajor, ta, tb, m, n, k, 1, a->data, (blasint)a->leading, b->data, (blasint)b->leading, beta,
                c->data, (blasint)c->leading);
}

/* The operand's part from row (or column) `first` on. */
static matrix part(const matrix *whole, pl_dtype type, bool rows, int64_t first) {
  matrix m = *whole;
  int64_t stride = rows != whole->transposed ? whole->leading : 1;
  m.data = (char *)whole->data + first * stride * (int64_t)pl_dtype_size(type);
  return m;
}

/* One thread's part in pieces of milliseconds, so that an interrupt is heard between two. */
static void multiply_in_pieces(const pl_blas *blas, pl_dtype type, const matrix *a, const matrix *b, double beta,
                               const matrix *c, int64_t m, int64_t n, int64_t k) {
  enum { WORK_MAX = 1 << 30, EXTENT_MIN = 256 }; /* below this a piece would spend its time on packing operands */
  bool rows = m >= n;
  int64_t extent = rows ? m : n, half = (extent / 2 + 15) / 16 * 16;
  if (pl_interrupt_pending()) return;
  if (m * n <= WORK_MAX / k || extent <= EXTENT_MIN) {
    multiply(blas, type, a, b, beta, c, (blasint)m, (blasint)n, (blasint)k);
    return;
  }
  for (int64_t first = 0; first < extent; first += half) {
    int64_t count = extent - first < half ? extent - first : half;
    matrix x = rows ? part(a, type, true, first) : *a, y = rows ? *b : part(b, type, false, first);
    matrix z = part(c, type, rows, first);
    multiply_in_pieces(blas, type, &x, &y, beta, &z, rows ? count : m, rows ? n : count, k);
  }
}

/* One product in strips of rows or columns, one per thread. OpenBLAS runs each on the thread that calls it: threads of
 * its own would compete with OpenMP's, which spin between two loops. */
static void multiply_in_strips(const pl_blas *blas, pl_dtype type, const matrix *a, const matrix *b, double beta,
                               const matrix *c, int64_t m, int64_t n, int64_t k) {
  enum { STRIP_MIN = 32, WORK_MIN = 1 << 20 }; /* multiplications below which a second thread does not pay */
  bool rows = m >= n;
  int64_t extent = rows ? m : n, threads = omp_in_parallel() || m * n * k < WORK_MIN ? 1 : pl_cpu_threads();
  int64_t strip = (extent + threads - 1) / threads;
  strip = strip < STRIP_MIN ? STRIP_MIN : (strip + 15) / 16 * 16;
#pragma omp parallel for if (strip < extent)
  for (int64_t first = 0; first < extent; first += strip) {
    int64_t count = extent - first < strip ? extent - first : strip;
    matrix x = rows ? part(a, type, true, first) : *a, y = rows ? *b : part(b, type, false, first);
    matrix z = part(c, type, rows, first);
    multiply_in_pieces(blas, type, &x, &y, beta, &z, rows ? count : m, rows ? n : count, k);
  }
}

static pl_status product(const pl_blas *blas, const pl_array *a, const pl_array *b, double beta, const pl_array *out) {
  pl_dtype type = out->dtype == PL_F64 ? PL_F64 : PL_F32;
  matrix ma = {0}, mb = {0}, mc = {0};
  pl_status status = as_matrix(a, type, &ma);
  if (status == PL_OK) status = as_matrix(b, type, &mb);
  if (status == PL_OK) status = as_matrix(out, type, &mc);
  if (status == PL_OK) {
    blasint m = (blasint)out->size[0], n = (blasint)out->size[1], k = (blasint)a->size[1];
    if (mc.transposed) /* C^T = B^T A^T */
      multiply_in_strips(blas, type, &(matrix){mb.data, mb.leading, !mb.transposed, 0},
                         &(matrix){ma.data, ma.leading, !ma.transposed, 0}, beta, &mc, n, m, k);
    else
      multiply_in_strips(blas, type, &ma, &mb, beta, &mc, m, n, k);
    if (mc.owned) {
      pl_buffer buffer = {.data = mc.owned};
      pl_array packed = *out;
      packed.buffer = &buffer, packed.dtype = type, packed.offset = 0;
      pl_array_pack(&packed);
      status = pl_cpu_copy(NULL, out, &packed);
    }
  }
  free(ma.owned);
  free(mb.owned);
  free(mc.owned);
  return status;
}

/* The product of one batch; nothing once the user has interrupted. */
static bool product_of(const pl_blas *blas, const pl_array *a, const pl_array *b, double beta, const pl_array *out,
                       int64_t batch) {
  if (pl_interrupt_pending()) return true;
  pl_array x = slice(a, out, batch), y = slice(b, out, batch), z = slice(out, out, batch);
  return product(blas, &x, &y, beta, &z) == PL_OK;
}

pl_status pl_cpu_gemm(pl_device *device, const pl_array *a, const pl_array *b, double beta, const pl_array *out) {
  (void)device;
  int last = out->rank - 2;
  PL_REQUIRE(pl_dtype_is_float(out->dtype), "matmul: floating-point types only, got %s", pl_dtype_name(out->dtype));
  PL_REQUIRE(out->size[last] <= INT_MAX && out->size[last + 1] <= INT_MAX && a->size[last + 1] <= INT_MAX,
             "matmul: sizes past 2^31 are not supported");
  const pl_blas *blas;
  int64_t batches = 1;
  for (int axis = 0; axis < last; axis++) batches *= out->size[axis];
  if (pl_array_count(out) == 0) return PL_OK;
  if (a->size[last + 1] == 0) {
    pl_array zero = pl_array_number(0), scale = pl_array_number(beta);
    const pl_array *in[PL_OPERANDS] = {out, &scale};
    return beta == 0 ? pl_cpu_copy(NULL, out, &zero) : pl_cpu_pointwise(NULL, PL_OP_mul, PL_VALUE, out, in);
  }
  PL_TRY(pl_cpu_blas(&blas));
  /* Many products go to the threads whole; few are split up inside, which must not happen within a parallel region, be
   * it one of a single thread: OpenMP would start new threads each time. */
  bool failed = false;
  if (batches >= pl_cpu_threads() && pl_array_count(out) * a->size[last + 1] > PL_PARALLEL_MIN) {
#pragma omp parallel for reduction(|| : failed)
    for (int64_t batch = 0; batch < batches; batch++)
      if (!product_of(blas, a, b, beta, out, batch)) failed = true;
  } else {
    for (int64_t batch = 0; batch < batches && !failed; batch++) failed = !product_of(blas, a, b, beta, out, batch);
  }
  if (failed) return PL_FAIL_MEMORY("matmul: no memory for packed operands"); /* the only way it can fail */
  return pl_check_interrupt();
}
