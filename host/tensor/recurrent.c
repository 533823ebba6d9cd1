/* The recurrence as one node of the graph for all its time steps. Shapes: B batch, T steps, N heads, D units, S states.
 */
#include "host/tensor/operations.h"

#include <stdlib.h>
#include <string.h>

/* What backward needs beside the saved tensors. */
typedef struct {
  pl_recurrence r; /* arrays are pointed at the saved tensors when the time comes */
  pl_buffer *workspace;
  bool has_states, has_lengths; /* lengths are saved behind the inputs */
} memory;

static void forget(void *note) {
  memory *m = note;
  pl_cell_release((pl_cell *)m->r.cell);
  pl_buffer_release(m->workspace);
  free(m);
}

/* Order of the node's inputs: Wx, R, b, initial, parameters. */
enum { INPUT, RECURRENT, BIAS, INITIAL, PARAMETERS };

static pl_status backward(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]) {
  memory *m = node->note;
  pl_recurrence r = m->r;
  pl_tensor *saved[PARAMETERS + PL_PARAMS_MAX] = {0}, *lengths = NULL;
  pl_device *device = pl_tensor_device(gout[0] ? gout[0] : gout[1]);
  pl_recurrence_gradient gradient = {.workspace = m->workspace->data,
                                     .states = m->has_states && gout[0] ? &gout[0]->array : NULL,
                                     .last = gout[1] ? &gout[1]->array : NULL};
  const pl_array **wanted[PARAMETERS + PL_PARAMS_MAX] = {&gradient.input, &gradient.recurrent, &gradient.bias,
                                                         &gradient.initial};
  const pl_array **given[PARAMETERS + PL_PARAMS_MAX] = {&r.input, &r.recurrent, &r.bias, &r.initial};
  for (int i = 0; i < r.cell->params; i++) {
    wanted[PARAMETERS + i] = &gradient.param[i];
    given[PARAMETERS + i] = &r.param[i];
  }
  pl_status status = PL_OK;
  for (int i = 0; i < node->inputs && status == PL_OK; i++) {
    status = pl_saved(node, i, &saved[i]);
    if (status == PL_OK) *given[i] = saved[i]->array.buffer ? &saved[i]->array : NULL;
    if (status != PL_OK || !pl_needs(node, i)) continue;
    const pl_array *shape = &node->shape_in[i];
    status = pl_tensor_new(device, shape->dtype, shape->rank, shape->size, &gin[i]);
    if (status == PL_OK) *wanted[i] = &gin[i]->array;
  }
  if (status == PL_OK && m->has_lengths) status = pl_saved(node, node->inputs, &lengths);
  r.lengths = lengths ? &lengths->array : NULL;
  if (status == PL_OK) status = device->recurrence_backward(device, &r, &gradient);
  for (int i = 0; i < node->inputs; i++) pl_tensor_release(saved[i]);
  pl_tensor_release(lengths);
  return status;
}

static pl_status run(pl_recurrence *r, pl_device *device, pl_tensor *states, pl_tensor *last, bool remember,
                     pl_buffer **workspace) {
  pl_recurrence_result result = {.states = states ? &states->array : NULL, .last = &last->array};
  *workspace = NULL;
  if (remember) {
    size_t bytes;
    PL_TRY(device->recurrence_workspace(device, r, &bytes));
    PL_TRY(pl_buffer_new(device, bytes, workspace));
    result.workspace = (*workspace)->data;
  }
  pl_status status = device->recurrence_forward(device, r, &result);
  if (status != PL_OK) {
    pl_buffer_release(*workspace);
    *workspace = NULL;
  }
  return status;
}

static void record(const pl_recurrence *r, pl_tensor *const *inputs, int input_count, pl_tensor *lengths,
                   pl_tensor *const outputs[2], pl_buffer *workspace, pl_node **node) {
  pl_record("rnn", backward, inputs, input_count, outputs, 2, node);
  if (!*node) return;
  memory *m = pl_allocate(sizeof *m);
  pl_tensor nothing = {.array = pl_array_number(0)};
  m->r = *r;
  pl_cell_retain((pl_cell *)r->cell);
  m->workspace = workspace;
  m->has_states = outputs[0] != NULL;
  m->has_lengths = lengths != NULL;
  (*node)->note = m;
  (*node)->forget = forget;
  for (int i = 0; i < input_count; i++) pl_save(*node, inputs[i] ? inputs[i] : &nothing);
  if (lengths) pl_save(*node, lengths);
}

/* The recurrence's sizes are Wx's where the cell has inputs, and shapes were checked by
 * lua/perilune/rnn/arguments.lua; what could make a device read out of bounds is checked here again. */
static pl_status check(const char *name, const pl_tensor *t, const pl_tensor *first, pl_dtype type, int rank,
                       const int64_t *size) {
  if (!t) return PL_OK;
  PL_REQUIRE(pl_tensor_device(t) == pl_tensor_device(first), "rnn: %s is on %s, expected %s", name,
             pl_tensor_device(t)->name, pl_tensor_device(first)->name);
  PL_REQUIRE(t->array.dtype == type, "rnn: %s is %s, expected %s", name, pl_dtype_name(t->array.dtype),
             pl_dtype_name(type));
  pl_array expected = {.rank = rank};
  memcpy(expected.size, size, (size_t)rank * sizeof *size);
  PL_REQUIRE(pl_array_same_shape(&t->array, &expected), "rnn: %s has shape %s, expected %s", name,
             pl_shape_text(&t->array), pl_shape_text(&expected));
  return PL_OK;
}

/* On a device with memory of its own the values are checked where they are read, so that nobody waits for them. */
static pl_status check_lengths(const pl_recurrence *r, const pl_tensor *lengths, const pl_tensor *input) {
  if (!lengths) return PL_OK;
  PL_TRY(check("lengths", lengths, input, PL_I64, 1, &r->batch));
  const int64_t *value = pl_array_data(&lengths->array);
  for (int64_t i = 0; pl_tensor_device(lengths)->host_memory && i < r->batch; i++, value += lengths->array.stride[0])
    PL_REQUIRE(*value >= 0 && *value <= r->steps, "rnn: lengths[%lld] is %lld, expected 0..T=%lld", (long long)i + 1,
               (long long)*value, (long long)r->steps);
  return PL_OK;
}

static pl_status check_all(pl_recurrence *r, pl_tensor *input, pl_tensor *recurrent, pl_tensor *bias,
                           pl_tensor *const *parameters, pl_tensor *initial, pl_tensor *lengths) {
  const pl_cell *cell = r->cell;
  PL_REQUIRE(input->array.rank == 5, "rnn: Wx: expected [B, T, Gw, N, D], got %s", pl_shape_text(&input->array));
  const int64_t *size = input->array.size;
  r->batch = size[0], r->steps = size[1], r->heads = size[3], r->dim = size[4];
  bool half = pl_tensor_device(input)->half_storage;
  r->storage = input->array.dtype;
  r->type = half && (r->storage == PL_F16 || r->storage == PL_BF16) ? PL_F32 : r->storage;
  PL_REQUIRE(r->type == PL_F32 || r->type == PL_F64, "rnn: Wx: the recurrence on %s takes %sfloat32 or float64, got %s",
             pl_tensor_device(input)->name, half ? "float16, bfloat16, " : "", pl_dtype_name(r->type));
  PL_REQUIRE((recurrent != NULL) == (pl_cell_recurrents(cell) > 0) && (bias != NULL) == (pl_cell_biases(cell) > 0),
             "rnn: R and b must be given exactly when the cell has recurrent and bias parts");
  PL_TRY(check("Wx", input, input, r->storage, 5,
               (int64_t[]){r->batch, r->steps, pl_cell_inputs(cell), r->heads, r->dim}));
  pl_dtype recurrent_type = recurrent && half ? recurrent->array.dtype : r->type;
  PL_REQUIRE(pl_dtype_is_float(recurrent_type), "rnn: R: expected a floating-point type, got %s",
             pl_dtype_name(recurrent_type));
  PL_TRY(
      check("R", recurrent, input, recurrent_type, 4, (int64_t[]){pl_cell_recurrents(cell), r->heads, r->dim, r->dim}));
  PL_TRY(check("b", bias, input, r->type, 3, (int64_t[]){pl_cell_biases(cell), r->heads, r->dim}));
  PL_TRY(check("states", initial, input, r->type, 5, (int64_t[]){cell->states, r->batch, 1, r->heads, r->dim}));
  for (int i = 0; i < cell->params; i++)
    PL_TRY(check("params", parameters[i], input, r->type, 2, (int64_t[]){r->heads, r->dim}));
  return check_lengths(r, lengths, input);
}

pl_status pl_recur(pl_recurrence r, pl_tensor *input, pl_tensor *recurrent, pl_tensor *bias,
                   pl_tensor *const *parameters, pl_tensor *initial, pl_tensor *lengths, char outputs,
                   pl_tensor **states, pl_tensor **last) {
  PL_TRY(check_all(&r, input, recurrent, bias, parameters, initial, lengths));
  const pl_cell *cell = r.cell;
  pl_device *device = pl_tensor_device(input);
  pl_tensor *inputs[PARAMETERS + PL_PARAMS_MAX] = {input, recurrent, bias, initial}, *made[2] = {NULL, NULL};
  const pl_array **arrays[] = {&r.input, &r.recurrent, &r.bias, &r.initial};
  bool tracked = false;
  int input_count = PARAMETERS + cell->params;
  for (int i = 0; i < cell->params; i++) {
    inputs[PARAMETERS + i] = parameters[i];
    r.param[i] = &parameters[i]->array;
  }
  r.lengths = lengths ? &lengths->array : NULL;
  for (int i = 0; i < PARAMETERS; i++) *arrays[i] = inputs[i] ? &inputs[i]->array : NULL;
  for (int i = 0; i < input_count; i++) tracked = tracked || (inputs[i] && pl_tensor_tracked(inputs[i]));
  int64_t size[5] = {outputs == 'h' ? 1 : cell->states, r.batch, r.steps, r.heads, r.dim};
  pl_buffer *workspace = NULL;
  pl_status status = outputs == 'l' ? PL_OK : pl_tensor_new(device, r.storage, 5, size, &made[0]);
  size[0] = cell->states;
  size[2] = 1;
  if (status == PL_OK) status = pl_tensor_new(device, r.type, 5, size, &made[1]);
  if (status == PL_OK) status = run(&r, device, made[0], made[1], tracked && pl_recording(), &workspace);
  if (status != PL_OK) {
    pl_tensor_release(made[0]);
    pl_tensor_release(made[1]);
    return status;
  }
  pl_node *node;
  record(&r, inputs, input_count, lengths, made, workspace, &node);
  *states = made[0];
  *last = made[1];
  return PL_OK;
}
