/* Batched matrix products of any strides and floating-point types, on cuBLAS. */
#include "host/cuda/blas.h"
#include "host/cuda/primitives.h"

/* An operand as cuBLAS takes it. */
typedef struct {
  pl_array view;    /* leading axes [batch...], then rows and columns */
  pl_buffer *owned; /* a packed or converted copy, or NULL */
} operand;

static bool fits(const pl_array *array, int fast, int slow) {
  return (array->stride[fast] == 1 || array->size[fast] == 1) &&
         (array->stride[slow] >= array->size[fast] || array->size[slow] == 1);
}

static bool fits_some_way(const pl_array *array) {
  int last = array->rank - 1;
  return fits(array, last, last - 1) || fits(array, last - 1, last);
}

/* `array` itself, or a packed copy of `type` when its type or strides are not cuBLAS's. */
static pl_status take(pl_device *device, const pl_array *array, pl_dtype type, bool filled, operand *made) {
  *made = (operand){.view = *array};
  if (array->dtype == type && fits_some_way(array)) return PL_OK;
  made->view.dtype = type;
  made->view.offset = 0;
  pl_array_pack(&made->view);
  PL_TRY(pl_buffer_new(device, (size_t)pl_array_count(array) * pl_dtype_size(type), &made->owned));
  made->view.buffer = made->owned;
  return filled ? pl_cuda_copy(device, &made->view, array) : PL_OK;
}

static pl_blas_matrix matrix_of(const pl_array *view) {
  int rows = view->rank - 2, columns = view->rank - 1;
  bool transposed = !fits(view, columns, rows);
  int64_t leading = transposed ? view->stride[columns] : view->stride[rows];
  int64_t least = transposed ? view->size[rows] : view->size[columns];
  return (pl_blas_matrix){.data = pl_array_data(view),
                          .type = view->dtype,
                          .transposed = transposed,
                          .leading = leading > least ? leading : least};
}

/* The batch axes of a view as an array of their own, stride 0 where the operand repeats. */
static pl_array batch_axes(const pl_array *view, const pl_array *out) {
  pl_array axes = {.rank = out->rank - 2};
  for (int i = 0; i < axes.rank; i++) {
    axes.size[i] = out->size[i];
    axes.stride[i] = view->size[i] == 1 ? 0 : view->stride[i];
  }
  return axes;
}

static void advance(pl_blas_matrix *matrix, int64_t elements) {
  matrix->data = (char *)matrix->data + elements * (int64_t)pl_dtype_size(matrix->type);
}

/* All batches: the innermost merged axis is one strided-batched call, the others are loops. */
static pl_status multiply(pl_cuda *cuda, const pl_array *a, const pl_array *b, double beta, const pl_array *out) {
  pl_array axes[3] = {batch_axes(a, out), batch_axes(b, out), batch_axes(out, out)};
  pl_array *merged[] = {&axes[0], &axes[1], &axes[2]};
  pl_arrays_merge(merged, 3);
  int inner = axes[0].rank - 1;
  int64_t batches = inner < 0 ? 1 : axes[0].size[inner], calls = 1;
  for (int i = 0; i < inner; i++) calls *= axes[0].size[i];
  pl_blas_matrix start[3] = {matrix_of(a), matrix_of(b), matrix_of(out)};
  for (int i = 0; i < 3; i++) start[i].batch_stride = inner < 0 ? 0 : axes[i].stride[inner];
  int64_t m = out->size[out->rank - 2], n = out->size[out->rank - 1], k = a->size[a->rank - 1];
  for (int64_t call = 0; call < calls; call++) {
    PL_TRY(pl_check_interrupt());
    pl_blas_matrix now[3] = {start[0], start[1], start[2]};
    int64_t left = call;
    for (int axis = inner - 1; axis >= 0; axis--) {
      int64_t at = left % axes[0].size[axis];
      left /= axes[0].size[axis];
      for (int i = 0; i < 3; i++) advance(&now[i], at * axes[i].stride[axis]);
    }
    if (now[2].transposed) { /* c^T = b^T a^T */
      for (int i = 0; i < 3; i++) now[i].transposed = !now[i].transposed;
      PL_TRY(pl_blas_multiply(cuda, n, m, k, 1, &now[1], &now[0], beta, &now[2], batches));
    } else
      PL_TRY(pl_blas_multiply(cuda, m, n, k, 1, &now[0], &now[1], beta, &now[2], batches));
  }
  return PL_OK;
}

/* The types in which to multiply: as they are where cuBLAS has that combination, else float32 or float64. */
static void choose_types(const pl_array *a, const pl_array *b, const pl_array *out, pl_dtype *operands,
                         pl_dtype *result) {
  bool half = a->dtype == PL_F16 || a->dtype == PL_BF16;
  bool direct = a->dtype == b->dtype && (out->dtype == a->dtype || (half && out->dtype == PL_F32));
  pl_dtype wide = out->dtype == PL_F64 ? PL_F64 : PL_F32;
  *operands = direct ? a->dtype : wide;
  *result = direct ? out->dtype : wide;
}

pl_status pl_cuda_gemm(pl_device *device, const pl_array *a, const pl_array *b, double beta, const pl_array *out) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_REQUIRE(pl_dtype_is_float(out->dtype), "matmul: floating-point types only, got %s", pl_dtype_name(out->dtype));
  if (pl_array_count(out) == 0) return PL_OK;
  if (a->size[a->rank - 1] == 0) {
    pl_array zero = pl_array_number(0);
    return beta == 0 ? pl_cuda_copy(device, out, &zero) : PL_OK;
  }
  pl_dtype types, result;
  choose_types(a, b, out, &types, &result);
  operand x = {0}, y = {0}, z = {0};
  pl_status status = take(device, a, types, true, &x);
  if (status == PL_OK) status = take(device, b, types, true, &y);
  if (status == PL_OK) status = take(device, out, result, beta != 0, &z);
  if (status == PL_OK) status = multiply(cuda, &x.view, &y.view, beta, &z.view);
  if (status == PL_OK && z.owned) status = pl_cuda_copy(device, out, &z.view);
  pl_buffer_release(x.owned);
  pl_buffer_release(y.owned);
  pl_buffer_release(z.owned);
  return status;
}
