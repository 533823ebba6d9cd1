/* Softmax and its gradient along one axis: loops over whole rows of float32 or float64. */
#include "host/cpu/blocks.h"

#include <stdlib.h>

/* The view with `dim` moved last, so that each row is a run of [start, start + n) in row-major order. */
static pl_array dim_last(const pl_array *array, int dim) {
  pl_array view = *array;
  for (int axis = dim; axis < array->rank - 1; axis++) {
    view.size[axis] = array->size[axis + 1];
    view.stride[axis] = array->stride[axis + 1];
  }
  view.size[array->rank - 1] = array->size[dim];
  view.stride[array->rank - 1] = array->stride[dim];
  return view;
}

/* y == NULL: out = softmax(in). Otherwise in is the gradient at y and out the gradient of softmax's operand. */
static pl_status rows(pl_softmax_kind kind, const pl_array *out, const pl_array *in, const pl_array *y, int dim) {
  PL_REQUIRE(pl_dtype_is_float(in->dtype), "softmax: expected a floating-point type, got %s", pl_dtype_name(in->dtype));
  pl_array view_out = dim_last(out, dim), view_in = dim_last(in, dim), view_y = y ? dim_last(y, dim) : view_in;
  int64_t n = in->size[dim], count = pl_array_count(in);
  if (count == 0) return PL_OK;
  int64_t total = count / n;
  pl_compute compute = pl_compute_of(out->dtype);
  size_t bytes = (size_t)n * pl_compute_size(compute);
  const pl_kernels *kernels = pl_cpu_kernels();
  bool failed = false;
#pragma omp parallel if (count > PL_PARALLEL_MIN / 4) reduction(|| : failed)
  {
    char *room = malloc(bytes * 3);
    failed = !room;
#pragma omp for
    for (int64_t row = 0; row < total; row++) {
      if (!room || pl_interrupt_pending()) continue;
      void *target = pl_blocks_row(&view_out, compute, row, n, room, false);
      const void *x = pl_blocks_row(&view_in, compute, row, n, room + bytes, true);
      if (y)
        kernels->softmax_gradient[compute](n, target, pl_blocks_row(&view_y, compute, row, n, room + 2 * bytes, true),
                                           x, kind == PL_LOG_SOFTMAX);
      else
        kernels->softmax[compute](n, target, x, kind == PL_LOG_SOFTMAX);
      pl_blocks_put_row(&view_out, compute, row, n, target);
    }
    free(room);
  }
  if (failed) return PL_FAIL_MEMORY("softmax: no memory for rows of %lld", (long long)n);
  return pl_check_interrupt();
}

pl_status pl_cpu_softmax(pl_device *device, pl_softmax_kind kind, const pl_array *out, const pl_array *in, int dim) {
  (void)device;
  return rows(kind, out, in, NULL, dim);
}

pl_status pl_cpu_softmax_gradient(pl_device *device, pl_softmax_kind kind, const pl_array *gin, const pl_array *y,
                                  const pl_array *g, int dim) {
  (void)device;
  return rows(kind, gin, g, y, dim);
}
