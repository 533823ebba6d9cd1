/* Attention as one operation, whose scores [B,H,T,S] are never all in memory where the device's kernels take it. */
#include "host/tensor/operations.h"

#include <math.h>
#include <string.h>

static pl_status check_arguments(const pl_tensor *q, const pl_tensor *k, const pl_tensor *v, bool causal,
                                 double scale) {
  static const char *const name[] = {"query", "key", "value"};
  const pl_tensor *const given[] = {q, k, v};
  for (int i = 0; i < 3; i++) {
    const pl_array *t = &given[i]->array;
    PL_REQUIRE(t->rank == 4 && pl_dtype_is_float(t->dtype),
               "scaled_dot_product_attention: %s: expected floating-point [B, H, positions, D], got %s %s", name[i],
               pl_dtype_name(t->dtype), pl_shape_text(t));
    PL_REQUIRE(t->dtype == q->array.dtype, "scaled_dot_product_attention: %s is %s, query %s", name[i],
               pl_dtype_name(t->dtype), pl_dtype_name(q->array.dtype));
    PL_REQUIRE(pl_tensor_device(given[i]) == pl_tensor_device(q),
               "scaled_dot_product_attention: %s is on %s, query on %s", name[i], pl_tensor_device(given[i])->name,
               pl_tensor_device(q)->name);
    for (int axis = 0; axis < 4; axis++)
      PL_REQUIRE(axis == 2 || t->size[axis] == q->array.size[axis],
                 "scaled_dot_product_attention: %s: expected the query's B, H and D, got %s for %s", name[i],
                 pl_shape_text(t), pl_shape_text(&q->array));
  }
  int64_t queries = q->array.size[2], keys = k->array.size[2];
  PL_REQUIRE(v->array.size[2] == keys,
             "scaled_dot_product_attention: value: expected a position for each of key, "
             "got %s for %s",
             pl_shape_text(&v->array), pl_shape_text(&k->array));
  PL_REQUIRE(q->array.size[3] > 0, "scaled_dot_product_attention: query: expected at least one feature, got %s",
             pl_shape_text(&q->array));
  PL_REQUIRE(keys > 0, "scaled_dot_product_attention: key: expected at least one position, got %s",
             pl_shape_text(&k->array));
  PL_REQUIRE(!causal || queries <= keys,
             "scaled_dot_product_attention: causal: expected as many positions of key as of query or more, got %s for "
             "%s",
             pl_shape_text(&k->array), pl_shape_text(&q->array));
  PL_REQUIRE(!isinf(scale), "scaled_dot_product_attention: scale: expected a finite number, got %g", scale);
  return PL_OK;
}

/* ---- in one primitive ---- */

/* `t` [B,H,rows,D] as the primitives take it: itself where its strides allow, else a copy. Outside the graph. */
static pl_status arranged(pl_tensor *t, pl_tensor **out) {
  const pl_array *array = &t->array;
  int64_t each = (int64_t)pl_dtype_size(array->dtype), row = array->size[3] * each;
  int64_t unit = row % 16 == 0 ? 16 : each; /* bytes */
  bool fits = array->stride[3] == 1 && (int64_t)((uintptr_t)pl_array_data(array) % 16) % unit == 0;
  for (int axis = 0; axis < 3; axis++) fits = fits && array->stride[axis] * each % unit == 0;
  if (fits) {
    *out = pl_tensor_retain(t);
    return PL_OK;
  }
  return pl_clone(t, out);
}

/* A new [B,H,rows,D] whose heads lie side by side, [B,rows,H,D] in memory: joining them is a view. */
static pl_status new_heads(pl_device *device, const pl_array *shape, pl_tensor **out) {
  pl_tensor *memory;
  const int64_t *size = shape->size;
  PL_TRY(pl_tensor_new(device, shape->dtype, 4, (int64_t[]){size[0], size[2], size[1], size[3]}, &memory));
  pl_status status = pl_transpose(memory, 1, 2, out);
  pl_tensor_release(memory);
  return status;
}

/* The gradients of the inputs that need one. Those of query, key and value of one length lie side by side, in memory
 * [B,T,3,H,D]: where all three were pieces of one tensor, that is its gradient. */
static pl_status new_gradients(const pl_node *node, pl_device *device, pl_tensor *gin[3]) {
  const pl_array *shape = node->shape_in;
  const int64_t *size = shape[0].size, joined = 3 * size[1] * size[3];
  if (!pl_needs(node, 0) || !pl_needs(node, 1) || !pl_needs(node, 2) || !pl_array_same_shape(&shape[0], &shape[1])) {
    for (int i = 0; i < 3; i++)
      if (pl_needs(node, i)) PL_TRY(new_heads(device, &shape[i], &gin[i]));
    return PL_OK;
  }
  pl_tensor *memory;
  PL_TRY(pl_tensor_new(device, shape[0].dtype, 3, (int64_t[]){size[0], size[2], joined}, &memory));
  for (int i = 0; i < 3; i++) {
    pl_array view = {.buffer = memory->array.buffer,
                     .dtype = shape[0].dtype,
                     .rank = 4,
                     .size = {size[0], size[1], size[2], size[3]},
                     .stride = {size[2] * joined, size[3], joined, 1},
                     .offset = i * size[1] * size[3]};
    gin[i] = pl_tensor_alias(&view);
  }
  pl_tensor_release(memory);
  return PL_OK;
}

/* Inputs query, key, value. Saves them as they were read, the result and the logarithms of the sums.
 * node->integer[0]: causal; number[0]: scale. */
static pl_status attention_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  enum { SAVES = 5 };
  pl_tensor *saved[SAVES] = {0}, *g = NULL;
  pl_device *device = pl_tensor_device(gout[0]);
  pl_status status = arranged(gout[0], &g);
  for (int i = 0; i < SAVES && status == PL_OK; i++) status = pl_saved(node, i, &saved[i]);
  if (status == PL_OK) status = new_gradients(node, device, gin);
  if (status == PL_OK) {
    pl_attention attention = {&saved[0]->array, &saved[1]->array, &saved[2]->array, node->number[0],
                              node->integer[0] != 0};
    const pl_array *made[3];
    for (int i = 0; i < 3; i++) made[i] = gin[i] ? &gin[i]->array : NULL;
    status = device->attention_gradient(device, &attention, &saved[3]->array, &saved[4]->array, &g->array, made[0],
                                        made[1], made[2]);
  }
  for (int i = 0; i < SAVES; i++) pl_tensor_release(saved[i]);
  pl_tensor_release(g);
  return status;
}

static pl_status at_once(pl_tensor *const given[3], bool causal, double scale, pl_tensor **out) {
  pl_device *device = pl_tensor_device(given[0]);
  pl_dtype type = given[0]->array.dtype;
  pl_tensor *read[3] = {0}, *result = NULL, *logsumexp = NULL;
  bool was = pl_set_recording(false);
  pl_status status = PL_OK;
  for (int i = 0; i < 3 && status == PL_OK; i++) status = arranged(given[i], &read[i]);
  if (status == PL_OK) status = new_heads(device, &given[0]->array, &result);
  if (status == PL_OK)
    status = pl_tensor_new(device, type == PL_F64 ? PL_F64 : PL_F32, 3, given[0]->array.size, &logsumexp);
  if (status == PL_OK) {
    pl_attention attention = {&read[0]->array, &read[1]->array, &read[2]->array, scale, causal};
    status = device->attention(device, &attention, &result->array, &logsumexp->array);
  }
  pl_set_recording(was);
  if (status == PL_OK) {
    pl_node *node;
    pl_record("scaled_dot_product_attention", attention_back, given, 3, &result, 1, &node);
    if (node) {
      node->integer[0] = causal;
      node->number[0] = scale;
      for (int i = 0; i < 3; i++) pl_save(node, read[i]);
      pl_save(node, result);
      pl_save(node, logsumexp);
    }
    *out = pl_tensor_retain(result);
  }
  pl_tensor *const used[] = {read[0], read[1], read[2], result, logsumexp};
  for (int i = 0; i < 5; i++) pl_tensor_release(used[i]);
  return status;
}

/* ---- of other operations ---- */

/* 1, 2, .. size along `axis` of two, int64. */
static pl_status numbered(pl_device *device, int axis, int64_t size, pl_tensor **out) {
  pl_tensor *ones;
  PL_TRY(pl_filled(device, PL_I64, 2, (int64_t[]){axis == 0 ? size : 1, axis == 0 ? 1 : size}, 1, &ones));
  pl_status status = pl_op_cumsum(&(pl_call){.tensor = {ones}, .integer = {axis}}, out);
  pl_tensor_release(ones);
  return status;
}

/* `scores` [B,H,T,S] with -infinity for the keys that a query does not see. */
static pl_status masked(pl_tensor *scores, pl_tensor **out) {
  pl_device *device = pl_tensor_device(scores);
  int64_t queries = scores->array.size[2], keys = scores->array.size[3];
  pl_tensor *query = NULL, *key = NULL, *last = NULL, *future = NULL;
  pl_tensor *before = pl_tensor_integer(keys - queries), *nothing = pl_tensor_number(-INFINITY);
  pl_status status = numbered(device, 0, queries, &query);
  if (status == PL_OK) status = numbered(device, 1, keys, &key);
  if (status == PL_OK) status = pl_add(query, before, &last);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_gt, (pl_tensor *[3]){key, last}, &future);
  if (status == PL_OK) status = pl_pointwise_run(PL_OP_where, (pl_tensor *[3]){future, nothing, scores}, out);
  pl_tensor *const used[] = {query, key, last, future, before, nothing};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}

/* Products and a softmax, with all scores in memory. */
static pl_status composed(pl_tensor *const given[3], bool causal, double scale, pl_tensor **out) {
  pl_tensor *factor = pl_tensor_number(scale), *q = NULL, *k = NULL, *scores = NULL, *seen = NULL, *weights = NULL;
  pl_status status = pl_mul(given[0], factor, &q);
  if (status == PL_OK) status = pl_transpose(given[1], 2, 3, &k);
  if (status == PL_OK) status = pl_matmul(q, k, &scores);
  if (status == PL_OK) status = causal ? masked(scores, &seen) : (seen = pl_tensor_retain(scores), PL_OK);
  if (status == PL_OK) status = pl_op_softmax(&(pl_call){.tensor = {seen}, .integer = {3}}, &weights);
  if (status == PL_OK) status = pl_matmul(weights, given[2], out);
  pl_tensor *const used[] = {factor, q, k, scores, seen, weights};
  for (int i = 0; i < 6; i++) pl_tensor_release(used[i]);
  return status;
}

/* ---- the choice ---- */

/* The one rule: in one primitive where the device has it for this type and number of features; else of other
 * operations, with memory for all scores. */
static pl_status attend(pl_tensor *const given[3], bool causal, double scale, pl_tensor **out) {
  pl_device *device = pl_tensor_device(given[0]);
  bool takes = device->attends(device, given[0]->array.dtype, given[0]->array.size[3]);
  return takes ? at_once(given, causal, scale, out) : composed(given, causal, scale, out);
}

/* The products of float32 take their operands in the type of pl_autocast, as those of pl_matmul do. */
static pl_status cast(pl_tensor *const given[3], bool causal, double scale, pl_tensor **out) {
  pl_tensor *rounded[3] = {0}, *result = NULL;
  pl_device *device = pl_tensor_device(given[0]);
  pl_status status = PL_OK;
  for (int i = 0; i < 3 && status == PL_OK; i++) status = pl_convert_to(given[i], pl_autocast(), device, &rounded[i]);
  if (status == PL_OK) status = attend(rounded, causal, scale, &result);
  if (status == PL_OK) status = pl_convert_to(result, PL_F32, device, out);
  for (int i = 0; i < 3; i++) pl_tensor_release(rounded[i]);
  pl_tensor_release(result);
  return status;
}

pl_status pl_op_attention(const pl_call *call, pl_tensor *out[]) {
  pl_tensor *const given[3] = {call->tensor[0], call->tensor[1], call->tensor[2]};
  bool causal = call->integer[0] != 0;
  double scale = call->number[0];
  PL_TRY(check_arguments(given[0], given[1], given[2], causal, scale));
  if (isnan(scale)) scale = 1 / sqrt((double)given[0]->array.size[3]);
  bool casts = given[0]->array.dtype == PL_F32 && pl_autocast() != PL_F32;
  return casts ? cast(given, causal, scale, out) : attend(given, causal, scale, out);
}
