/* Softmax and its relatives, layer norm and RMS norm, dropout, cross-entropy. */
#include "host/tensor/operations.h"

#include <math.h>
#include <string.h>

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
  return PL_OK;
}

/* 1 / sqrt(mean(u^2) + epsilon), u [.., D] -> [.., 1] */
static pl_status inverse_root(pl_tensor *u, double epsilon, pl_tensor **out) {
  pl_tensor *square = NULL, *mean = NULL, *shifted = NULL, *number = pl_tensor_number(epsilon);
  int last = u->array.rank - 1;
  pl_tensor *sum = NULL, *count = pl_tensor_number(1 / (double)u->array.size[last]);
  pl_status status = pl_pointwise_run(PL_OP_square, (pl_tensor *[3]){u}, &square);
  if (status == PL_OK) status = pl_sum(square, 1u << last, true, &sum);
  if (status == PL_OK) status = pl_mul(sum, count, &mean);
  if (status == PL_OK) status = pl_add(mean, number, &shifted);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_rsqrt, (pl_tensor *[3]){shifted}, out);
  pl_tensor *const used[] = {square, sum, mean, shifted, number, count};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}

static pl_status last_mean(pl_tensor *t, pl_tensor **out) {
  pl_tensor *sum, *count = pl_tensor_number(1 / (double)t->array.size[t->array.rank - 1]);
  pl_status status = pl_sum(t, 1u << (t->array.rank - 1), true, &sum);
  if (status == PL_OK) {
    status = pl_mul(sum, count, out);
    pl_tensor_release(sum);
  }
  pl_tensor_release(count);
  return status;
}

/* dx = r (h - [mean(h)] - n mean(h n)) with h = g weight, n the normalised input, r the inverse root; the mean in
 * brackets only where the input was centred. */
static pl_status input_gradient(pl_tensor *h, pl_tensor *n, pl_tensor *r, bool centred, pl_tensor **out) {
  pl_tensor *hn = NULL, *along = NULL, *back = NULL, *mean = NULL, *rest = NULL, *whole = NULL;
  pl_status status = pl_mul(h, n, &hn);
  if (status == PL_OK) status = last_mean(hn, &along);
  if (status == PL_OK) status = pl_mul(n, along, &back);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_sub, (pl_tensor *[3]){h, back}, &rest);
  if (status == PL_OK && centred) {
    status = last_mean(h, &mean);
    if (status == PL_OK) status = pl_pointwise_run(PL_OP_sub, (pl_tensor *[3]){rest, mean}, &whole);
  }
  if (status == PL_OK) status = pl_mul(whole ? whole : rest, r, out);
  pl_tensor *const used[] = {hn, along, back, mean, rest, whole};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}

/* Inputs x, weight, bias. Saves n, r, weight (or nothing in its place). node->integer[0]: centred. */
static pl_status norm_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *n = NULL, *r = NULL, *weight = NULL, *h = NULL, *scaled = NULL, *whole = NULL, *g = gout[0];
  pl_status status = pl_saved(node, 0, &n);
  if (status == PL_OK) status = pl_saved(node, 1, &r);
  if (status == PL_OK) status = pl_saved(node, 2, &weight);
  bool weighted = weight && weight->array.buffer;
  if (status == PL_OK && pl_needs(node, 0)) {
    status = weighted ? pl_mul(g, weight, &h) : (h = pl_tensor_retain(g), PL_OK);
    if (status == PL_OK) status = input_gradient(h, n, r, node->integer[0], &whole);
    if (status == PL_OK) status = pl_convert_to(whole, node->shape_in[0].dtype, pl_tensor_device(g), &gin[0]);
  }
  if (status == PL_OK && pl_needs(node, 1)) {
    status = pl_mul(g, n, &scaled);
    if (status == PL_OK) status = pl_sum_to(scaled, &node->shape_in[1], &gin[1]);
  }
  if (status == PL_OK && pl_needs(node, 2)) status = pl_sum_to(g, &node->shape_in[2], &gin[2]);
  pl_tensor *const used[] = {n, r, weight, h, scaled, whole};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}

/* The work of both norms, outside the graph: n and r always, the result with weight and bias applied. */
static pl_status normalise(pl_tensor *x, pl_tensor *weight, pl_tensor *bias, double epsilon, bool centred,
                           pl_tensor **n, pl_tensor **r, pl_tensor **out) {
  pl_tensor *mean = NULL, *u = NULL, *scaled = NULL;
  pl_status status = PL_OK;
  if (centred) {
    status = last_mean(x, &mean);
    if (status == PL_OK) status = pl_pointwise_run(PL_OP_sub, (pl_tensor *[3]){x, mean}, &u);
  } else
    u = pl_tensor_retain(x);
  if (status == PL_OK) status = inverse_root(u, epsilon, r);
  if (status == PL_OK) status = pl_mul(u, *r, n);
  if (status == PL_OK) status = weight ? pl_mul(*n, weight, &scaled) : (scaled = pl_tensor_retain(*n), PL_OK);
  if (status == PL_OK) status = bias ? pl_add(scaled, bias, out) : (*out = pl_tensor_retain(scaled), PL_OK);
  pl_tensor *const used[] = {mean, u, scaled};
  for (int i = 0; i < 3; i++) pl_tensor_release(used[i]);
  return status;
}

static pl_status norm(const char *name, const pl_call *call, bool centred, pl_tensor *out[]) {
  pl_tensor *x = call->tensor[0], *weight = call->tensor[1], *bias = centred ? call->tensor[2] : NULL;
  PL_REQUIRE(x->array.rank > 0 && pl_dtype_is_float(x->array.dtype),
             "%s: expected a floating-point tensor of at least one dimension, got %s %s", name,
             pl_dtype_name(x->array.dtype), pl_shape_text(&x->array));
  PL_TRY(check_affine(name, "weight", x, weight));
  PL_TRY(check_affine(name, "bias", x, bias));
  pl_tensor *n = NULL, *r = NULL, *y = NULL;
  bool was = pl_set_recording(false);
  pl_status status = normalise(x, weight, bias, call->number[0], centred, &n, &r, &y);
  pl_set_recording(was);
  if (status == PL_OK) {
    pl_tensor *own = y;
    if (y == n) { /* without weight and bias the result is n itself: give the graph its own handle */
      own = pl_tensor_alias(&n->array);
      pl_tensor_release(y);
    }
    pl_node *node;
    pl_record(name, norm_back, (pl_tensor *[]){x, weight, bias}, 3, &own, 1, &node);
    if (node) {
      pl_tensor nothing = {.array = pl_array_number(0)};
      node->integer[0] = centred;
      pl_save(node, n);
      pl_save(node, r);
      pl_save(node, weight ? weight : &nothing);
    }
    *out = own;
  } else
    pl_tensor_release(y);
  pl_tensor_release(n);
  pl_tensor_release(r);
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

/* ---- cross-entropy ---- */

/* Gradient of the per-row loss: g (softmax - target), target the smoothed one-hot label, zero for ignored rows. Saves
 * the log-softmax [M, C], labels [M, 1] (ignored ones as 1) and weights [M, 1] (0 for ignored rows). number[0]:
 * smoothing. */
static pl_status cross_entropy_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *y = NULL, *labels = NULL, *weights = NULL, *soft = NULL, *part = NULL, *flat = NULL, *rows = NULL;
  pl_tensor *minus = NULL, *scaled = NULL, *shifted = NULL;
  pl_device *device = pl_tensor_device(gout[0]);
  double smoothing = node->number[0];
  pl_status status = pl_saved(node, 0, &y);
  if (status == PL_OK) status = pl_saved(node, 1, &labels);
  if (status == PL_OK) status = pl_saved(node, 2, &weights);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_exp, (pl_tensor *[3]){y}, &soft);
  if (status == PL_OK && smoothing > 0) {
    pl_tensor *even = pl_tensor_number(smoothing / (double)y->array.size[1]);
    status = pl_pointwise_run(PL_OP_sub, (pl_tensor *[3]){soft, even}, &shifted);
    pl_tensor_release(even);
  }
  pl_tensor *target = shifted ? shifted : soft;
  if (status == PL_OK)
    status = pl_filled(device, y->array.dtype, 2, (int64_t[]){y->array.size[0], 1}, smoothing - 1, &minus);
  if (status == PL_OK) status = device->scatter(device, &target->array, 1, &labels->array, &minus->array);
  if (status == PL_OK) status = pl_reshape(gout[0], 2, (int64_t[]){-1, 1}, &rows);
  if (status == PL_OK) status = pl_mul(rows, weights, &scaled);
  if (status == PL_OK) status = pl_mul(target, scaled, &flat);
  if (status == PL_OK) status = pl_convert_to(flat, node->shape_in[0].dtype, device, &part);
  if (status == PL_OK) status = pl_reshape(part, node->shape_in[0].rank, node->shape_in[0].size, &gin[0]);
  pl_tensor *const used[] = {y, labels, weights, soft, part, flat, rows, minus, scaled, shifted};
  for (int i = 0; i < 10; i++) pl_tensor_release(used[i]);
  return status;
}

/* Labels as [M, 1] with ignored ones replaced by 1, and weights [M, 1]: 0 for those, else 1. */
static pl_status split_labels(pl_tensor *labels, bool ignoring, int64_t ignored, pl_dtype type, pl_tensor **safe,
                              pl_tensor **weights) {
  pl_tensor *column, *keep;
  pl_device *device = pl_tensor_device(labels);
  PL_TRY(pl_reshape(labels, 2, (int64_t[]){-1, 1}, &column));
  if (!ignoring) {
    *safe = column;
    return pl_filled(device, type, 2, column->array.size, 1, weights);
  }
  pl_tensor *number = pl_tensor_integer(ignored), *one = pl_tensor_integer(1);
  pl_status status = pl_pointwise_run(PL_OP_ne, (pl_tensor *[3]){column, number}, &keep);
  if (status == PL_OK) {
    status = pl_pointwise_run(PL_OP_where, (pl_tensor *[3]){keep, column, one}, safe);
    if (status == PL_OK) status = pl_convert_to(keep, type, device, weights);
    pl_tensor_release(keep);
  }
  pl_tensor_release(number);
  pl_tensor_release(one);
  pl_tensor_release(column);
  return status;
}

/* The loss of every row, outside the graph: -((1 - s) y[label] + s mean(y)) weight. */
static pl_status row_losses(pl_tensor *y, pl_tensor *labels, pl_tensor *weights, double smoothing, pl_tensor **out) {
  pl_tensor *picked = NULL, *minus = NULL, *mean = NULL, *even = NULL, *sum = NULL;
  pl_tensor *factor = pl_tensor_number(smoothing - 1), *share = pl_tensor_number(-smoothing);
  pl_device *device = pl_tensor_device(y);
  pl_status status = pl_tensor_new(device, y->array.dtype, 2, labels->array.size, &picked);
  if (status == PL_OK) status = device->gather(device, &picked->array, &y->array, 1, &labels->array);
  if (status == PL_OK) status = pl_mul(picked, factor, &minus);
  if (status == PL_OK && smoothing > 0) {
    status = last_mean(y, &mean);
    if (status == PL_OK) status = pl_mul(mean, share, &even);
    if (status == PL_OK) status = pl_add(minus, even, &sum);
  }
  if (status == PL_OK) status = pl_mul(sum ? sum : minus, weights, out);
  pl_tensor *const used[] = {picked, minus, mean, even, sum, factor, share};
  for (int i = 0; i < 7; i++) pl_tensor_release(used[i]);
  return status;
}

/* logits [.., C], labels [..] of 1..C -> losses [..]. Averages are taken by the caller's reduction of losses over
 * weights. */
pl_status pl_op_cross_entropy(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *logits = call->tensor[0], *labels = call->tensor[1];
  pl_tensor *wide = NULL, *flat = NULL, *y = NULL, *safe = NULL, *weights = NULL, *column = NULL, *losses = NULL;
  int last = logits->array.rank - 1;
  double smoothing = call->number[0];
  PL_REQUIRE(last >= 0 && pl_dtype_is_float(logits->array.dtype),
             "cross_entropy: logits: expected a floating-point [.., classes], got %s %s",
             pl_dtype_name(logits->array.dtype), pl_shape_text(&logits->array));
  PL_REQUIRE(logits->array.size[last] > 0, "cross_entropy: logits: expected at least one class, got shape %s",
             pl_shape_text(&logits->array));
  PL_REQUIRE(pl_tensor_device(logits) == pl_tensor_device(labels), "cross_entropy: logits are on %s, labels on %s",
             pl_tensor_device(logits)->name, pl_tensor_device(labels)->name);
  PL_REQUIRE(!pl_dtype_is_float(labels->array.dtype) && labels->array.dtype != PL_BOOL,
             "cross_entropy: labels: expected int64 class numbers from 1, got %s", pl_dtype_name(labels->array.dtype));
  PL_REQUIRE(labels->array.rank == last &&
                 memcmp(labels->array.size, logits->array.size, sizeof(int64_t) * (size_t)last) == 0,
             "cross_entropy: labels: expected the shape of logits without the last dimension, got %s for %s",
             pl_shape_text(&labels->array), pl_shape_text(&logits->array));
  PL_REQUIRE(smoothing >= 0 && smoothing < 1, "cross_entropy: label_smoothing: expected 0 <= s < 1, got %g", smoothing);
  pl_device *device = pl_tensor_device(logits);
  bool was = pl_set_recording(false);
  pl_status status = pl_convert_to(logits, logits->array.dtype == PL_F64 ? PL_F64 : PL_F32, device, &wide);
  if (status == PL_OK) status = pl_reshape(wide, 2, (int64_t[]){-1, logits->array.size[last]}, &flat);
  if (status == PL_OK) status = softmax("log_softmax", flat, 1, PL_LOG_SOFTMAX, &y);
  if (status == PL_OK)
    status = split_labels(labels, call->integer[1] != 0, call->integer[0], y->array.dtype, &safe, &weights);
  if (status == PL_OK) status = row_losses(y, safe, weights, smoothing, &column);
  if (status == PL_OK) status = pl_reshape(column, last, logits->array.size, &losses);
  pl_set_recording(was);
  if (status == PL_OK) {
    pl_node *node;
    pl_record("cross_entropy", cross_entropy_back, &logits, 1, &losses, 1, &node);
    if (node) {
      node->number[0] = smoothing;
      pl_save(node, y);
      pl_save(node, safe);
      pl_save(node, weights);
    }
    *out = losses;
  }
  pl_tensor *const used[] = {wide, flat, y, safe, weights, column};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}
