/* Softmax and its relatives, layer norm and RMS norm, dropout. */
#include "host/tensor/operations.h"

#include <math.h>

/* ---- softmax ---- */

/* Saves the result. node->integer: axis, kind. */
static pl_status softmax_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *y;
  pl_device *device = pl_tensor_device(gout[0]);
  PL_TRY(pl_saved(node, 0, &y));
  pl_status status = pl_tensor_like(y, y->array.dtype, &gin[0]);
  if (status == PL_OK)
    status = device->softmax_gradient(device, (pl_softmax_kind)node->integer[1], &gin[0]->array, &y->array,
                                      &gout[0]->array, (int)node->integer[0]);
  pl_tensor_release(y);
  return status;
}

static pl_status softmax(const char *name, pl_tensor *a, int axis, pl_softmax_kind kind, pl_tensor **out) {
  pl_device *device = pl_tensor_device(a);
  PL_REQUIRE(pl_dtype_is_float(a->array.dtype), "%s: expected a floating-point type, got %s", name,
             pl_dtype_name(a->array.dtype));
  pl_tensor *y;
  PL_TRY(pl_tensor_like(a, a->array.dtype, &y));
  pl_status status = device->softmax(device, kind, &y->array, &a->array, axis);
  if (status != PL_OK) {
    pl_tensor_release(y);
    return status;
  }
  pl_node *node;
  pl_record(name, softmax_back, &a, 1, &y, 1, &node);
  if (node) {
    node->integer[0] = axis;
    node->integer[1] = kind;
    pl_save(node, y);
  }
  *out = y;
  return PL_OK;
}

pl_status pl_op_softmax(const pl_call *call, pl_tensor *out[]) {
  return softmax("softmax", call->tensor[0], (int)call->integer[0], PL_SOFTMAX, out);
}

pl_status pl_op_log_softmax(const pl_call *call, pl_tensor *out[]) {
  return softmax("log_softmax", call->tensor[0], (int)call->integer[0], PL_LOG_SOFTMAX, out);
}

/* The largest along the axes, kept, outside the graph; 0 in place of an infinite one. */
static pl_status finite_top(pl_tensor *a, unsigned axes, pl_tensor **out) {
  pl_tensor *two[2] = {0}, *size = NULL, *below = NULL;
  pl_tensor *infinity = pl_tensor_number(INFINITY), *zero = pl_tensor_integer(0);
  bool was = pl_set_recording(false);
  pl_status status = pl_op_max(&(pl_call){.tensor = {a}, .integer = {1, 0}, .axes = axes}, two);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_abs, (pl_tensor *[3]){two[0]}, &size);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_lt, (pl_tensor *[3]){size, infinity}, &below);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_where, (pl_tensor *[3]){below, two[0], zero}, out);
  pl_set_recording(was);
  pl_tensor *const used[] = {two[0], size, below, infinity, zero};
  for (int i = 0; i < 5; i++) pl_tensor_release(used[i]);
  return status;
}

/* log(sum(exp(a))) = m + log(sum(exp(a - m))), m the largest, which carries no gradient. */
pl_status pl_op_logsumexp(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *a = call->tensor[0], *part[6] = {0};
  pl_tensor **top = &part[0], **shifted = &part[1], **power = &part[2], **sum = &part[3], **log = &part[4];
  pl_status status = finite_top(a, call->axes, top);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_sub, (pl_tensor *[3]){a, *top}, shifted);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_exp, (pl_tensor *[3]){*shifted}, power);
  if (status == PL_OK) status = pl_sum(*power, call->axes, call->integer[0], sum);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_log, (pl_tensor *[3]){*sum}, log);
  if (status == PL_OK) status = pl_reshape(*top, (*log)->array.rank, (*log)->array.size, &part[5]);
  if (status == PL_OK) status = pl_add(*log, part[5], out);
  for (int i = 0; i < 6; i++) pl_tensor_release(part[i]);
  return status;
}

/* ---- layer norm and RMS norm over the last axis ---- */

static pl_status check_affine(const char *name, const char *what, const pl_tensor *x, const pl_tensor *t) {
  PL_REQUIRE(!t || pl_dtype_is_float(t->array.dtype), "%s: %s: expected a floating-point type, got %s", name, what,
             pl_dtype_name(t->array.dtype));
  PL_REQUIRE(!t || (t->array.rank == 1 && t->array.size[0] == x->array.size[x->array.rank - 1]),
             "%s: %s: expected [%lld], got %s", name, what, (long long)x->array.size[x->array.rank - 1],
             pl_shape_text(&t->array));
  PL_REQUIRE(!t || pl_tensor_device(t) == pl_tensor_device(x), "%s: operands are on different devices: %s and %s", name,
             pl_tensor_device(x)->name, pl_tensor_device(t)->name);
  return PL_OK;
}

/* `t` [.., D] as [rows, D] with stride 1 along the rows: a view where the strides allow. Outside the graph. */
static pl_status rows_of(pl_tensor *t, pl_tensor **out) {
  int64_t length = t->array.size[t->array.rank - 1], size[] = {1, length};
  for (int i = 0; i < t->array.rank - 1; i++) size[0] *= t->array.size[i];
  pl_tensor *flat;
  PL_TRY(pl_reshape(t, 2, size, &flat));
  if (length <= 1 || flat->array.stride[1] == 1) {
    *out = flat;
    return PL_OK;
  }
  pl_status status = pl_contiguous(flat, out);
  pl_tensor_release(flat);
  return status;
}

/* A contiguous [.., D] as [rows, D]. */
static pl_array packed_rows(const pl_tensor *t, const pl_tensor *rows) {
  pl_array view = t->array;
  view.rank = 2;
  for (int i = 0; i < 2; i++) view.size[i] = rows->array.size[i];
  pl_array_pack(&view);
  return view;
}

/* Inputs x, weight, bias. Saves x as rows, scale, mean (or nothing in its place), weight (likewise).
 * node->integer[0]: centred. */
static pl_status norm_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *saved[4] = {0}, *g = NULL, *made[3] = {0};
  pl_device *device = pl_tensor_device(gout[0]);
  pl_status status = rows_of(gout[0], &g);
  for (int i = 0; i < 4 && status == PL_OK; i++) status = pl_saved(node, i, &saved[i]);
  pl_tensor *sum = pl_gradient_so_far(node, 0);
  bool adding = sum && sum->array.dtype == node->shape_in[0].dtype;
  if (adding) made[0] = pl_tensor_retain(sum);
  for (int i = 0; i < 3 && status == PL_OK; i++)
    if (pl_needs(node, i) && !made[i])
      status = pl_tensor_new(device, node->shape_in[i].dtype, node->shape_in[i].rank, node->shape_in[i].size, &made[i]);
  if (status == PL_OK) {
    pl_norm norm = {.x = &saved[0]->array,
                    .weight = saved[3]->array.buffer ? &saved[3]->array : NULL,
                    .centred = node->integer[0],
                    .adding = adding};
    pl_array gx;
    if (made[0]) gx = packed_rows(made[0], g);
    status = device->norm_gradient(device, &norm, &saved[2]->array, &saved[1]->array, &g->array, made[0] ? &gx : NULL,
                                   made[1] ? &made[1]->array : NULL, made[2] ? &made[2]->array : NULL);
  }
  for (int i = 0; i < 3; i++)
    if (status == PL_OK)
      gin[i] = made[i];
    else
      pl_tensor_release(made[i]);
  for (int i = 0; i < 4; i++) pl_tensor_release(saved[i]);
  pl_tensor_release(g);
  return status;
}

/* What a norm reads and makes: counts of its own. */
typedef struct {
  pl_tensor *x, *weight, *bias; /* x as rows; weight and bias contiguous, or NULL */
  pl_tensor *mean, *scale, *y;  /* mean only where centred */
} norm_parts;

static pl_status prepare(const pl_call *call, bool centred, norm_parts *parts) {
  pl_tensor *x = call->tensor[0], *weight = call->tensor[1], *bias = centred ? call->tensor[2] : NULL;
  pl_device *device = pl_tensor_device(x);
  pl_dtype type = x->array.dtype;
  if (weight) type = pl_dtype_promote(type, weight->array.dtype);
  if (bias) type = pl_dtype_promote(type, bias->array.dtype);
  pl_dtype statistics = type == PL_F64 ? PL_F64 : PL_F32;
  PL_TRY(rows_of(x, &parts->x));
  if (weight) PL_TRY(pl_contiguous(weight, &parts->weight));
  if (bias) PL_TRY(pl_contiguous(bias, &parts->bias));
  if (centred) PL_TRY(pl_tensor_new(device, statistics, 1, parts->x->array.size, &parts->mean));
  PL_TRY(pl_tensor_new(device, statistics, 1, parts->x->array.size, &parts->scale));
  return pl_tensor_like(x, type, &parts->y);
}

static pl_status run_norm(const norm_parts *parts, double epsilon) {
  pl_device *device = pl_tensor_device(parts->y);
  pl_array y = packed_rows(parts->y, parts->x);
  pl_norm norm = {.x = &parts->x->array,
                  .weight = parts->weight ? &parts->weight->array : NULL,
                  .bias = parts->bias ? &parts->bias->array : NULL,
                  .epsilon = epsilon,
                  .centred = parts->mean != NULL};
  return device->norm(device, &norm, &y, parts->mean ? &parts->mean->array : NULL, &parts->scale->array);
}

static pl_status norm(const char *name, const pl_call *call, bool centred, pl_tensor *out[]) {
  pl_tensor *x = call->tensor[0], *weight = call->tensor[1], *bias = centred ? call->tensor[2] : NULL;
  PL_REQUIRE(x->array.rank > 0 && pl_dtype_is_float(x->array.dtype),
             "%s: expected a floating-point tensor of at least one dimension, got %s %s", name,
             pl_dtype_name(x->array.dtype), pl_shape_text(&x->array));
  PL_TRY(check_affine(name, "weight", x, weight));
  PL_TRY(check_affine(name, "bias", x, bias));
  norm_parts parts = {0};
  bool was = pl_set_recording(false);
  pl_status status = prepare(call, centred, &parts);
  if (status == PL_OK) status = run_norm(&parts, call->number[0]);
  pl_set_recording(was);
  if (status == PL_OK) {
    pl_node *node;
    pl_record(name, norm_back, (pl_tensor *[]){x, weight, bias}, 3, &parts.y, 1, &node);
    if (node) {
      pl_tensor nothing = {.array = pl_array_number(0)};
      node->integer[0] = centred;
      pl_save(node, parts.x);
      pl_save(node, parts.scale);
      pl_save(node, parts.mean ? parts.mean : &nothing);
      pl_save(node, parts.weight ? parts.weight : &nothing);
    }
    *out = pl_tensor_retain(parts.y);
  }
  pl_tensor *const used[] = {parts.x, parts.weight, parts.bias, parts.mean, parts.scale, parts.y};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}

pl_status pl_op_layer_norm(const pl_call *call, pl_tensor *out[]) { return norm("layer_norm", call, true, out); }
pl_status pl_op_rms_norm(const pl_call *call, pl_tensor *out[]) { return norm("rms_norm", call, false, out); }

/* ---- dropout ---- */

pl_status pl_op_dropout(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *x = call->tensor[0], *mask, *scaled;
  double p = call->number[0];
  PL_REQUIRE(p >= 0 && p <= 1, "dropout: p: expected 0 <= p <= 1, got %g", p);
  PL_REQUIRE(pl_dtype_is_float(x->array.dtype), "dropout: expected a floating-point type, got %s",
             pl_dtype_name(x->array.dtype));
  PL_TRY(pl_random(pl_tensor_device(x), x->array.dtype, x->array.rank, x->array.size, PL_BERNOULLI, 1 - p, 0, &mask));
  pl_tensor *factor = pl_tensor_number(p < 1 ? 1 / (1 - p) : 0);
  pl_status status = pl_mul(mask, factor, &scaled);
  pl_tensor_release(mask);
  pl_tensor_release(factor);
  PL_TRY(status);
  status = pl_mul(x, scaled, out);
  pl_tensor_release(scaled);
  return status;
}
