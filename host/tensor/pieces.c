/* A tensor cut into a few pieces by one node, so that their gradients are put together in one pass. */
#include "host/tensor/operations.h"

/* The i-th of the pieces of `array` along `axis`. */
static pl_array piece_of(const pl_array *array, int axis, int64_t size, int i) {
  pl_array view = *array;
  int64_t start = i * size, rest = array->size[axis] - start;
  view.offset += start * array->stride[axis];
  view.size[axis] = rest < size ? rest : size;
  return view;
}

static int count_of(const pl_array *array, int axis, int64_t size) {
  return (int)((array->size[axis] - 1) / size) + 1; /* any size, be it past all that can be added to */
}

/* Whether the gradients lie in memory as the pieces of one array do, and that array. */
static bool lie_together(const pl_node *node, pl_tensor *const gout[], pl_array *whole) {
  const pl_array *shape = &node->shape_in[0];
  int axis = (int)node->integer[0];
  if (!gout[0]) return false;
  *whole = gout[0]->array;
  whole->size[axis] = shape->size[axis];
  for (int i = 1; i < count_of(shape, axis, node->integer[1]); i++) {
    pl_array piece = piece_of(whole, axis, node->integer[1], i);
    if (!gout[i] || gout[i]->array.dtype != whole->dtype || !pl_array_same_view(&gout[i]->array, &piece)) return false;
  }
  return true;
}

/* node->integer: axis, size of a piece. */
static pl_status pieces_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  const pl_array *shape = &node->shape_in[0];
  int axis = (int)node->integer[0];
  pl_array whole;
  if (lie_together(node, gout, &whole)) {
    gin[0] = pl_tensor_alias(&whole);
    return PL_OK;
  }
  pl_device *device = NULL;
  for (int i = 0; i < PL_NODE_OUTPUTS && !device; i++)
    if (gout[i]) device = pl_tensor_device(gout[i]);
  PL_TRY(pl_tensor_new(device, shape->dtype, shape->rank, shape->size, &gin[0]));
  pl_array zero = pl_array_number(0);
  for (int i = 0; i < count_of(shape, axis, node->integer[1]); i++) {
    pl_array piece = piece_of(&gin[0]->array, axis, node->integer[1], i);
    PL_TRY(device->copy(device, &piece, gout[i] ? &gout[i]->array : &zero));
  }
  return PL_OK;
}

pl_status pl_op_pieces(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *whole = call->tensor[0];
  int axis = (int)call->integer[0];
  int64_t size = call->integer[1], length = whole->array.size[axis];
  PL_REQUIRE(size > 0 && length > 0 && (length - 1) / size < PL_NODE_OUTPUTS,
             "pieces: size: expected one that gives 1..%d pieces of dimension %d of size %lld, got %lld",
             PL_NODE_OUTPUTS, axis + 1, (long long)length, (long long)size);
  int count = count_of(&whole->array, axis, size);
  for (int i = 0; i < count; i++) {
    pl_array view = piece_of(&whole->array, axis, size, i);
    out[i] = pl_tensor_alias(&view);
  }
  pl_node *node;
  pl_record("pieces", pieces_back, &whole, 1, out, count, &node);
  if (node) node->integer[0] = axis, node->integer[1] = size;
  return PL_OK;
}
