/* Gather and scatter along an axis by 1-based indices: embeddings, label look-ups, selections. */
#include "host/cpu/blocks.h"

#include <stdlib.h>
#include <string.h>

/* The index array as int64 values, bounds checked. */
static pl_status indices(const pl_array *index, int64_t limit, int64_t **values) {
  int64_t count = pl_array_count(index);
  *values = malloc((size_t)(count ? count : 1) * sizeof **values);
  if (!*values) return PL_FAIL_MEMORY("gather: no memory for %lld indices", (long long)count);
  pl_buffer buffer = {.data = *values};
  pl_array flat = *index;
  flat.buffer = &buffer, flat.dtype = PL_I64, flat.offset = 0;
  pl_array_pack(&flat);
  pl_status status = pl_cpu_copy(NULL, &flat, index);
  for (int64_t i = 0; i < count && status == PL_OK; i++)
    if ((*values)[i] < PL_INDEX_BASE || (*values)[i] >= limit + PL_INDEX_BASE)
      status = PL_FAIL("index: value %lld at position %lld is outside 1..%lld", (long long)(*values)[i],
                       (long long)i + PL_INDEX_BASE, (long long)limit);
  if (status != PL_OK) {
    free(*values);
    *values = NULL;
  }
  return status;
}

/* `picked` has the sizes of the index's result, `whole` is what is indexed: the pair of offsets of one element. */
static void offsets(const pl_array *picked, const pl_array *whole, int dim, const int64_t *values, bool slices,
                    int64_t element, int64_t *in_picked, int64_t *in_whole) {
  int64_t left = element;
  *in_picked = picked->offset;
  *in_whole = whole->offset;
  for (int axis = picked->rank - 1; axis >= 0; axis--) {
    int64_t at = left % picked->size[axis];
    left /= picked->size[axis];
    *in_picked += at * picked->stride[axis];
    int64_t there = axis != dim ? at : values[slices ? at : element] - PL_INDEX_BASE;
    *in_whole += there * whole->stride[axis];
  }
}

/* Runs along the last axis are moved whole when it is not the indexed one. */
static int64_t run_length(const pl_array *picked, int dim) {
  return dim == picked->rank - 1 || picked->rank == 0 ? 1 : picked->size[picked->rank - 1];
}

pl_status pl_cpu_gather(pl_device *device, const pl_array *out, const pl_array *in, int dim, const pl_array *index) {
  (void)device;
  int64_t *values, count = pl_array_count(out);
  PL_TRY(indices(index, in->size[dim], &values));
  bool slices = index->rank == 1 && out->rank != 1;
  int64_t run = slices && count > 0 ? run_length(out, dim) : 1;
  size_t size = pl_dtype_size(out->dtype);
#pragma omp parallel for if (count > PL_PARALLEL_MIN)
  for (int64_t element = 0; element < count; element += run) {
    if (pl_interrupt_pending()) continue;
    int64_t to, from;
    offsets(out, in, dim, values, slices, element, &to, &from);
    char *target = (char *)out->buffer->data + to * (int64_t)size;
    const char *source = (const char *)in->buffer->data + from * (int64_t)size;
    int64_t to_stride = run > 1 ? out->stride[out->rank - 1] : 1, from_stride = run > 1 ? in->stride[in->rank - 1] : 1;
    if (to_stride == 1 && from_stride == 1)
      memcpy(target, source, (size_t)run * size);
    else
      for (int64_t i = 0; i < run; i++)
        memcpy(target + (size_t)(i * to_stride) * size, source + i * from_stride * (int64_t)size, size);
  }
  free(values);
  return pl_check_interrupt();
}

static pl_status add_at(const pl_array *out, int dim, const pl_array *index, const pl_array *in) {
  int64_t *values, count = pl_array_count(in);
  PL_TRY(indices(index, out->size[dim], &values));
  bool slices = index->rank == 1 && in->rank != 1;
  int64_t run = slices ? run_length(in, dim) : 1;
  /* In order, on one thread: equal indices add up in a fixed order, so the result repeats bit for bit. */
  for (int64_t element = 0; element < count && !pl_interrupt_pending(); element += run) {
    int64_t to, from;
    offsets(in, out, dim, values, slices, element, &from, &to);
    int64_t from_stride = run > 1 ? in->stride[in->rank - 1] : 1, to_stride = run > 1 ? out->stride[out->rank - 1] : 1;
    for (int64_t i = 0; i < run; i++, to += to_stride, from += from_stride)
      if (out->dtype == PL_F32)
        ((float *)out->buffer->data)[to] += ((const float *)in->buffer->data)[from];
      else if (out->dtype == PL_F64)
        ((double *)out->buffer->data)[to] += ((const double *)in->buffer->data)[from];
      else
        ((int64_t *)out->buffer->data)[to] += ((const int64_t *)in->buffer->data)[from];
  }
  free(values);
  return pl_check_interrupt();
}

/* A packed copy of an array in float32. */
static pl_status widened(const pl_array *array, pl_buffer *memory, pl_array *wide) {
  *wide = *array;
  wide->dtype = PL_F32, wide->offset = 0, wide->buffer = memory;
  pl_array_pack(wide);
  size_t bytes = (size_t)pl_array_count(array) * sizeof(float);
  memory->data = malloc(bytes ? bytes : 1);
  if (!memory->data) return PL_FAIL_MEMORY("scatter: no memory for sums of %zu bytes", bytes);
  return pl_cpu_copy(NULL, wide, array);
}

pl_status pl_cpu_scatter(pl_device *device, const pl_array *out, int dim, const pl_array *index, const pl_array *in) {
  (void)device;
  if (out->dtype == PL_F32 || out->dtype == PL_F64 || out->dtype == PL_I64) return add_at(out, dim, index, in);
  PL_REQUIRE(pl_dtype_is_float(out->dtype) && index->rank == 1, "scatter: %s takes whole slices only",
             pl_dtype_name(out->dtype));
  pl_buffer memory[2] = {0};
  pl_array sum, source;
  pl_status status = widened(out, &memory[0], &sum);
  if (status == PL_OK) status = widened(in, &memory[1], &source);
  if (status == PL_OK) status = add_at(&sum, dim, index, &source);
  if (status == PL_OK) status = pl_cpu_copy(NULL, out, &sum);
  free(memory[0].data);
  free(memory[1].data);
  return status;
}
