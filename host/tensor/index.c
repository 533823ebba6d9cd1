/* Operations that pick elements or rows by 1-based index, and the loss that does. */
#include "host/tensor/operations.h"

#include <stdlib.h>
#include <string.h>

static pl_status check_index(const char *name, const pl_tensor *a, const pl_tensor *index) {
  PL_REQUIRE(index->array.dtype == PL_I64 || index->array.dtype == PL_I32 || index->array.dtype == PL_U8,
             "%s: index: expected int64, int32 or uint8, got %s", name, pl_dtype_name(index->array.dtype));
  PL_REQUIRE(pl_tensor_device(a) == pl_tensor_device(index), "%s: tensor is on %s, index on %s", name,
             pl_tensor_device(a)->name, pl_tensor_device(index)->name);
  return PL_OK;
}

pl_status pl_scattered(pl_tensor *g, const pl_array *shape, int axis, pl_tensor *index, pl_tensor **out) {
  pl_device *device = pl_tensor_device(g);
  /* A device adds whole slices of 16-bit types in float32 by itself. */
  pl_dtype type = shape->dtype == PL_F64 || index->array.rank == 1 ? shape->dtype : PL_F32;
  pl_tensor *source = NULL, *sum = NULL;
  pl_status status = pl_convert_to(g, type, device, &source);
  if (status == PL_OK) status = pl_filled(device, type, shape->rank, shape->size, 0, &sum);
  if (status == PL_OK) status = device->scatter(device, &sum->array, axis, &index->array, &source->array);
  if (status == PL_OK) status = pl_convert_to(sum, shape->dtype, device, out);
  pl_tensor_release(source);
  pl_tensor_release(sum);
  return status;
}

/* Saves the index. node->integer[0]: axis. */
static pl_status gather_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *index;
  PL_TRY(pl_saved(node, 0, &index));
  pl_status status = pl_scattered(gout[0], &node->shape_in[0], (int)node->integer[0], index, &gin[0]);
  pl_tensor_release(index);
  return status;
}

/* out of the given shape = a indexed along axis; index of out's shape, or rank 1 for whole slices. */
static pl_status gather(const char *name, pl_tensor *a, int axis, pl_tensor *index, const pl_array *shape,
                        pl_tensor **out) {
  pl_device *device = pl_tensor_device(a);
  pl_tensor *result;
  PL_TRY(pl_tensor_new(device, a->array.dtype, shape->rank, shape->size, &result));
  pl_status status = device->gather(device, &result->array, &a->array, axis, &index->array);
  if (status != PL_OK) {
    pl_tensor_release(result);
    return status;
  }
  pl_node *node;
  pl_record(name, gather_back, &a, 1, &result, 1, &node);
  if (node) {
    node->integer[0] = axis;
    pl_save(node, index);
  }
  *out = result;
  return PL_OK;
}

pl_status pl_op_gather(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *a = call->tensor[0], *index = call->tensor[1];
  int axis = (int)call->integer[0];
  PL_TRY(check_index("gather", a, index));
  PL_REQUIRE(index->array.rank == a->array.rank, "gather: index has shape %s, expected as many dimensions as %s",
             pl_shape_text(&index->array), pl_shape_text(&a->array));
  for (int i = 0; i < a->array.rank; i++)
    PL_REQUIRE(i == axis || index->array.size[i] <= a->array.size[i],
               "gather: index of shape %s is larger than %s in dimension %d", pl_shape_text(&index->array),
               pl_shape_text(&a->array), i + 1);
  return gather("gather", a, axis, index, &index->array, out);
}

static pl_status slices(const char *name, pl_tensor *a, int axis, pl_tensor *index, pl_tensor **out) {
  pl_array shape = a->array;
  shape.size[axis] = index->array.size[0];
  return gather(name, a, axis, index, &shape, out);
}

pl_status pl_op_index_select(const pl_call *call, pl_tensor *out[]) {
  PL_TRY(check_index("index_select", call->tensor[0], call->tensor[1]));
  PL_REQUIRE(call->tensor[1]->array.rank == 1, "index_select: index: expected one dimension, got shape %s",
             pl_shape_text(&call->tensor[1]->array));
  return slices("index_select", call->tensor[0], (int)call->integer[0], call->tensor[1], out);
}

/* weight [V, D], index [..] -> [.., D] */
pl_status pl_op_embedding(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *weight = call->tensor[0], *index = call->tensor[1], *flat, *rows;
  PL_TRY(check_index("embedding", weight, index));
  PL_REQUIRE(weight->array.rank == 2, "embedding: weight: expected [vocabulary, size], got shape %s",
             pl_shape_text(&weight->array));
  PL_REQUIRE(index->array.rank < PL_RANK_MAX, "embedding: index: too many dimensions");
  int64_t size[PL_RANK_MAX];
  memcpy(size, index->array.size, sizeof size);
  size[index->array.rank] = weight->array.size[1];
  PL_TRY(pl_reshape(index, 1, (int64_t[]){-1}, &flat));
  pl_status status = slices("embedding", weight, 0, flat, &rows);
  pl_tensor_release(flat);
  PL_TRY(status);
  status = pl_reshape(rows, index->array.rank + 1, size, out);
  pl_tensor_release(rows);
  return status;
}

/* Saves the index. node->integer[0]: axis, [1]: slices. */
static pl_status scatter_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  if (pl_needs(node, 0)) gin[0] = pl_tensor_retain(gout[0]);
  if (!pl_needs(node, 1)) return PL_OK;
  pl_tensor *index;
  PL_TRY(pl_saved(node, 0, &index));
  pl_status status = gather("gather", gout[0], (int)node->integer[0], index, &node->shape_in[1], &gin[1]);
  pl_tensor_release(index);
  return status;
}

pl_status pl_op_scatter_add(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *a = call->tensor[0], *index = call->tensor[1], *source = call->tensor[2];
  int axis = (int)call->integer[0];
  PL_TRY(check_index("scatter_add", a, index));
  PL_REQUIRE(pl_tensor_device(source) == pl_tensor_device(a), "scatter_add: tensor is on %s, source on %s",
             pl_tensor_device(a)->name, pl_tensor_device(source)->name);
  pl_dtype type = a->array.dtype;
  PL_REQUIRE(type == PL_F32 || type == PL_F64 || type == PL_I64,
             "scatter_add: expected float32, float64 or int64, got %s", pl_dtype_name(type));
  PL_REQUIRE(source->array.dtype == a->array.dtype, "scatter_add: source is %s, expected %s",
             pl_dtype_name(source->array.dtype), pl_dtype_name(a->array.dtype));
  PL_REQUIRE(pl_array_same_shape(&index->array, &source->array), "scatter_add: source has shape %s, index %s",
             pl_shape_text(&source->array), pl_shape_text(&index->array));
  PL_REQUIRE(source->array.rank == a->array.rank, "scatter_add: source has shape %s, expected as many dimensions as %s",
             pl_shape_text(&source->array), pl_shape_text(&a->array));
  for (int i = 0; i < a->array.rank; i++)
    PL_REQUIRE(i == axis || source->array.size[i] <= a->array.size[i],
               "scatter_add: source of shape %s is larger than %s in dimension %d", pl_shape_text(&source->array),
               pl_shape_text(&a->array), i + 1);
  bool was = pl_set_recording(false);
  pl_tensor *result;
  pl_status status = pl_clone(a, &result);
  pl_set_recording(was);
  PL_TRY(status);
  pl_device *device = pl_tensor_device(a);
  status = device->scatter(device, &result->array, axis, &index->array, &source->array);
  if (status != PL_OK) {
    pl_tensor_release(result);
    return status;
  }
  if (pl_dtype_is_float(a->array.dtype)) {
    pl_node *node;
    pl_record("scatter_add", scatter_back, (pl_tensor *[]){a, source}, 2, &result, 1, &node);
    if (node) {
      node->integer[0] = axis;
      pl_save(node, index);
    }
  }
  *out = result;
  return PL_OK;
}

/* index [..] of 1..classes -> float32 [.., classes] */
pl_status pl_op_one_hot(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *index = call->tensor[0], *flat, *ones, *column;
  int64_t classes = call->integer[0], size[PL_RANK_MAX];
  PL_TRY(check_index("one_hot", index, index));
  PL_REQUIRE(classes > 0, "one_hot: classes: expected a positive number, got %lld", (long long)classes);
  PL_REQUIRE(index->array.rank < PL_RANK_MAX, "one_hot: index: too many dimensions");
  memcpy(size, index->array.size, sizeof size);
  size[index->array.rank] = classes;
  pl_device *device = pl_tensor_device(index);
  int64_t count = pl_tensor_count(index);
  PL_TRY(pl_filled(device, PL_F32, 2, (int64_t[]){count, classes}, 0, &flat));
  pl_status status = pl_filled(device, PL_F32, 2, (int64_t[]){count, 1}, 1, &ones);
  if (status == PL_OK) {
    status = pl_reshape(index, 2, (int64_t[]){count, 1}, &column);
    if (status == PL_OK) {
      status = device->scatter(device, &flat->array, 1, &column->array, &ones->array);
      pl_tensor_release(column);
    }
    pl_tensor_release(ones);
  }
  if (status == PL_OK) status = pl_reshape(flat, index->array.rank + 1, size, out);
  pl_tensor_release(flat);
  return status;
}
