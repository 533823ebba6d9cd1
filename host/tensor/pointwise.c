/* Elementwise operations on tensors: result shape and type, and the gradient, all from the table. */
#include "host/tensor/operations.h"

#include <string.h>

static bool is_number(const pl_tensor *tensor) { return !tensor->array.buffer; }

/* Shape to which all operands broadcast, and the device they share. */
static pl_status common_shape(const char *name, int arity, pl_tensor *const operand[3], pl_array *shape,
                              pl_device **device) {
  *shape = (pl_array){0};
  *device = NULL;
  for (int i = 0; i < arity; i++) {
    if (is_number(operand[i])) continue;
    const pl_array *array = &operand[i]->array;
    pl_device *here = pl_tensor_device(operand[i]);
    PL_REQUIRE(!*device || *device == here, "%s: operands are on different devices, %s and %s", name, (*device)->name,
               here->name);
    *device = here;
    pl_array before = *shape;
    if (array->rank > shape->rank) {
      int more = array->rank - shape->rank;
      memmove(shape->size + more, shape->size, (size_t)shape->rank * sizeof shape->size[0]);
      for (int k = 0; k < more; k++) shape->size[k] = 1;
      shape->rank = array->rank;
    }
    for (int k = 0; k < array->rank; k++) {
      int64_t *size = &shape->size[shape->rank - array->rank + k];
      PL_REQUIRE(*size == array->size[k] || *size == 1 || array->size[k] == 1,
                 "%s: shapes %s and %s do not broadcast: dimension %d has sizes %lld and %lld", name,
                 pl_shape_text(&before), pl_shape_text(array), shape->rank - array->rank + k + 1, (long long)*size,
                 (long long)array->size[k]);
      if (*size == 1) *size = array->size[k];
    }
  }
  PL_REQUIRE(*device, "%s: expected at least one tensor, got only numbers", name);
  return PL_OK;
}

static pl_dtype result_type(pl_op op, int arity, pl_tensor *const operand[3]) {
  pl_dtype type = PL_BOOL;
  bool real_number = false, whole_number = false;
  for (int i = op == PL_OP_where ? 1 : 0; i < arity; i++)
    if (!is_number(operand[i]))
      type = pl_dtype_promote(type, operand[i]->array.dtype);
    else if (pl_dtype_is_float(operand[i]->array.dtype))
      real_number = true;
    else
      whole_number = true;
  if (pl_pointwise_table[op].domain == PL_DOMAIN_TEST) return PL_BOOL;
  if (pl_dtype_is_float(type)) return type;
  if (real_number || pl_pointwise_table[op].domain == PL_DOMAIN_REAL) return PL_F32;
  /* Arithmetic on truth values counts them. */
  if (type == PL_BOOL && (whole_number || op != PL_OP_where)) return PL_I64;
  return type;
}

/* in[]: the operands that `reads` names, as arrays. */
static void operands_for(unsigned reads, pl_tensor *const operand[3], const pl_tensor *g, const pl_tensor *y,
                         const pl_array *in[PL_OPERANDS]) {
  for (int i = 0; i < PL_OPERANDS; i++) {
    const pl_tensor *tensor = i < 3 ? operand[i] : i == PL_OPERAND_G ? g : y;
    in[i] = reads >> i & 1 && tensor ? &tensor->array : NULL;
  }
}

/* Whether the gradient of an operand is wanted and takes more than passing g on. */
static bool is_computed(const pl_node *node, int input) {
  const char *text = pl_pointwise_table[node->integer[0]].text[PL_GRADIENT_A + input];
  return pl_needs(node, input) && strcmp(text, "0") != 0 && strcmp(text, "g") != 0;
}

/* Two tensors like the pieces of one, side by side in memory, where a and b are such and of g's shape: `pieces` hands
 * their gradients on without a pass then. Else two of their own. */
static pl_status new_pair(const pl_tensor *a, const pl_tensor *b, const pl_tensor *g, pl_tensor *pair[2]) {
  int last = g->array.rank - 1;
  int64_t size[PL_RANK_MAX], width = last >= 0 ? g->array.size[last] : 0;
  pl_array next = a->array;
  next.offset += width;
  if (last < 0 || !a->array.buffer || a->array.stride[last] != 1 || !pl_array_same_shape(&a->array, &g->array) ||
      !pl_array_same_view(&next, &b->array)) {
    PL_TRY(pl_tensor_like(g, g->array.dtype, &pair[0]));
    return pl_tensor_like(g, g->array.dtype, &pair[1]);
  }
  memcpy(size, g->array.size, sizeof size);
  size[last] *= 2;
  pl_tensor *whole;
  PL_TRY(pl_tensor_new(pl_tensor_device(g), g->array.dtype, g->array.rank, size, &whole));
  for (int i = 0; i < 2; i++) {
    pl_array half = whole->array;
    half.size[last] = width;
    half.offset += i * width;
    pair[i] = pl_tensor_alias(&half);
  }
  pl_tensor_release(whole);
  return PL_OK;
}

/* The gradients of both operands of an operation in one pass. */
static pl_status backward_of_two(pl_node *node, pl_tensor *const saved[4], pl_tensor *g, pl_tensor *gin[]) {
  pl_op op = (pl_op)node->integer[0];
  pl_tensor *whole[2] = {NULL, NULL};
  const pl_array *in[PL_OPERANDS];
  pl_device *device = pl_tensor_device(g);
  operands_for(pl_pointwise_reads(op, PL_GRADIENT_A) | pl_pointwise_reads(op, PL_GRADIENT_B), saved, g, saved[3], in);
  pl_status status = new_pair(saved[0], saved[1], g, whole);
  if (status == PL_OK) status = device->pointwise_gradients(device, op, &whole[0]->array, &whole[1]->array, in);
  for (int i = 0; i < 2; i++) {
    if (status == PL_OK) status = pl_sum_to(whole[i], &node->shape_in[i], &gin[i]);
    pl_tensor_release(whole[i]);
  }
  return status;
}

/* node->integer[0]: the operation. Saves: the three operands (numbers stand in for those not read), then the result. */
static pl_status backward(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_op op = (pl_op)node->integer[0];
  const pl_pointwise *row = &pl_pointwise_table[op];
  pl_tensor *saved[4] = {0}, *g = gout[0];
  pl_status status = PL_OK;
  for (int i = 0; i < 4 && status == PL_OK; i++) status = pl_saved(node, i, &saved[i]);
  bool two = row->arity == 2 && is_computed(node, 0) && is_computed(node, 1);
  if (two && status == PL_OK) status = backward_of_two(node, saved, g, gin);
  for (int i = 0; i < row->arity && status == PL_OK && !two; i++) {
    pl_formula formula = (pl_formula)(PL_GRADIENT_A + i);
    if (!pl_needs(node, i) || strcmp(row->text[formula], "0") == 0) continue;
    pl_tensor *whole = NULL;
    if (strcmp(row->text[formula], "g") == 0)
      whole = pl_tensor_retain(g);
    else {
      const pl_array *in[PL_OPERANDS];
      operands_for(pl_pointwise_reads(op, formula), saved, g, saved[3], in);
      pl_device *device = pl_tensor_device(g);
      status = pl_tensor_like(g, g->array.dtype, &whole);
      if (status == PL_OK) status = device->pointwise(device, op, formula, &whole->array, in);
    }
    if (status == PL_OK) status = pl_sum_to(whole, &node->shape_in[i], &gin[i]);
    pl_tensor_release(whole);
  }
  for (int i = 0; i < 4; i++) pl_tensor_release(saved[i]);
  return status;
}

static void record(pl_op op, int arity, pl_tensor *const operand[3], pl_tensor *out) {
  pl_node *node;
  pl_record(pl_pointwise_table[op].name, backward, operand, arity, &out, 1, &node);
  if (!node) return;
  node->integer[0] = op;
  unsigned reads = 0;
  for (int i = 0; i < arity; i++)
    if (pl_needs(node, i)) reads |= pl_pointwise_reads(op, (pl_formula)(PL_GRADIENT_A + i));
  pl_tensor nothing = {.array = pl_array_number(0)};
  for (int i = 0; i < 3; i++) pl_save(node, i < arity && reads >> i & 1 ? operand[i] : &nothing);
  pl_save(node, reads >> PL_OPERAND_Y & 1 ? out : &nothing);
}

static pl_status run(pl_op op, pl_tensor *const operand[3], pl_tensor **out) {
  const pl_pointwise *row = &pl_pointwise_table[op];
  pl_array shape;
  pl_device *device;
  PL_TRY(common_shape(row->name, row->arity, operand, &shape, &device));
  pl_dtype type = result_type(op, row->arity, operand);
  pl_tensor *result;
  PL_TRY(pl_tensor_new(device, type, shape.rank, shape.size, &result));
  const pl_array *in[PL_OPERANDS];
  operands_for(pl_pointwise_reads(op, PL_VALUE), operand, NULL, NULL, in);
  pl_status status = device->pointwise(device, op, PL_VALUE, &result->array, in);
  if (status != PL_OK) {
    pl_tensor_release(result);
    return status;
  }
  if (pl_dtype_is_float(type)) record(op, row->arity, operand, result);
  *out = result;
  return PL_OK;
}

/* A condition counts as true or false only: as bool it has no part in the type that the others are computed in. */
static pl_status where(pl_tensor *condition, pl_tensor *yes, pl_tensor *no, pl_tensor **out) {
  if (is_number(condition)) {
    pl_tensor truth = {.count = 1, .array = pl_array_integer(condition->array.number != 0)};
    return run(PL_OP_where, (pl_tensor *[3]){&truth, yes, no}, out);
  }
  pl_tensor *truth;
  PL_TRY(pl_convert_to(condition, PL_BOOL, pl_tensor_device(condition), &truth));
  pl_status status = run(PL_OP_where, (pl_tensor *[3]){truth, yes, no}, out);
  pl_tensor_release(truth);
  return status;
}

pl_status pl_pointwise_run(pl_op op, pl_tensor *const operand[3], pl_tensor **out) {
  return op == PL_OP_where ? where(operand[0], operand[1], operand[2], out) : run(op, operand, out);
}

pl_status pl_add(pl_tensor *a, pl_tensor *b, pl_tensor **out) {
  return pl_pointwise_run(PL_OP_add, (pl_tensor *[3]){a, b, NULL}, out);
}

pl_status pl_mul(pl_tensor *a, pl_tensor *b, pl_tensor **out) {
  return pl_pointwise_run(PL_OP_mul, (pl_tensor *[3]){a, b, NULL}, out);
}
