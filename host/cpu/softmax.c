/* Softmax and its gradient along one axis, and the Adam step: loops over whole rows of float32 or float64. */
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

/* A row in place when it is contiguous and of the compute type, else copied into `room`. */
static void *row_of(const pl_array *view, pl_compute compute, int64_t row, int64_t n, char *room, bool read) {
  size_t size = pl_compute_size(compute);
  bool native = view->dtype == (compute == PL_COMPUTE_F64 ? PL_F64 : PL_F32);
  if (native && pl_array_contiguous(view)) return (char *)pl_array_data(view) + (size_t)(row * n) * size;
  for (int64_t done = 0; read && done < n; done += PL_BLOCK) {
    int64_t part = n - done < PL_BLOCK ? n - done : PL_BLOCK;
    _Alignas(64) char block[PL_BLOCK_BYTES];
    const char *data = pl_blocks_read(view, compute, row * n + done, part, block);
    for (size_t i = 0; i < (size_t)part * size; i++) room[(size_t)done * size + i] = data[i];
  }
  return room;
}

static void put_row(const pl_array *view, pl_compute compute, int64_t row, int64_t n, const char *data) {
  size_t size = pl_compute_size(compute);
  bool native = view->dtype == (compute == PL_COMPUTE_F64 ? PL_F64 : PL_F32);
  if (native && pl_array_contiguous(view)) return; /* computed in place */
  for (int64_t done = 0; done < n; done += PL_BLOCK)
    pl_blocks_write(view, compute, row * n + done, n - done < PL_BLOCK ? n - done : PL_BLOCK,
                    data + (size_t)done * size);
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
      if (!room) continue;
      void *target = row_of(&view_out, compute, row, n, room, false);
      const void *x = row_of(&view_in, compute, row, n, room + bytes, true);
      if (y)
        kernels->softmax_gradient[compute](n, target, row_of(&view_y, compute, row, n, room + 2 * bytes, true), x,
                                           kind == PL_LOG_SOFTMAX);
      else
        kernels->softmax[compute](n, target, x, kind == PL_LOG_SOFTMAX);
      put_row(&view_out, compute, row, n, target);
    }
    free(room);
  }
  if (failed) return PL_FAIL_MEMORY("softmax: no memory for rows of %lld", (long long)n);
  return PL_OK;
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

static pl_status adam(const pl_adam *step) {
  const pl_array *p = step->parameter;
  PL_REQUIRE(p->dtype == PL_F32 || p->dtype == PL_F64, "adam: parameters of float32 or float64 only, got %s",
             pl_dtype_name(p->dtype));
  const double factors[PL_ADAM_FACTORS] = {
      [PL_ADAM_RATE] = step->rate,
      [PL_ADAM_BETA1] = step->beta1,
      [PL_ADAM_BETA2] = step->beta2,
      [PL_ADAM_EPSILON] = step->epsilon,
      [PL_ADAM_DECAY] = step->decay,
      [PL_ADAM_CORRECTION1] = step->correction1,
      [PL_ADAM_CORRECTION2] = step->correction2,
      [PL_ADAM_DECOUPLED] = step->decoupled,
  };
  pl_compute compute = pl_compute_of(p->dtype);
  size_t size = pl_compute_size(compute);
  int64_t count = pl_array_count(p), piece = PL_PARALLEL_MIN;
#pragma omp parallel for if (count > piece)
  for (int64_t start = 0; start < count; start += piece) {
    int64_t n = count - start < piece ? count - start : piece;
    size_t at = (size_t)start * size;
    pl_cpu_kernels()->adam[compute](n, (char *)pl_array_data(p) + at, (char *)pl_array_data(step->gradient) + at,
                                    (char *)pl_array_data(step->first) + at, (char *)pl_array_data(step->second) + at,
                                    factors);
  }
  return PL_OK;
}

pl_status pl_cpu_adam(pl_device *device, const pl_adam *steps, int count) {
  (void)device;
  for (int i = 0; i < count; i++) PL_TRY(adam(&steps[i]));
  return PL_OK;
}
