/* Reductions over any dimensions, and cumulative sums. */
#include "host/tensor/operations.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sizes with 1 in every axis of the mask, and how many elements fold into one. */
static int64_t folded(const pl_array *a, unsigned axes, int64_t size[PL_RANK_MAX]) {
  int64_t fold = 1;
  for (int i = 0; i < a->rank; i++) {
    size[i] = axes >> i & 1 ? 1 : a->size[i];
    if (axes >> i & 1) fold *= a->size[i];
  }
  return fold;
}

/* The reduction with all axes kept (size 1), outside the graph. */
static pl_status reduce(pl_tensor *a, pl_reduction kind, double factor, unsigned axes, pl_dtype type, pl_tensor **out) {
  int64_t size[PL_RANK_MAX];
  folded(&a->array, axes, size);
  pl_device *device = pl_tensor_device(a);
  PL_TRY(pl_tensor_new(device, type, a->array.rank, size, out));
  pl_status status = device->reduce(device, kind, factor, &(*out)->array, &a->array);
  if (status != PL_OK) pl_tensor_release(*out);
  return status;
}

/* Drops the reduced axes unless they are to stay; takes over *t. */
static pl_status drop_axes(pl_tensor **t, unsigned axes, bool keep) {
  if (keep) return PL_OK;
  int64_t size[PL_RANK_MAX];
  int rank = 0;
  for (int i = 0; i < (*t)->array.rank; i++)
    if (!(axes >> i & 1)) size[rank++] = (*t)->array.size[i];
  pl_tensor *view = NULL;
  pl_status status = pl_reshape(*t, rank, size, &view);
  pl_tensor_release(*t);
  *t = view;
  return status;
}

/* Gradient of a reduced result, seen in the operand's rank: [.., 1, ..]. node->integer[0]: the mask. */
static pl_status with_axes(const pl_node *node, pl_tensor *g, pl_tensor **out) {
  int64_t size[PL_RANK_MAX];
  folded(&node->shape_in[0], (unsigned)node->integer[0], size);
  return pl_reshape(g, node->shape_in[0].rank, size, out);
}

/* node->number[0]: factor (1 for sum, 1/n for mean). */
static pl_status sum_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *kept, *scaled = NULL, *number = pl_tensor_number(node->number[0]);
  pl_status status = with_axes(node, gout[0], &kept);
  if (status == PL_OK) {
    status = node->number[0] == 1 ? PL_OK : pl_mul(kept, number, &scaled);
    if (status == PL_OK) {
      pl_array view;
      pl_array_broadcast(scaled ? &scaled->array : &kept->array, &node->shape_in[0], &view);
      gin[0] = pl_tensor_alias(&view);
    }
    pl_tensor_release(scaled);
    pl_tensor_release(kept);
  }
  pl_tensor_release(number);
  return status;
}

static pl_status sum_scaled(pl_tensor *a, unsigned axes, bool keep, bool mean, pl_tensor **out) {
  int64_t size[PL_RANK_MAX], fold = folded(&a->array, axes, size);
  bool real = pl_dtype_is_float(a->array.dtype);
  double factor = mean ? 1 / (double)fold : 1;
  pl_tensor *sum;
  PL_TRY(reduce(a, PL_SUM, real ? factor : 1, axes, real ? a->array.dtype : PL_I64, &sum));
  if (mean && !real) {
    pl_tensor *scaled = NULL, *number = pl_tensor_number(factor);
    pl_status status = pl_mul(sum, number, &scaled);
    pl_tensor_release(sum);
    pl_tensor_release(number);
    if (status == PL_OK) status = pl_convert_to(scaled, PL_F32, pl_tensor_device(a), &sum);
    pl_tensor_release(scaled);
    PL_TRY(status);
  }
  PL_TRY(drop_axes(&sum, axes, keep));
  if (real) {
    pl_node *node;
    pl_record(mean ? "mean" : "sum", sum_back, &a, 1, &sum, 1, &node);
    if (node) node->integer[0] = axes, node->number[0] = factor;
  }
  *out = sum;
  return PL_OK;
}

pl_status pl_sum(pl_tensor *a, unsigned axes, bool keep, pl_tensor **out) {
  return sum_scaled(a, axes, keep, false, out);
}

pl_status pl_sum_to(pl_tensor *g, const pl_array *shape, pl_tensor **out) {
  int extra = g->array.rank - shape->rank;
  unsigned axes = 0;
  for (int i = 0; i < g->array.rank; i++)
    if (i < extra || (shape->size[i - extra] == 1 && g->array.size[i] != 1)) axes |= 1u << i;
  pl_tensor *sum = pl_tensor_retain(g);
  if (axes) {
    pl_tensor_release(sum);
    PL_TRY(reduce(g, PL_SUM, 1, axes, g->array.dtype, &sum));
  }
  pl_tensor *shaped;
  pl_status status = pl_reshape(sum, shape->rank, shape->size, &shaped);
  pl_tensor_release(sum);
  PL_TRY(status);
  status = pl_convert_to(shaped, shape->dtype, pl_tensor_device(shaped), out);
  pl_tensor_release(shaped);
  return status;
}

pl_status pl_op_sum(const pl_call *call, pl_tensor *out[]) {
  return sum_scaled(call->tensor[0], call->axes, call->integer[0], false, out);
}

pl_status pl_op_mean(const pl_call *call, pl_tensor *out[]) {
  return sum_scaled(call->tensor[0], call->axes, call->integer[0], true, out);
}

/* The reduction of a in floating point (integers as float32) with its axes dropped, and the operand as it was taken. */
static pl_status real_reduction(const pl_call *call, pl_reduction kind, double factor, pl_tensor **operand,
                                pl_tensor **out) {
  pl_tensor *a = call->tensor[0];
  pl_dtype type = pl_dtype_is_float(a->array.dtype) ? a->array.dtype : PL_F32;
  PL_TRY(pl_convert_to(a, type, pl_tensor_device(a), operand));
  pl_status status = reduce(*operand, kind, factor, call->axes, type, out);
  if (status == PL_OK) status = drop_axes(out, call->axes, call->integer[0]);
  if (status != PL_OK) pl_tensor_release(*operand);
  return status;
}

/* Saves: the operand. da = 2 factor g (a - mean(a)), with the factor in node->number[0]. */
static pl_status var_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *a = NULL, *g = NULL, *scaled = NULL, *mean = NULL, *centred = NULL;
  pl_tensor *factor = pl_tensor_number(2 * node->number[0]);
  pl_status status = pl_saved(node, 0, &a);
  if (status == PL_OK) status = with_axes(node, gout[0], &g);
  if (status == PL_OK) status = pl_mul(g, factor, &scaled);
  if (status == PL_OK) status = sum_scaled(a, (unsigned)node->integer[0], true, true, &mean);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_sub, (pl_tensor *[3]){a, mean}, &centred);
  if (status == PL_OK) status = pl_mul(centred, scaled, &gin[0]);
  pl_tensor *const used[] = {a, g, scaled, mean, centred, factor};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}

pl_status pl_op_var(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *a;
  int64_t size[PL_RANK_MAX], fold = folded(&call->tensor[0]->array, call->axes, size);
  int64_t correction = call->integer[1];
  PL_REQUIRE(fold > correction, "var: %lld elements are too few for correction %lld", (long long)fold,
             (long long)correction);
  double factor = 1 / (double)(fold - correction);
  PL_TRY(real_reduction(call, PL_DEVIATIONS, factor, &a, out));
  pl_node *node;
  pl_record("var", var_back, &a, 1, out, 1, &node);
  if (node) {
    node->integer[0] = call->axes, node->number[0] = factor;
    pl_save(node, a);
  }
  pl_tensor_release(a);
  return PL_OK;
}

/* Saves: operand and result. Equal extremes share the gradient evenly. */
static pl_status extreme_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *a = NULL, *y = NULL, *g = NULL, *hit = NULL, *weight = NULL, *count = NULL, *share = NULL;
  pl_array shape = node->shape_in[0];
  pl_status status = pl_saved(node, 0, &a);
  if (status == PL_OK) status = pl_saved(node, 1, &y);
  if (status == PL_OK) status = with_axes(node, gout[0], &g);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_eq, (pl_tensor *[3]){a, y}, &hit);
  if (status == PL_OK) status = pl_convert_to(hit, shape.dtype, pl_tensor_device(hit), &weight);
  if (status == PL_OK) status = pl_sum(weight, (unsigned)node->integer[0], true, &count);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_div, (pl_tensor *[3]){g, count}, &share);
  if (status == PL_OK) status = pl_mul(weight, share, &gin[0]);
  pl_tensor *const used[] = {a, y, g, hit, weight, count, share};
  for (int i = 0; i < 7; i++) pl_tensor_release(used[i]);
  return status;
}

/* One dimension given: values and 1-based indices, and the gradient goes to the chosen element; else the value alone.
 */
static pl_status index_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *index = NULL, *g = NULL;
  PL_TRY(pl_saved(node, 0, &index));
  pl_status status = with_axes(node, gout[0], &g);
  int axis = __builtin_ctz((unsigned)node->integer[0]);
  if (status == PL_OK) status = pl_scattered(g, &node->shape_in[0], axis, index, &gin[0]);
  pl_tensor_release(index);
  pl_tensor_release(g);
  return status;
}

static pl_status extreme(const pl_call *call, bool largest, pl_tensor *out[]) {
  pl_tensor *a = call->tensor[0], *value, *index = NULL;
  unsigned axes = call->axes;
  bool one_axis = call->integer[1] != 0; /* a dimension was named */
  PL_REQUIRE(!one_axis || (axes & (axes - 1)) == 0, "%s: expected one dimension", largest ? "max" : "min");
  PL_TRY(reduce(a, largest ? PL_MAX : PL_MIN, 1, axes, a->array.dtype, &value));
  pl_node *node = NULL;
  if (one_axis) {
    pl_status status = reduce(a, largest ? PL_ARGMAX : PL_ARGMIN, 1, axes, PL_I64, &index);
    if (status != PL_OK) {
      pl_tensor_release(value);
      return status;
    }
  }
  pl_tensor *kept = pl_tensor_retain(value), *kept_index = index ? pl_tensor_retain(index) : NULL;
  pl_status status = drop_axes(&value, axes, call->integer[0]);
  if (status == PL_OK && index) status = drop_axes(&index, axes, call->integer[0]);
  if (status == PL_OK) {
    if (pl_dtype_is_float(a->array.dtype))
      pl_record(largest ? "max" : "min", one_axis ? index_back : extreme_back, &a, 1, &value, 1, &node);
    if (node) {
      node->integer[0] = axes;
      if (one_axis)
        pl_save(node, kept_index);
      else
        pl_save(node, a), pl_save(node, kept);
    }
    out[0] = value;
    out[1] = index;
  }
  pl_tensor_release(kept);
  pl_tensor_release(kept_index);
  return status;
}

pl_status pl_op_max(const pl_call *call, pl_tensor *out[]) { return extreme(call, true, out); }
pl_status pl_op_min(const pl_call *call, pl_tensor *out[]) { return extreme(call, false, out); }

static pl_status position(const pl_call *call, pl_reduction kind, pl_tensor *out[]) {
  pl_tensor *a = call->tensor[0], *index;
  unsigned axes = call->axes;
  if (call->integer[1]) {
    PL_TRY(reduce(a, kind, 1, axes, PL_I64, &index));
    PL_TRY(drop_axes(&index, axes, call->integer[0]));
  } else { /* over everything: the position in row-major order */
    pl_tensor *flat;
    PL_TRY(pl_reshape(a, 1, (int64_t[]){-1}, &flat));
    pl_status status = reduce(flat, kind, 1, 1, PL_I64, &index);
    pl_tensor_release(flat);
    PL_TRY(status);
    PL_TRY(drop_axes(&index, 1, false));
  }
  out[0] = index;
  return PL_OK;
}

pl_status pl_op_argmax(const pl_call *call, pl_tensor *out[]) { return position(call, PL_ARGMAX, out); }
pl_status pl_op_argmin(const pl_call *call, pl_tensor *out[]) { return position(call, PL_ARGMIN, out); }

/* Saves: operand and result. da = a g / y, and 0 where the norm is 0. */
static pl_status norm_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *a = NULL, *y = NULL, *ratio = NULL, *safe = NULL, *kept = NULL, *zero = pl_tensor_number(0);
  pl_status status = pl_saved(node, 0, &a);
  if (status == PL_OK) status = pl_saved(node, 1, &y);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_div, (pl_tensor *[3]){gout[0], y}, &ratio);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_where, (pl_tensor *[3]){y, ratio, zero}, &safe);
  if (status == PL_OK) status = with_axes(node, safe, &kept);
  if (status == PL_OK) status = pl_mul(a, kept, &gin[0]);
  pl_tensor *const used[] = {a, y, ratio, safe, kept, zero};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}

/* Euclidean norm over the dimensions given. */
pl_status pl_op_norm(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *a;
  PL_TRY(real_reduction(call, PL_EUCLIDEAN, 1, &a, out));
  pl_node *node;
  pl_record("norm", norm_back, &a, 1, out, 1, &node);
  if (node) {
    node->integer[0] = call->axes;
    pl_save(node, a);
    pl_save(node, *out);
  }
  pl_tensor_release(a);
  return PL_OK;
}

/* One slice of `t` along an axis, as an array. */
static pl_array slice(const pl_tensor *t, int axis, int64_t at) {
  pl_array view = t->array;
  view.offset += at * view.stride[axis];
  view.size[axis] = 1;
  return view;
}

/* Running sums along an axis, from the front, or from the back (which is the gradient of the former). */
static pl_status running(pl_tensor *a, int axis, bool from_back, pl_tensor **out) {
  pl_device *device = pl_tensor_device(a);
  bool real = pl_dtype_is_float(a->array.dtype);
  PL_TRY(pl_tensor_like(a, real ? a->array.dtype : PL_I64, out));
  int64_t n = a->array.size[axis];
  pl_status status = PL_OK;
  for (int64_t i = 0; i < n && status == PL_OK; i++) {
    int64_t at = from_back ? n - 1 - i : i;
    pl_array to = slice(*out, axis, at), from = slice(a, axis, at);
    pl_array before = slice(*out, axis, i == 0 ? at : from_back ? at + 1 : at - 1);
    const pl_array *in[PL_OPERANDS] = {&from, &before};
    status = i == 0 ? device->copy(device, &to, &from) : device->pointwise(device, PL_OP_add, PL_VALUE, &to, in);
  }
  if (status != PL_OK) pl_tensor_release(*out), *out = NULL;
  return status;
}

static pl_status cumsum_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  return running(gout[0], (int)node->integer[0], true, &gin[0]);
}

pl_status pl_op_cumsum(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *a = call->tensor[0];
  PL_TRY(running(a, (int)call->integer[0], false, out));
  if (!pl_dtype_is_float(a->array.dtype)) return PL_OK;
  pl_node *node;
  pl_record("cumsum", cumsum_back, &a, 1, out, 1, &node);
  if (node) node->integer[0] = call->integer[0];
  return PL_OK;
}
