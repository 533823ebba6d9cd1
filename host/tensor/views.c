/* Operations that move no data, or only copy it: shapes, views, copies, conversions, joining. */
#include "host/tensor/operations.h"

#include <stdlib.h>
#include <string.h>

/* ---- filling and copying ---- */

static pl_status copy_array(const pl_array *to, const pl_array *from) {
  pl_device *device = to->buffer->device;
  if (!from->buffer || from->buffer->device == device) return device->copy(device, to, from);
  /* Both sides are contiguous and of one type, as the callers see to. */
  size_t bytes = (size_t)pl_array_count(to) * pl_dtype_size(to->dtype);
  pl_device *source = from->buffer->device;
  if (device->transfer && device->transfer == source->transfer)
    return device->transfer(device, pl_array_data(to), source, pl_array_data(from), bytes);
  if (source->host_memory) return device->upload(device, pl_array_data(to), pl_array_data(from), bytes);
  if (device->host_memory) return source->download(source, pl_array_data(to), pl_array_data(from), bytes);
  void *host = malloc(bytes ? bytes : 1);
  if (!host) return PL_FAIL_MEMORY("copy: no host memory for %zu bytes", bytes);
  pl_status status = source->download(source, host, pl_array_data(from), bytes);
  if (status == PL_OK) status = device->upload(device, pl_array_data(to), host, bytes);
  free(host);
  return status;
}

pl_status pl_filled(pl_device *device, pl_dtype dtype, int rank, const int64_t *size, double number, pl_tensor **out) {
  pl_tensor *tensor;
  PL_TRY(pl_tensor_new(device, dtype, rank, size, &tensor));
  pl_array value = pl_dtype_is_float(dtype) ? pl_array_number(number) : pl_array_integer((int64_t)number);
  pl_status status = device->copy(device, &tensor->array, &value);
  if (status != PL_OK) {
    pl_tensor_release(tensor);
    return status;
  }
  *out = tensor;
  return PL_OK;
}

/* A packed copy on the same device, outside the graph. */
static pl_status packed(const pl_tensor *a, pl_dtype dtype, pl_tensor **out) {
  pl_tensor *copy;
  PL_TRY(pl_tensor_like(a, dtype, &copy));
  pl_status status = copy_array(&copy->array, &a->array);
  if (status != PL_OK) {
    pl_tensor_release(copy);
    return status;
  }
  *out = copy;
  return PL_OK;
}

static pl_status pass_on(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  (void)node;
  gin[0] = pl_tensor_retain(gout[0]);
  return PL_OK;
}

pl_status pl_clone(pl_tensor *a, pl_tensor **out) {
  PL_TRY(packed(a, a->array.dtype, out));
  pl_node *node;
  pl_record("clone", pass_on, &a, 1, out, 1, &node);
  return PL_OK;
}

pl_status pl_contiguous(pl_tensor *a, pl_tensor **out) {
  if (!pl_array_contiguous(&a->array)) return pl_clone(a, out);
  *out = pl_tensor_retain(a);
  return PL_OK;
}

/* node->note: the device the operand was on. */
static pl_status convert_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  return pl_convert_to(gout[0], node->shape_in[0].dtype, node->note, &gin[0]);
}

pl_status pl_convert_to(pl_tensor *a, pl_dtype dtype, pl_device *device, pl_tensor **out) {
  pl_device *here = pl_tensor_device(a);
  if (a->array.dtype == dtype && here == device) {
    *out = pl_tensor_retain(a);
    return PL_OK;
  }
  pl_tensor *converted, *moved = NULL;
  PL_TRY(packed(a, dtype, &converted));
  if (here != device) {
    pl_status status = pl_tensor_new(device, dtype, a->array.rank, a->array.size, &moved);
    if (status == PL_OK) status = copy_array(&moved->array, &converted->array);
    pl_tensor_release(converted);
    if (status != PL_OK) {
      pl_tensor_release(moved);
      return status;
    }
    converted = moved;
  }
  if (pl_dtype_is_float(dtype)) {
    pl_node *node;
    pl_record("to", convert_back, &a, 1, &converted, 1, &node);
    if (node) node->note = here;
  }
  *out = converted;
  return PL_OK;
}

pl_status pl_assign(pl_tensor *to, const pl_tensor *from, const char *operation) {
  pl_array view;
  PL_REQUIRE(!from->array.buffer || pl_array_broadcast(&from->array, &to->array, &view),
             "%s: shape %s does not broadcast to %s", operation, pl_shape_text(&from->array),
             pl_shape_text(&to->array));
  PL_TRY(pl_tensor_mutate(to, operation));
  pl_device *device = pl_tensor_device(to);
  pl_tensor *here = NULL, *apart = NULL;
  pl_status status = PL_OK;
  if (from->array.buffer) {
    pl_tensor *source = pl_tensor_alias(&from->array);
    status = pl_convert_to(source, to->array.dtype, device, &here);
    pl_tensor_release(source);
    if (status == PL_OK) status = pl_apart(here, to, &apart);
  }
  if (status == PL_OK) status = device->copy(device, &to->array, apart ? &apart->array : &from->array);
  pl_tensor_release(here);
  pl_tensor_release(apart);
  return status;
}

pl_status pl_apart(pl_tensor *operand, const pl_tensor *target, pl_tensor **out) {
  if (operand->array.buffer == target->array.buffer && !pl_array_same_view(&operand->array, &target->array))
    return packed(operand, operand->array.dtype, out);
  *out = pl_tensor_retain(operand);
  return PL_OK;
}

/* ---- views ---- */

/* A gradient for a view's operand: zero everywhere but in the same view of it. `node->shape_out[0]` holds the view's
 * strides and offset; they are applied to a zero tensor that is laid out as the operand's elements are, packed. */
static pl_status scatter_view(const pl_node *node, pl_tensor *g, const pl_array *view, pl_tensor **out) {
  const pl_array *shape = &node->shape_in[0];
  PL_TRY(pl_filled(pl_tensor_device(g), shape->dtype, shape->rank, shape->size, 0, out));
  pl_array target = *view;
  target.buffer = (*out)->array.buffer;
  pl_status status = copy_array(&target, &g->array);
  if (status != PL_OK) pl_tensor_release(*out), *out = NULL;
  return status;
}

static pl_tensor *view_of(pl_tensor *a, const pl_array *array, const char *name, pl_backward_rule backward,
                          pl_node **node) {
  pl_tensor *view = pl_tensor_alias(array);
  pl_record(name, backward, &a, 1, &view, 1, node);
  return view;
}

static pl_status reshape_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  return pl_reshape(gout[0], node->shape_in[0].rank, node->shape_in[0].size, &gin[0]);
}

/* Strides of `a` under the sizes of `view`, or false when only a copy can have them. The old axes form runs that are
 * stepped through in one stride; from the last axis on, each new axis must divide what is left of one run. */
static bool strides_for(const pl_array *a, pl_array *view) {
  int old = a->rank - 1;
  int64_t left = 1, stride = 1;
  for (int i = view->rank - 1; i >= 0; i--) {
    int64_t size = view->size[i];
    view->stride[i] = stride;
    if (size == 1) continue;
    if (left == 1) {
      while (a->size[old] == 1) old--;
      left = a->size[old];
      stride = a->stride[old--];
      for (; old >= 0 && (a->size[old] == 1 || a->stride[old] == left * stride); old--) left *= a->size[old];
    }
    if (left % size != 0) return false;
    view->stride[i] = stride;
    stride *= size;
    left /= size;
  }
  return true;
}

pl_status pl_reshape(pl_tensor *a, int rank, const int64_t *size, pl_tensor **out) {
  pl_array view = a->array;
  int64_t count = pl_array_count(&a->array);
  int unknown = -1;
  view.rank = rank;
  for (int i = 0; i < rank; i++) {
    view.size[i] = size[i];
    if (size[i] != -1) continue;
    PL_REQUIRE(unknown < 0, "reshape: only one size may be -1");
    unknown = i;
    view.size[i] = 1;
  }
  PL_REQUIRE(pl_array_countable(&view), "reshape: %s has too many elements", pl_shape_text(&view));
  if (unknown >= 0) {
    int64_t known = pl_array_count(&view);
    PL_REQUIRE(known > 0 && count % known == 0, "reshape: cannot infer a size: %lld elements over %lld",
               (long long)count, (long long)known);
    view.size[unknown] = count / known;
  }
  PL_REQUIRE(pl_array_count(&view) == count, "reshape: %s has %lld elements, %s would have %lld",
             pl_shape_text(&a->array), (long long)count, pl_shape_text(&view), (long long)pl_array_count(&view));
  pl_tensor *source = pl_tensor_retain(a);
  if (count == 0)
    pl_array_pack(&view);
  else if (!strides_for(&a->array, &view)) {
    pl_tensor_release(source);
    PL_TRY(pl_clone(a, &source));
    view.buffer = source->array.buffer;
    view.offset = source->array.offset;
    pl_array_pack(&view);
  }
  pl_node *node;
  *out = view_of(source, &view, "reshape", reshape_back, &node);
  pl_tensor_release(source);
  return PL_OK;
}

static pl_status permute_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  const int64_t *order = node->note;
  pl_array view = gout[0]->array;
  for (int i = 0; i < view.rank; i++) {
    view.size[order[i]] = gout[0]->array.size[i];
    view.stride[order[i]] = gout[0]->array.stride[i];
  }
  gin[0] = pl_tensor_alias(&view);
  return PL_OK;
}

static pl_status permute(pl_tensor *a, const int64_t *order, const char *name, pl_tensor **out) {
  pl_array view = a->array;
  for (int i = 0; i < view.rank; i++) {
    view.size[i] = a->array.size[order[i]];
    view.stride[i] = a->array.stride[order[i]];
  }
  pl_node *node;
  *out = view_of(a, &view, name, permute_back, &node);
  if (node) {
    node->note = memcpy(pl_allocate(sizeof(int64_t) * PL_RANK_MAX), order, sizeof(int64_t) * (size_t)view.rank);
    node->forget = free;
  }
  return PL_OK;
}

pl_status pl_transpose(pl_tensor *a, int i, int j, pl_tensor **out) {
  int64_t order[PL_RANK_MAX];
  for (int k = 0; k < a->array.rank; k++) order[k] = k;
  order[i] = j;
  order[j] = i;
  return permute(a, order, "transpose", out);
}

/* node->integer: axis, start, whether the axis went away (select). */
static pl_status narrow_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  int axis = (int)node->integer[0];
  pl_array view = node->shape_in[0];
  view.offset = 0;
  pl_array_pack(&view);
  view.offset = node->integer[1] * view.stride[axis];
  if (node->integer[2]) {
    for (int i = axis; i < view.rank - 1; i++) view.size[i] = view.size[i + 1], view.stride[i] = view.stride[i + 1];
    view.rank--;
  } else
    view.size[axis] = node->shape_out[0].size[axis];
  return scatter_view(node, gout[0], &view, &gin[0]);
}

static pl_tensor *narrow(pl_tensor *a, int axis, int64_t start, int64_t length, bool select) {
  pl_array view = a->array;
  view.offset += start * view.stride[axis];
  view.size[axis] = length;
  if (select) {
    for (int i = axis; i < view.rank - 1; i++) view.size[i] = view.size[i + 1], view.stride[i] = view.stride[i + 1];
    view.rank--;
  }
  pl_node *node;
  pl_tensor *out = view_of(a, &view, select ? "select" : "narrow", narrow_back, &node);
  if (node) node->integer[0] = axis, node->integer[1] = start, node->integer[2] = select;
  return out;
}

pl_status pl_narrow(pl_tensor *a, int axis, int64_t start, int64_t length, pl_tensor **out) {
  int64_t size = a->array.size[axis];
  PL_REQUIRE(start >= 0 && length >= 0 && start <= size && length <= size - start,
             "narrow: %lld elements from %lld are outside dimension %d of size %lld", (long long)length,
             (long long)(start + 1), axis + 1, (long long)size);
  *out = narrow(a, axis, start, length, false);
  return PL_OK;
}

static pl_status expand_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  return pl_sum_to(gout[0], &node->shape_in[0], &gin[0]);
}

/* ---- joining ---- */

static pl_status cat_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  int axis = (int)node->integer[0];
  int64_t start = 0;
  for (int i = 0; i < node->inputs; i++) {
    int64_t length = node->shape_in[i].size[axis];
    pl_tensor *part = narrow(gout[0], axis, start, length, false);
    pl_status status = pl_convert_to(part, node->shape_in[i].dtype, pl_tensor_device(part), &gin[i]);
    pl_tensor_release(part);
    PL_TRY(status);
    start += length;
  }
  return PL_OK;
}

static pl_status check_parts(const char *name, pl_tensor *const *list, int count, int axis, int64_t *total,
                             pl_dtype *type) {
  const pl_tensor *first = list[0];
  *total = 0;
  *type = first->array.dtype;
  for (int i = 0; i < count; i++) {
    const pl_array *array = &list[i]->array;
    PL_REQUIRE(pl_tensor_device(list[i]) == pl_tensor_device(first), "%s: tensor 1 is on %s, tensor %d on %s", name,
               pl_tensor_device(first)->name, i + 1, pl_tensor_device(list[i])->name);
    PL_REQUIRE(array->rank == first->array.rank, "%s: tensor %d has shape %s, tensor 1 has %s", name, i + 1,
               pl_shape_text(array), pl_shape_text(&first->array));
    for (int k = 0; k < array->rank; k++)
      PL_REQUIRE(k == axis || array->size[k] == first->array.size[k],
                 "%s: tensor %d has shape %s, tensor 1 has %s: they may differ in dimension %d only", name, i + 1,
                 pl_shape_text(array), pl_shape_text(&first->array), axis + 1);
    *total += array->size[axis];
    *type = pl_dtype_promote(*type, array->dtype);
  }
  return PL_OK;
}

static pl_status cat(const char *name, pl_tensor *const *list, int count, int axis, pl_tensor **out) {
  int64_t total, start = 0, size[PL_RANK_MAX];
  pl_dtype type;
  PL_TRY(check_parts(name, list, count, axis, &total, &type));
  memcpy(size, list[0]->array.size, sizeof size);
  size[axis] = total;
  pl_tensor *joined;
  PL_TRY(pl_tensor_new(pl_tensor_device(list[0]), type, list[0]->array.rank, size, &joined));
  for (int i = 0; i < count; i++) {
    pl_array part = joined->array;
    part.offset += start * part.stride[axis];
    part.size[axis] = list[i]->array.size[axis];
    start += part.size[axis];
    pl_status status = copy_array(&part, &list[i]->array);
    if (status != PL_OK) {
      pl_tensor_release(joined);
      return status;
    }
  }
  pl_node *node;
  pl_record(name, cat_back, list, count, &joined, 1, &node);
  if (node) node->integer[0] = axis;
  *out = joined;
  return PL_OK;
}

/* ---- the table's entries ---- */

pl_status pl_op_reshape(const pl_call *call, pl_tensor *out[]) {
  return pl_reshape(call->tensor[0], call->rank, call->shape, out);
}

pl_status pl_op_transpose(const pl_call *call, pl_tensor *out[]) {
  return pl_transpose(call->tensor[0], (int)call->integer[0], (int)call->integer[1], out);
}

pl_status pl_op_permute(const pl_call *call, pl_tensor *out[]) {
  return permute(call->tensor[0], call->shape, "permute", out);
}

pl_status pl_op_narrow(const pl_call *call, pl_tensor *out[]) {
  return pl_narrow(call->tensor[0], (int)call->integer[0], call->integer[1] - PL_INDEX_BASE, call->integer[2], out);
}

pl_status pl_op_select(const pl_call *call, pl_tensor *out[]) {
  int axis = (int)call->integer[0];
  int64_t size = call->tensor[0]->array.size[axis], index = call->integer[1];
  PL_REQUIRE(index != 0 && index <= size && index >= -size, "select: index %lld is outside dimension %d of size %lld",
             (long long)index, axis + 1, (long long)size);
  *out = narrow(call->tensor[0], axis, index > 0 ? index - 1 : size + index, 1, true);
  return PL_OK;
}

pl_status pl_op_unsqueeze(const pl_call *call, pl_tensor *out[]) {
  const pl_array *a = &call->tensor[0]->array;
  int64_t at = call->integer[0] < 0 ? a->rank + 1 + call->integer[0] : call->integer[0] - 1, size[PL_RANK_MAX];
  PL_REQUIRE(a->rank < PL_RANK_MAX, "unsqueeze: at most %d dimensions", PL_RANK_MAX);
  PL_REQUIRE(at >= 0 && at <= a->rank, "unsqueeze: dimension %lld is outside 1..%d", (long long)call->integer[0],
             a->rank + 1);
  for (int i = 0, k = 0; i <= a->rank; i++) size[i] = i == at ? 1 : a->size[k++];
  return pl_reshape(call->tensor[0], a->rank + 1, size, out);
}

pl_status pl_op_squeeze(const pl_call *call, pl_tensor *out[]) {
  const pl_array *a = &call->tensor[0]->array;
  int64_t size[PL_RANK_MAX];
  int rank = 0;
  for (int i = 0; i < a->rank; i++)
    if (a->size[i] != 1 || !(call->axes >> i & 1)) size[rank++] = a->size[i];
  return pl_reshape(call->tensor[0], rank, size, out);
}

pl_status pl_op_expand(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *a = call->tensor[0];
  int missing = call->rank - a->array.rank;
  PL_REQUIRE(missing >= 0, "expand: %s has more dimensions than the %d asked for", pl_shape_text(&a->array),
             call->rank);
  pl_array shape = {.rank = call->rank}, view;
  for (int i = 0; i < call->rank; i++)
    shape.size[i] = call->shape[i] == -1 && i >= missing ? a->array.size[i - missing] : call->shape[i];
  for (int i = 0; i < missing; i++)
    PL_REQUIRE(shape.size[i] >= 0, "expand: -1 needs a dimension that is there already; %s has %d of the %d asked for",
               pl_shape_text(&a->array), a->array.rank, call->rank);
  PL_REQUIRE(pl_array_countable(&shape), "expand: %s has too many elements", pl_shape_text(&shape));
  PL_REQUIRE(pl_array_broadcast(&a->array, &shape, &view), "expand: %s does not broadcast to %s",
             pl_shape_text(&a->array), pl_shape_text(&shape));
  pl_node *node;
  *out = view_of(a, &view, "expand", expand_back, &node);
  return PL_OK;
}

pl_status pl_op_contiguous(const pl_call *call, pl_tensor *out[]) { return pl_contiguous(call->tensor[0], out); }
pl_status pl_op_clone(const pl_call *call, pl_tensor *out[]) { return pl_clone(call->tensor[0], out); }

pl_status pl_op_detach(const pl_call *call, pl_tensor *out[]) {
  *out = pl_tensor_alias(&call->tensor[0]->array);
  return PL_OK;
}

pl_status pl_op_cat(const pl_call *call, pl_tensor *out[]) {
  return cat("cat", call->list, call->listed, (int)call->integer[0], out);
}

pl_status pl_op_stack(const pl_call *call, pl_tensor *out[]) {
  int64_t ranks = call->list[0]->array.rank + 1;
  int64_t at = call->integer[0] < 0 ? ranks + call->integer[0] : call->integer[0] - 1;
  PL_REQUIRE(at >= 0 && at < ranks, "stack: dim: dimension %lld is outside 1..%lld", (long long)call->integer[0],
             (long long)ranks);
  pl_tensor **parts = pl_allocate((size_t)call->listed * sizeof *parts);
  pl_call one = {.integer = {call->integer[0]}};
  pl_status status = PL_OK;
  for (int i = 0; i < call->listed && status == PL_OK; i++) {
    one.tensor[0] = call->list[i];
    status = pl_op_unsqueeze(&one, &parts[i]);
  }
  if (status == PL_OK) status = cat("stack", parts, call->listed, (int)at, out);
  for (int i = 0; i < call->listed; i++) pl_tensor_release(parts[i]);
  free(parts);
  return status;
}
