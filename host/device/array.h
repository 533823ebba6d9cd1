/* Counted buffers, and the strided view of one that every primitive takes. */
#ifndef PL_DEVICE_ARRAY_H
#define PL_DEVICE_ARRAY_H

#include "host/base/status.h"
#include "host/device/dtype.h"

typedef struct pl_device pl_device;

/* A counted piece of device memory. */
typedef struct {
  int count;
  uint32_t version; /* raised by every in-place change, so that backward can tell that a saved value is gone */
  pl_device *device;
  void *data; /* 64-byte aligned */
  size_t bytes;
} pl_buffer;

/* Allocates from the device's cache of freed buffers or from the device. Contents are undefined. */
pl_status pl_buffer_new(pl_device *device, size_t bytes, pl_buffer **buffer);
void pl_buffer_retain(pl_buffer *buffer);
void pl_buffer_release(pl_buffer *buffer); /* NULL is fine */

enum { PL_RANK_MAX = 8 };

/* A strided view, or one number. It does not own: whoever keeps it holds the buffer. Index and label arrays hold
 * 1-based values (PL_INDEX_BASE), as Lua counts. */
typedef struct {
  pl_buffer *buffer; /* NULL: the number below, which broadcasts to any shape */
  pl_dtype dtype;
  int rank;
  int64_t size[PL_RANK_MAX], stride[PL_RANK_MAX]; /* in elements */
  int64_t offset;                                 /* in elements */
  double number;                                  /* both hold the value, the integer cut to its range */
  int64_t integer;
} pl_array;

enum { PL_INDEX_BASE = 1 };

int64_t pl_array_count(const pl_array *array); /* elements */
/* Whether the sizes can be those of a tensor: their product, empty axes aside, stays far from overflow. */
bool pl_array_countable(const pl_array *array);
/* Whether several elements lie at one place, as after expand. */
bool pl_array_overlaps_itself(const pl_array *array);
bool pl_array_contiguous(const pl_array *array);
/* Row-major strides for the sizes already there. */
void pl_array_pack(pl_array *array);
pl_array pl_array_number(double number);
pl_array pl_array_integer(int64_t integer);
/* The first element's address. */
static inline void *pl_array_data(const pl_array *array) {
  return (char *)array->buffer->data + array->offset * (int64_t)pl_dtype_size(array->dtype);
}
bool pl_array_same_shape(const pl_array *a, const pl_array *b);
bool pl_array_same_view(const pl_array *a, const pl_array *b);
/* Views `array` as having the sizes of `shape`, with stride 0 where it broadcasts; false when it cannot. */
bool pl_array_broadcast(const pl_array *array, const pl_array *shape, pl_array *view);
/* Drops size-1 axes and merges neighbours that every one of the arrays (all of one shape) steps through in one stride.
 */
void pl_arrays_merge(pl_array *const arrays[], int count);
/* "[2, 3]" for messages; one of a few rotating static buffers. */
const char *pl_shape_text(const pl_array *array);

#endif
