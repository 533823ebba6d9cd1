/* Cross-entropy. */
#include "host/tensor/operations.h"

#include <string.h>

/* node->integer: whether rows are ignored, and the label of those. node->number[0]: smoothing. */
static pl_cross_entropy described(const pl_node *node, const pl_tensor *logits, const pl_tensor *labels) {
  return (pl_cross_entropy){.logits = &logits->array,
                            .labels = &labels->array,
                            .ignoring = node->integer[0],
                            .ignored = node->integer[1],
                            .smoothing = node->number[0]};
}

/* Saves logits [rows, C], labels [rows] and the logarithm of each row's sum of exponentials [rows]. */
static pl_status cross_entropy_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *logits = NULL, *labels = NULL, *shift = NULL, *g = NULL, *made = NULL;
  pl_device *device = pl_tensor_device(gout[0]);
  pl_status status = pl_saved(node, 0, &logits);
  if (status == PL_OK) status = pl_saved(node, 1, &labels);
  if (status == PL_OK) status = pl_saved(node, 2, &shift);
  if (status == PL_OK) status = pl_reshape(gout[0], 1, shift->array.size, &g);
  if (status == PL_OK) status = pl_tensor_new(device, logits->array.dtype, 2, logits->array.size, &made);
  if (status == PL_OK) {
    pl_cross_entropy entropy = described(node, logits, labels);
    status = device->cross_entropy_gradient(device, &entropy, &shift->array, &g->array, &made->array);
  }
  if (status == PL_OK) status = pl_reshape(made, node->shape_in[0].rank, node->shape_in[0].size, &gin[0]);
  pl_tensor *const used[] = {logits, labels, shift, g, made};
  for (int i = 0; i < 5; i++) pl_tensor_release(used[i]);
  return status;
}

static pl_status check_arguments(const pl_tensor *logits, const pl_tensor *labels, double smoothing) {
  int last = logits->array.rank - 1;
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
  return PL_OK;
}

/* [rows, C] with stride 1 along the rows. */
static pl_status logits_as_rows(pl_tensor *logits, int64_t rows, int64_t classes, pl_tensor **out) {
  pl_tensor *flat;
  PL_TRY(pl_reshape(logits, 2, (int64_t[]){rows, classes}, &flat));
  pl_status status =
      classes == 1 || flat->array.stride[1] == 1 ? (*out = pl_tensor_retain(flat), PL_OK) : pl_contiguous(flat, out);
  pl_tensor_release(flat);
  return status;
}

static pl_status labels_as_rows(pl_tensor *labels, int64_t rows, pl_tensor **out) {
  pl_tensor *flat;
  PL_TRY(pl_reshape(labels, 1, &rows, &flat));
  pl_status status = pl_contiguous(flat, out);
  pl_tensor_release(flat);
  return status;
}

/* logits [.., C], labels [..] of 1..C -> losses [..], in float32 or wider. Averages are taken by the caller's reduction
 * of losses over the rows that count. */
pl_status pl_op_cross_entropy(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *logits = call->tensor[0], *labels = call->tensor[1];
  PL_TRY(check_arguments(logits, labels, call->number[0]));
  pl_device *device = pl_tensor_device(logits);
  int last = logits->array.rank - 1;
  int64_t classes = logits->array.size[last], rows = pl_tensor_count(labels);
  pl_dtype type = logits->array.dtype == PL_F64 ? PL_F64 : PL_F32;
  pl_tensor *flat = NULL, *column = NULL, *shift = NULL, *losses = NULL;
  bool was = pl_set_recording(false);
  pl_status status = logits_as_rows(logits, rows, classes, &flat);
  if (status == PL_OK) status = labels_as_rows(labels, rows, &column);
  if (status == PL_OK) status = pl_tensor_new(device, type, 1, &rows, &shift);
  if (status == PL_OK) status = pl_tensor_new(device, type, last, logits->array.size, &losses);
  if (status == PL_OK) {
    pl_cross_entropy entropy = {.logits = &flat->array,
                                .labels = &column->array,
                                .ignoring = call->integer[1] != 0,
                                .ignored = call->integer[0],
                                .smoothing = call->number[0]};
    pl_array of_rows = losses->array;
    of_rows.rank = 1, of_rows.size[0] = rows, of_rows.stride[0] = 1;
    status = device->cross_entropy(device, &entropy, &of_rows, &shift->array);
  }
  pl_set_recording(was);
  if (status == PL_OK) {
    pl_node *node;
    pl_record("cross_entropy", cross_entropy_back, &logits, 1, &losses, 1, &node);
    if (node) {
      node->integer[0] = call->integer[1];
      node->integer[1] = call->integer[0];
      node->number[0] = call->number[0];
      pl_save(node, flat);
      pl_save(node, column);
      pl_save(node, shift);
    }
    *out = pl_tensor_retain(losses);
  }
  pl_tensor *const used[] = {flat, column, shift, losses};
  for (int i = 0; i < 4; i++) pl_tensor_release(used[i]);
  return status;
}
