/* Shapes and strides of views. */
#include "host/device/array.h"

#include <stdio.h>
#include <string.h>

int64_t pl_array_count(const pl_array *array) {
  int64_t count = 1;
  for (int i = 0; i < array->rank; i++) count *= array->size[i];
  return count;
}

bool pl_array_countable(const pl_array *array) {
  int64_t count = 1;
  for (int i = 0; i < array->rank; i++)
    if (array->size[i] > 1 && (__builtin_mul_overflow(count, array->size[i], &count) || count > INT64_MAX / 16))
      return false;
  return true;
}

bool pl_array_overlaps_itself(const pl_array *array) {
  for (int i = 0; i < array->rank; i++)
    if (array->size[i] > 1 && array->stride[i] == 0) return true;
  return false;
}

bool pl_array_contiguous(const pl_array *array) {
  int64_t expected = 1;
  for (int i = array->rank - 1; i >= 0; i--) {
    if (array->size[i] == 0) return true;
    if (array->size[i] != 1 && array->stride[i] != expected) return false;
    expected *= array->size[i];
  }
  return true;
}

void pl_array_pack(pl_array *array) {
  int64_t stride = 1;
  for (int i = array->rank - 1; i >= 0; i--) {
    array->stride[i] = stride;
    stride *= array->size[i] > 0 ? array->size[i] : 1;
  }
}

pl_array pl_array_number(double number) {
  return (pl_array){.dtype = PL_F64, .number = number, .integer = pl_saturate(number)};
}

pl_array pl_array_integer(int64_t integer) {
  return (pl_array){.dtype = PL_I64, .number = (double)integer, .integer = integer};
}

bool pl_array_same_shape(const pl_array *a, const pl_array *b) {
  return a->rank == b->rank && memcmp(a->size, b->size, (size_t)a->rank * sizeof a->size[0]) == 0;
}

bool pl_array_same_view(const pl_array *a, const pl_array *b) {
  return a->buffer == b->buffer && a->offset == b->offset && pl_array_same_shape(a, b) &&
         memcmp(a->stride, b->stride, (size_t)a->rank * sizeof a->stride[0]) == 0;
}

bool pl_array_broadcast(const pl_array *array, const pl_array *shape, pl_array *view) {
  *view = *array;
  int missing = shape->rank - array->rank;
  if (missing < 0) return false;
  view->rank = shape->rank;
  for (int i = 0; i < shape->rank; i++) {
    int64_t size = i < missing ? 1 : array->size[i - missing];
    view->size[i] = shape->size[i];
    view->stride[i] = size == 1 || i < missing ? 0 : array->stride[i - missing];
    if (size != shape->size[i] && size != 1) return false;
  }
  return true;
}

void pl_arrays_merge(pl_array *const arrays[], int count) {
  int rank = arrays[0]->rank, kept = 0;
  for (int axis = 0; axis < rank; axis++) {
    int64_t size = arrays[0]->size[axis];
    if (size == 1) continue;
    bool joins = kept > 0;
    for (int i = 0; i < count && joins; i++) joins = arrays[i]->stride[kept - 1] == arrays[i]->stride[axis] * size;
    for (int i = 0; i < count; i++) {
      pl_array *array = arrays[i];
      int at = joins ? kept - 1 : kept;
      array->size[at] = joins ? array->size[at] * size : size;
      array->stride[at] = array->stride[axis];
    }
    if (!joins) kept++;
  }
  for (int i = 0; i < count; i++) arrays[i]->rank = kept;
}

const char *pl_shape_text(const pl_array *array) {
  static _Thread_local char texts[4][192];
  static _Thread_local int turn;
  char *text = texts[turn++ % 4];
  int length = snprintf(text, sizeof texts[0], "[");
  for (int i = 0; i < array->rank; i++)
    length +=
        snprintf(text + length, sizeof texts[0] - (size_t)length, i ? ", %lld" : "%lld", (long long)array->size[i]);
  snprintf(text + length, sizeof texts[0] - (size_t)length, "]");
  return text;
}
