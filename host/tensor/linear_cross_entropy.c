/* Cross-entropy of a linear layer's outputs without ever holding all of these: chunk by chunk of rows they are
 * computed, turned into losses, and at once, where a gradient is wanted, into their own gradient and that of what they
 * came from.
 */
#include "host/tensor/operations.h"

#include <string.h>

enum { CHUNK_BYTES = 256 << 20, CHUNK_STEP = 128 }; /* of outputs at once; rows, a multiple that suits products */

enum { INPUT, WEIGHT, BIAS, OPERANDS };
static const char *const names[OPERANDS] = {"x", "weight", "bias"};

/* One call. x [rows, width], weight [classes, width] and bias [classes] are in the type of the products; bias may be
 * NULL. The gradients are those of the sum of all losses; NULL where nobody wants one. */
typedef struct {
  pl_device *device;
  pl_cross_entropy entropy; /* without its logits and labels */
  int64_t rows, classes, chunk;
  pl_tensor *operand[OPERANDS], *labels;
  pl_tensor *gradient[OPERANDS]; /* in their own type, [classes, width] and [1, classes] in that of the losses */
  pl_tensor *losses, *shift, *one;
  pl_tensor *logits, *rounded; /* [chunk, classes]; in the type of the products, NULL where logits are */
  pl_tensor *part;             /* [1, classes]: a chunk's gradient of the bias */
  bool backward;               /* whether any gradient is wanted */
} job;

static pl_array rows_of(const pl_tensor *t, int64_t first, int64_t count) {
  pl_array view = t->array;
  view.offset += first * view.stride[0];
  view.size[0] = count;
  return view;
}

static pl_array transposed(const pl_array *matrix) {
  pl_array view = *matrix;
  view.size[0] = matrix->size[1], view.size[1] = matrix->size[0];
  view.stride[0] = matrix->stride[1], view.stride[1] = matrix->stride[0];
  return view;
}

static pl_status add_to(pl_device *device, const pl_array *to, const pl_array *what) {
  const pl_array *in[PL_OPERANDS] = {to, what};
  return device->pointwise(device, PL_OP_add, PL_VALUE, to, in);
}

/* Adds what the gradient of a chunk's logits, g, gives to the gradients of the operands. */
static pl_status chunk_back(const job *j, int64_t first, const pl_array *g) {
  pl_device *device = j->device;
  pl_array x = rows_of(j->operand[INPUT], first, g->size[0]), used = *g;
  if (j->gradient[BIAS]) {
    PL_TRY(device->reduce(device, PL_SUM, 1, &j->part->array, g));
    PL_TRY(add_to(device, &j->gradient[BIAS]->array, &j->part->array));
  }
  if (j->rounded) {
    used = rows_of(j->rounded, 0, g->size[0]);
    PL_TRY(device->copy(device, &used, g));
  }
  if (j->gradient[INPUT]) {
    pl_array gx = rows_of(j->gradient[INPUT], first, g->size[0]);
    PL_TRY(device->gemm(device, &used, &j->operand[WEIGHT]->array, 0, &gx));
  }
  if (!j->gradient[WEIGHT]) return PL_OK;
  pl_array turned = transposed(&used);
  return device->gemm(device, &turned, &x, 1, &j->gradient[WEIGHT]->array);
}

static pl_status chunk_run(const job *j, int64_t first, int64_t count) {
  pl_device *device = j->device;
  pl_array x = rows_of(j->operand[INPUT], first, count), logits = rows_of(j->logits, 0, count);
  pl_array labels = rows_of(j->labels, first, count), losses = rows_of(j->losses, first, count);
  pl_array shift = rows_of(j->shift, 0, count), weight = transposed(&j->operand[WEIGHT]->array);
  PL_TRY(device->gemm(device, &x, &weight, 0, &logits));
  if (j->operand[BIAS]) PL_TRY(add_to(device, &logits, &j->operand[BIAS]->array));
  pl_cross_entropy entropy = j->entropy;
  entropy.logits = &logits, entropy.labels = &labels, entropy.first = first;
  PL_TRY(device->cross_entropy(device, &entropy, &losses, &shift));
  if (!j->backward) return PL_OK;
  pl_array one = j->one->array;
  one.size[0] = count, one.stride[0] = 0;
  PL_TRY(device->cross_entropy_gradient(device, &entropy, &shift, &one, &logits));
  return chunk_back(j, first, &logits);
}

/* Saves the gradients of x, weight and bias, each where it is wanted. */
static pl_status linear_cross_entropy_back(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  pl_device *device = pl_tensor_device(gout[0]);
  for (int i = 0; i < OPERANDS; i++) {
    if (!pl_needs(node, i)) continue;
    const pl_array *shape = &node->shape_in[i];
    pl_tensor *saved = NULL, *seen = NULL, *made = NULL;
    pl_status status = pl_saved(node, i, &saved);
    if (status == PL_OK) status = pl_reshape(saved, shape->rank, shape->size, &seen);
    if (status == PL_OK) status = pl_tensor_new(device, shape->dtype, shape->rank, shape->size, &made);
    if (status == PL_OK) {
      const pl_array *in[PL_OPERANDS] = {&seen->array, &gout[0]->array};
      status = device->pointwise(device, PL_OP_mul, PL_VALUE, &made->array, in);
    }
    pl_tensor_release(saved);
    pl_tensor_release(seen);
    if (status != PL_OK) {
      pl_tensor_release(made);
      return status;
    }
    gin[i] = made;
  }
  return PL_OK;
}

static pl_status check_shapes(const pl_tensor *x, const pl_tensor *weight, const pl_tensor *labels,
                              const pl_tensor *bias) {
  int last = x->array.rank - 1;
  PL_REQUIRE(last >= 0 && pl_dtype_is_float(x->array.dtype),
             "linear_cross_entropy: x: expected a floating-point [.., width], got %s %s", pl_dtype_name(x->array.dtype),
             pl_shape_text(&x->array));
  PL_REQUIRE(weight->array.rank == 2 && weight->array.size[1] == x->array.size[last] && weight->array.size[0] > 0,
             "linear_cross_entropy: weight: expected [classes, %lld] for an x of that width, got %s",
             (long long)x->array.size[last], pl_shape_text(&weight->array));
  PL_REQUIRE(!bias || (bias->array.rank == 1 && bias->array.size[0] == weight->array.size[0]),
             "linear_cross_entropy: bias: expected [%lld] for as many classes, got %s",
             (long long)weight->array.size[0], pl_shape_text(&bias->array));
  PL_REQUIRE(!pl_dtype_is_float(labels->array.dtype) && labels->array.dtype != PL_BOOL,
             "linear_cross_entropy: labels: expected int64 class numbers from 1, got %s",
             pl_dtype_name(labels->array.dtype));
  PL_REQUIRE(labels->array.rank == last &&
                 memcmp(labels->array.size, x->array.size, sizeof(int64_t) * (size_t)last) == 0,
             "linear_cross_entropy: labels: expected the shape of x without the last dimension, got %s for %s",
             pl_shape_text(&labels->array), pl_shape_text(&x->array));
  return PL_OK;
}

static pl_status check_call(const pl_call *call) {
  const pl_tensor *x = call->tensor[0], *labels = call->tensor[2];
  const pl_tensor *operand[OPERANDS] = {x, call->tensor[1], call->tensor[3]};
  PL_TRY(check_shapes(x, operand[WEIGHT], labels, operand[BIAS]));
  for (int i = WEIGHT; i < OPERANDS; i++)
    PL_REQUIRE(!operand[i] ||
                   (operand[i]->array.dtype == x->array.dtype && pl_tensor_device(operand[i]) == pl_tensor_device(x)),
               "linear_cross_entropy: %s: expected %s on %s as x, got %s on %s", names[i],
               pl_dtype_name(x->array.dtype), pl_tensor_device(x)->name, pl_dtype_name(operand[i]->array.dtype),
               pl_tensor_device(operand[i])->name);
  PL_REQUIRE(pl_tensor_device(labels) == pl_tensor_device(x), "linear_cross_entropy: x is on %s, labels on %s",
             pl_tensor_device(x)->name, pl_tensor_device(labels)->name);
  PL_REQUIRE(call->number[0] >= 0 && call->number[0] < 1,
             "linear_cross_entropy: label_smoothing: expected 0 <= s < 1, got %g", call->number[0]);
  PL_REQUIRE(call->integer[2] >= 0, "linear_cross_entropy: chunk: expected a number of rows, got %lld",
             (long long)call->integer[2]);
  return PL_OK;
}

/* How many rows at once, in chunks that differ little in size. */
static int64_t chunk_rows(int64_t wanted, int64_t rows, int64_t classes, pl_dtype type) {
  int64_t most = wanted ? wanted : CHUNK_BYTES / (classes * (int64_t)pl_dtype_size(type));
  if (!wanted && most > CHUNK_STEP) most = most / CHUNK_STEP * CHUNK_STEP;
  if (most < 1) most = 1;
  return rows < most ? rows : most;
}

/* A tensor of two dimensions, of zeros when so wanted. */
static pl_status matrix(const job *j, pl_dtype type, int64_t rows, int64_t columns, bool zeros, pl_tensor **out) {
  int64_t size[] = {rows, columns};
  return zeros ? pl_filled(j->device, type, 2, size, 0, out) : pl_tensor_new(j->device, type, 2, size, out);
}

static pl_status prepare_backward(job *j, const bool wanted[OPERANDS], pl_dtype type, pl_dtype inner) {
  int64_t width = j->operand[INPUT]->array.size[1];
  pl_dtype wide = j->losses->array.dtype;
  PL_TRY(pl_filled(j->device, wide, 1, (int64_t[]){1}, 1, &j->one));
  if (inner != type) PL_TRY(matrix(j, inner, j->chunk, j->classes, false, &j->rounded));
  if (wanted[INPUT]) PL_TRY(matrix(j, type, j->rows, width, false, &j->gradient[INPUT]));
  if (wanted[WEIGHT]) PL_TRY(matrix(j, wide, j->classes, width, true, &j->gradient[WEIGHT]));
  if (!wanted[BIAS]) return PL_OK;
  PL_TRY(matrix(j, wide, 1, j->classes, true, &j->gradient[BIAS]));
  return matrix(j, wide, 1, j->classes, false, &j->part);
}

/* Everything that a job of the call holds; what it has so far is the job's when this fails. */
static pl_status prepare(job *j, const pl_call *call, const bool wanted[OPERANDS]) {
  pl_tensor *x = call->tensor[0], *weight = call->tensor[1], *flat;
  pl_dtype type = x->array.dtype, inner = type == PL_F32 ? pl_autocast() : type;
  j->device = pl_tensor_device(x);
  j->rows = pl_tensor_count(call->tensor[2]);
  j->classes = weight->array.size[0];
  j->chunk = chunk_rows(call->integer[2], j->rows, j->classes, type);
  j->entropy =
      (pl_cross_entropy){.ignoring = call->integer[1] != 0, .ignored = call->integer[0], .smoothing = call->number[0]};
  PL_TRY(pl_reshape(x, 2, (int64_t[]){j->rows, weight->array.size[1]}, &flat));
  pl_status status = pl_convert_to(flat, inner, j->device, &j->operand[INPUT]);
  pl_tensor_release(flat);
  PL_TRY(status);
  PL_TRY(pl_convert_to(weight, inner, j->device, &j->operand[WEIGHT]));
  if (call->tensor[3]) j->operand[BIAS] = pl_tensor_retain(call->tensor[3]);
  PL_TRY(pl_reshape(call->tensor[2], 1, &j->rows, &flat));
  status = pl_contiguous(flat, &j->labels);
  pl_tensor_release(flat);
  PL_TRY(status);
  pl_dtype wide = type == PL_F64 ? PL_F64 : PL_F32;
  PL_TRY(pl_tensor_new(j->device, wide, 1, &j->rows, &j->losses));
  PL_TRY(pl_tensor_new(j->device, wide, 1, &j->chunk, &j->shift));
  PL_TRY(matrix(j, type, j->chunk, j->classes, false, &j->logits));
  return j->backward ? prepare_backward(j, wanted, type, inner) : PL_OK;
}

static void release(job *j) {
  pl_tensor *const held[] = {j->labels, j->losses, j->shift, j->one, j->logits, j->rounded, j->part};
  for (size_t i = 0; i < sizeof held / sizeof *held; i++) pl_tensor_release(held[i]);
  for (int i = 0; i < OPERANDS; i++) {
    pl_tensor_release(j->operand[i]);
    pl_tensor_release(j->gradient[i]);
  }
}

/* x [.., W], weight [C, W], labels [..] of 1..C, bias [C] or none -> [] the sum of the losses, in float32 or wider. */
pl_status pl_op_linear_cross_entropy(const pl_call *call, pl_tensor *out[]) {
  PL_TRY(check_call(call));
  pl_tensor *const inputs[OPERANDS] = {call->tensor[0], call->tensor[1], call->tensor[3]};
  bool wanted[OPERANDS];
  job j = {0};
  for (int i = 0; i < OPERANDS; i++) {
    wanted[i] = pl_recording() && inputs[i] && pl_tensor_tracked(inputs[i]);
    j.backward = j.backward || wanted[i];
  }
  bool was = pl_set_recording(false);
  pl_status status = prepare(&j, call, wanted);
  for (int64_t first = 0; first < j.rows && status == PL_OK; first += j.chunk)
    status = chunk_run(&j, first, j.rows - first < j.chunk ? j.rows - first : j.chunk);
  pl_tensor *sum = NULL;
  if (status == PL_OK) status = pl_sum(j.losses, 1, false, &sum);
  pl_set_recording(was);
  if (status == PL_OK) {
    pl_node *node;
    pl_tensor nothing = {.array = pl_array_number(0)};
    pl_record("linear_cross_entropy", linear_cross_entropy_back, inputs, OPERANDS, &sum, 1, &node);
    for (int i = 0; node && i < OPERANDS; i++) pl_save(node, j.gradient[i] ? j.gradient[i] : &nothing);
    *out = sum;
  }
  release(&j);
  return status;
}
