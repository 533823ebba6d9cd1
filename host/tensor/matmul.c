/* Matrix products with PyTorch's rules for vectors, matrices and batches. */
#include "host/tensor/operations.h"

#include <string.h>

static pl_dtype autocast = PL_F32;

pl_dtype pl_autocast(void) { return autocast; }
void pl_set_autocast(pl_dtype type) { autocast = type; }

static pl_status product(pl_tensor *a, pl_tensor *b, pl_dtype inner, pl_dtype type, pl_tensor **out);

static pl_status swap_last(pl_tensor *a, pl_tensor **out) {
  return pl_transpose(a, a->array.rank - 2, a->array.rank - 1, out);
}

/* `t` in the type in which products take it; outside the graph. */
static pl_status rounded(pl_tensor *t, pl_dtype inner, pl_tensor **out) {
  bool was = pl_set_recording(false);
  pl_status status = pl_convert_to(t, inner, pl_tensor_device(t), out);
  pl_set_recording(was);
  return status;
}

/* x y, with y or x transposed first, summed down to the shape of the operand whose gradient it is. */
static pl_status gradient_of(pl_tensor *x, bool transpose_x, pl_tensor *y, bool transpose_y, const pl_array *shape,
                             pl_tensor **out) {
  pl_tensor *left = NULL, *right = NULL, *whole = NULL;
  pl_status status = transpose_x ? swap_last(x, &left) : (left = pl_tensor_retain(x), PL_OK);
  if (status == PL_OK) status = transpose_y ? swap_last(y, &right) : (right = pl_tensor_retain(y), PL_OK);
  if (status == PL_OK) status = product(left, right, x->array.dtype, shape->dtype, &whole);
  if (status == PL_OK) status = pl_sum_to(whole, shape, out);
  pl_tensor_release(left);
  pl_tensor_release(right);
  pl_tensor_release(whole);
  return status;
}

/* The gradient a^T g of a matrix y that was multiplied as a transposed view, as layers do with their weight: found as
 * the transposed g^T a, so that its memory is in the order of what y is a view of, and nobody has to copy it. */
static pl_status gradient_of_view(pl_tensor *a, pl_tensor *g, const pl_array *y, pl_tensor **out) {
  pl_array turned = *y;
  turned.size[0] = y->size[1], turned.size[1] = y->size[0];
  pl_tensor *whole;
  PL_TRY(gradient_of(g, true, a, false, &turned, &whole));
  pl_status status = swap_last(whole, out);
  pl_tensor_release(whole);
  return status;
}

/* Adds g b^T to what arrived at a so far, where the product can write there; else *out stays NULL. */
static pl_status add_to_so_far(const pl_node *node, pl_tensor *g, pl_tensor *b, pl_tensor **out) {
  pl_tensor *sum = pl_gradient_so_far(node, 0), *turned;
  if (!sum || sum->array.rank != 2 || b->array.rank != 2 || sum->array.dtype != node->shape_in[0].dtype) return PL_OK;
  PL_TRY(swap_last(b, &turned));
  pl_device *device = pl_tensor_device(g);
  pl_status status = device->gemm(device, &g->array, &turned->array, 1, &sum->array);
  pl_tensor_release(turned);
  if (status == PL_OK) *out = pl_tensor_retain(sum);
  return status;
}

static bool is_transposed(const pl_array *y) { return y->rank == 2 && y->stride[0] == 1 && y->stride[1] > 1; }

/* Saves a, b as they were multiplied, each where the other's gradient needs it; node->integer[0]: their type.
 * da = g b^T, db = a^T g. */
static pl_status product_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_tensor *a = NULL, *b = NULL, *g = NULL;
  pl_status status = pl_saved(node, 0, &a);
  if (status == PL_OK) status = pl_saved(node, 1, &b);
  if (status == PL_OK) status = rounded(gout[0], (pl_dtype)node->integer[0], &g);
  if (status == PL_OK && pl_needs(node, 0)) status = add_to_so_far(node, g, b, &gin[0]);
  if (status == PL_OK && pl_needs(node, 0) && !gin[0])
    status = gradient_of(g, false, b, true, &node->shape_in[0], &gin[0]);
  if (status == PL_OK && pl_needs(node, 1))
    status = is_transposed(&node->shape_in[1]) && a->array.rank == 2
                 ? gradient_of_view(a, g, &node->shape_in[1], &gin[1])
                 : gradient_of(a, true, g, false, &node->shape_in[1], &gin[1]);
  pl_tensor_release(a);
  pl_tensor_release(b);
  pl_tensor_release(g);
  return status;
}

static pl_array padded(const pl_array *array, int rank) {
  pl_array view = *array;
  int missing = rank - array->rank;
  memmove(view.size + missing, array->size, sizeof(int64_t) * (size_t)array->rank);
  memmove(view.stride + missing, array->stride, sizeof(int64_t) * (size_t)array->rank);
  for (int i = 0; i < missing; i++) view.size[i] = 1, view.stride[i] = 0;
  view.rank = rank;
  return view;
}

/* [.., m, k] x [.., k, n], both of rank 2 or more and of one type, given as `type`; outside the graph. */
static pl_status multiply(pl_tensor *a, pl_tensor *b, pl_dtype type, pl_tensor **out) {
  int rank = a->array.rank > b->array.rank ? a->array.rank : b->array.rank;
  pl_array x = padded(&a->array, rank), y = padded(&b->array, rank);
  int64_t size[PL_RANK_MAX];
  for (int i = 0; i < rank - 2; i++) {
    PL_REQUIRE(x.size[i] == y.size[i] || x.size[i] == 1 || y.size[i] == 1,
               "matmul: batch dimensions of %s and %s do not broadcast", pl_shape_text(&a->array),
               pl_shape_text(&b->array));
    size[i] = x.size[i] == 1 ? y.size[i] : x.size[i];
  }
  size[rank - 2] = x.size[rank - 2];
  size[rank - 1] = y.size[rank - 1];
  pl_tensor *result;
  pl_device *device = pl_tensor_device(a);
  PL_TRY(pl_tensor_new(device, type, rank, size, &result));
  pl_status status = device->gemm(device, &x, &y, 0, &result->array);
  if (status != PL_OK) {
    pl_tensor_release(result);
    return status;
  }
  *out = result;
  return PL_OK;
}

/* [.., m, k] x [.., k, n], rounded to `inner`, multiplied, given as `type`. */
static pl_status product(pl_tensor *a, pl_tensor *b, pl_dtype inner, pl_dtype type, pl_tensor **out) {
  pl_tensor *x = NULL, *y = NULL;
  pl_status status = rounded(a, inner, &x);
  if (status == PL_OK) status = rounded(b, inner, &y);
  if (status == PL_OK) status = multiply(x, y, type, out);
  pl_node *node = NULL;
  if (status == PL_OK) pl_record("matmul", product_back, (pl_tensor *[]){a, b}, 2, out, 1, &node);
  if (node) {
    pl_tensor nothing = {.array = pl_array_number(0)};
    node->integer[0] = inner;
    pl_save(node, pl_needs(node, 1) ? x : &nothing);
    pl_save(node, pl_needs(node, 0) ? y : &nothing);
  }
  pl_tensor_release(x);
  pl_tensor_release(y);
  return status;
}

/* Products of float32 take their operands in the type of pl_autocast. */
static pl_status cast_product(pl_tensor *a, pl_tensor *b, pl_tensor **out) {
  pl_dtype type = a->array.dtype;
  return product(a, b, type == PL_F32 ? autocast : type, type, out);
}

/* A stack of matrices times one matrix is one tall product: rows [.., m] flatten when that needs no copy of note. */
static pl_status flattened(pl_tensor *a, pl_tensor *b, pl_tensor **out) {
  pl_tensor *flat, *tall;
  int64_t size[PL_RANK_MAX];
  int last = a->array.rank - 1;
  memcpy(size, a->array.size, sizeof size);
  size[last] = b->array.size[1];
  PL_TRY(pl_reshape(a, 2, (int64_t[]){-1, a->array.size[last]}, &flat));
  pl_status status = cast_product(flat, b, &tall);
  pl_tensor_release(flat);
  PL_TRY(status);
  status = pl_reshape(tall, last + 1, size, out);
  pl_tensor_release(tall);
  return status;
}

static pl_status matrices(pl_tensor *a, pl_tensor *b, pl_tensor **out) {
  int64_t k = a->array.size[a->array.rank - 1], rows = b->array.size[b->array.rank - 2];
  PL_REQUIRE(k == rows, "matmul: inner sizes differ: %s has %lld columns, %s has %lld rows", pl_shape_text(&a->array),
             (long long)k, pl_shape_text(&b->array), (long long)rows);
  if (a->array.rank > 2 && b->array.rank == 2 && k > 0) return flattened(a, b, out);
  return cast_product(a, b, out);
}

pl_status pl_matmul(pl_tensor *a, pl_tensor *b, pl_tensor **out) {
  PL_REQUIRE(a->array.rank > 0 && b->array.rank > 0, "matmul: expected vectors or matrices, got shapes %s and %s",
             pl_shape_text(&a->array), pl_shape_text(&b->array));
  PL_REQUIRE(pl_tensor_device(a) == pl_tensor_device(b), "matmul: operands are on different devices, %s and %s",
             pl_tensor_device(a)->name, pl_tensor_device(b)->name);
  PL_REQUIRE(a->array.dtype == b->array.dtype && pl_dtype_is_float(a->array.dtype),
             "matmul: expected two tensors of one floating-point type, got %s and %s", pl_dtype_name(a->array.dtype),
             pl_dtype_name(b->array.dtype));
  pl_tensor *left = pl_tensor_retain(a), *right = pl_tensor_retain(b), *result = NULL;
  bool row = a->array.rank == 1, column = b->array.rank == 1;
  pl_status status = PL_OK;
  if (row) {
    pl_tensor_release(left);
    status = pl_reshape(a, 2, (int64_t[]){1, a->array.size[0]}, &left);
    if (status != PL_OK) left = NULL;
  }
  if (column && status == PL_OK) {
    pl_tensor_release(right);
    status = pl_reshape(b, 2, (int64_t[]){b->array.size[0], 1}, &right);
    if (status != PL_OK) right = NULL;
  }
  if (status == PL_OK) status = matrices(left, right, &result);
  if (status == PL_OK && (row || column)) {
    int64_t size[PL_RANK_MAX];
    int rank = 0;
    for (int i = 0; i < result->array.rank; i++) {
      bool drop = (row && i == result->array.rank - 2) || (column && i == result->array.rank - 1);
      if (!drop) size[rank++] = result->array.size[i];
    }
    pl_tensor *shaped = NULL;
    status = pl_reshape(result, rank, size, &shaped);
    pl_tensor_release(result);
    result = shaped;
  }
  if (status == PL_OK) *out = result;
  pl_tensor_release(left);
  pl_tensor_release(right);
  return status;
}

pl_status pl_op_matmul(const pl_call *call, pl_tensor *out[]) {
  return pl_matmul(call->tensor[0], call->tensor[1], out);
}
