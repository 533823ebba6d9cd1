/* Strided views in contiguous blocks. */
#include "host/cpu/blocks.h"

#include <string.h>

pl_compute pl_compute_of(pl_dtype type) {
  return !pl_dtype_is_float(type) ? PL_COMPUTE_I64 : type == PL_F64 ? PL_COMPUTE_F64 : PL_COMPUTE_F32;
}

size_t pl_compute_size(pl_compute compute) { return compute == PL_COMPUTE_F32 ? 4 : 8; }

static bool same_type(pl_dtype type, pl_compute compute) {
  static const pl_dtype native[PL_COMPUTES] = {PL_F32, PL_F64, PL_I64};
  return type == native[compute];
}

/* A position in a view, stepped a run along the last axis at a time. */
typedef struct {
  const pl_array *array;
  int64_t index[PL_RANK_MAX];
  int64_t offset; /* of the current element */
} walker;

static walker walk(const pl_array *array, int64_t start) {
  walker w = {.array = array, .offset = array->offset};
  for (int axis = array->rank - 1; axis >= 0; axis--) {
    w.index[axis] = start % array->size[axis];
    start /= array->size[axis];
    w.offset += w.index[axis] * array->stride[axis];
  }
  return w;
}

/* The next run of at most `left` elements: its first offset in *offset, its length returned. */
static int64_t run(walker *w, int64_t left, int64_t *offset) {
  const pl_array *array = w->array;
  *offset = w->offset;
  int axis = array->rank - 1;
  if (axis < 0) return 1;
  int64_t length = array->size[axis] - w->index[axis];
  if (length > left) length = left;
  w->index[axis] += length;
  w->offset += length * array->stride[axis];
  while (axis > 0 && w->index[axis] == array->size[axis]) {
    w->offset -= array->size[axis] * array->stride[axis];
    w->index[axis--] = 0;
    w->index[axis]++;
    w->offset += array->stride[axis];
  }
  return length;
}

#define STRIDED(name, type)                                                                                            \
  static void name(int64_t n, void *to, int64_t to_stride, const void *from, int64_t from_stride) {                    \
    type *t = to;                                                                                                      \
    const type *f = from;                                                                                              \
    for (int64_t i = 0; i < n; i++) t[i * to_stride] = f[i * from_stride];                                             \
  }
STRIDED(move1, uint8_t)
STRIDED(move2, uint16_t)
STRIDED(move4, uint32_t)
STRIDED(move8, uint64_t)

static void move(size_t size, int64_t n, void *to, int64_t to_stride, const void *from, int64_t from_stride) {
  if (to_stride == 1 && from_stride == 1)
    memcpy(to, from, (size_t)n * size);
  else
    (size == 1 ? move1 : size == 2 ? move2 : size == 4 ? move4 : move8)(n, to, to_stride, from, from_stride);
}

void pl_blocks_gather(const pl_array *array, int64_t start, int64_t n, void *to) {
  size_t size = pl_dtype_size(array->dtype);
  const char *base = array->buffer->data;
  int64_t stride = array->rank ? array->stride[array->rank - 1] : 1, offset;
  walker w = walk(array, start);
  for (int64_t done = 0, length; done < n; done += length) {
    length = run(&w, n - done, &offset);
    move(size, length, (char *)to + (size_t)done * size, 1, base + offset * (int64_t)size, stride);
  }
}

void pl_blocks_scatter(const pl_array *array, int64_t start, int64_t n, const void *from) {
  size_t size = pl_dtype_size(array->dtype);
  char *base = array->buffer->data;
  int64_t stride = array->rank ? array->stride[array->rank - 1] : 1, offset;
  walker w = walk(array, start);
  for (int64_t done = 0, length; done < n; done += length) {
    length = run(&w, n - done, &offset);
    move(size, length, base + offset * (int64_t)size, stride, (const char *)from + (size_t)done * size, 1);
  }
}

static void fill(const pl_array *number, pl_compute compute, int64_t n, void *room) {
  for (int64_t i = 0; i < n; i++)
    if (compute == PL_COMPUTE_F32)
      ((float *)room)[i] = (float)number->number;
    else if (compute == PL_COMPUTE_F64)
      ((double *)room)[i] = number->number;
    else
      ((int64_t *)room)[i] = number->integer;
}

/* Row-major without gaps: merged views of that kind have one axis of stride 1, or none. */
static bool dense(const pl_array *array) {
  return array->rank == 0 || (array->rank == 1 && array->stride[0] == 1) || pl_array_contiguous(array);
}

const void *pl_blocks_read(const pl_array *array, pl_compute compute, int64_t start, int64_t n, void *room) {
  if (!array->buffer) {
    fill(array, compute, n, room);
    return room;
  }
  size_t size = pl_dtype_size(array->dtype);
  bool same = same_type(array->dtype, compute);
  if (dense(array)) {
    const char *data = (const char *)pl_array_data(array) + start * (int64_t)size;
    if (same) return data;
    pl_cpu_kernels()->load[compute][array->dtype](n, room, data);
    return room;
  }
  if (same) {
    pl_blocks_gather(array, start, n, room);
    return room;
  }
  _Alignas(64) char raw[PL_BLOCK_BYTES];
  pl_blocks_gather(array, start, n, raw);
  pl_cpu_kernels()->load[compute][array->dtype](n, room, raw);
  return room;
}

void *pl_blocks_target(const pl_array *array, pl_compute compute, int64_t start, void *room) {
  if (!same_type(array->dtype, compute) || !dense(array)) return room;
  return (char *)pl_array_data(array) + start * (int64_t)pl_dtype_size(array->dtype);
}

void pl_blocks_write(const pl_array *array, pl_compute compute, int64_t start, int64_t n, const void *room) {
  bool same = same_type(array->dtype, compute);
  char *data = (char *)pl_array_data(array) + start * (int64_t)pl_dtype_size(array->dtype);
  if (dense(array)) {
    if (same && data == room) return; /* computed in place */
    pl_cpu_kernels()->store[compute][array->dtype](n, data, room);
  } else if (same)
    pl_blocks_scatter(array, start, n, room);
  else {
    _Alignas(64) char raw[PL_BLOCK_BYTES];
    pl_cpu_kernels()->store[compute][array->dtype](n, raw, room);
    pl_blocks_scatter(array, start, n, raw);
  }
}

void *pl_blocks_row(const pl_array *array, pl_compute compute, int64_t row, int64_t n, void *room, bool read) {
  size_t size = pl_compute_size(compute);
  if (same_type(array->dtype, compute) && dense(array)) return (char *)pl_array_data(array) + (size_t)(row * n) * size;
  for (int64_t done = 0; read && done < n; done += PL_BLOCK) {
    int64_t part = n - done < PL_BLOCK ? n - done : PL_BLOCK;
    _Alignas(64) char block[PL_BLOCK_BYTES];
    memcpy((char *)room + (size_t)done * size, pl_blocks_read(array, compute, row * n + done, part, block),
           (size_t)part * size);
  }
  return room;
}

void pl_blocks_put_row(const pl_array *array, pl_compute compute, int64_t row, int64_t n, const void *room) {
  if (same_type(array->dtype, compute) && dense(array)) return; /* computed in place */
  size_t size = pl_compute_size(compute);
  for (int64_t done = 0; done < n; done += PL_BLOCK)
    pl_blocks_write(array, compute, row * n + done, n - done < PL_BLOCK ? n - done : PL_BLOCK,
                    (const char *)room + (size_t)done * size);
}
