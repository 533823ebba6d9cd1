/* Counted tensors and nodes, and the backward pass. Nothing here recurses: graphs are as deep as sequences are long. */
#include "host/tensor/operations.h"

#include <stdlib.h>
#include <string.h>

static bool recording = true;
static uint64_t sequence, visits;
static pl_node *doomed; /* nodes at count 0 that wait to be freed */

bool pl_recording(void) { return recording; }

bool pl_set_recording(bool on) {
  bool was = recording;
  recording = on;
  return was;
}

/* ---- tensors ---- */

static pl_tensor *wrap(const pl_array *array) {
  pl_tensor *tensor = pl_allocate(sizeof *tensor);
  tensor->count = 1;
  tensor->array = *array;
  return tensor;
}

pl_status pl_tensor_new(pl_device *device, pl_dtype dtype, int rank, const int64_t *size, pl_tensor **tensor) {
  PL_REQUIRE(rank <= PL_RANK_MAX, "shape: at most %d dimensions, got %d", PL_RANK_MAX, rank);
  pl_array array = {.dtype = dtype, .rank = rank};
  for (int i = 0; i < rank; i++) array.size[i] = size[i];
  for (int i = 0; i < rank; i++)
    PL_REQUIRE(size[i] >= 0, "shape: sizes must not be negative, got %s", pl_shape_text(&array));
  PL_REQUIRE(pl_array_countable(&array), "shape: %s has too many elements", pl_shape_text(&array));
  pl_array_pack(&array);
  PL_TRY(pl_buffer_new(device, (size_t)pl_array_count(&array) * pl_dtype_size(dtype), &array.buffer));
  *tensor = wrap(&array);
  return PL_OK;
}

pl_status pl_tensor_like(const pl_tensor *model, pl_dtype dtype, pl_tensor **tensor) {
  return pl_tensor_new(pl_tensor_device(model), dtype, model->array.rank, model->array.size, tensor);
}

pl_tensor *pl_tensor_alias(const pl_array *array) {
  pl_buffer_retain(array->buffer);
  return wrap(array);
}

pl_tensor *pl_tensor_number(double number) {
  pl_array array = pl_array_number(number);
  return wrap(&array);
}

pl_tensor *pl_tensor_integer(int64_t integer) {
  pl_array array = pl_array_integer(integer);
  return wrap(&array);
}

static void node_release(pl_node *node);

void pl_tensor_release(pl_tensor *tensor) {
  /* A leaf's gradient has no gradient and no graph of its own, so this loop runs twice at most. */
  while (tensor && --tensor->count == 0) {
    pl_tensor *gradient = tensor->gradient;
    pl_node *node = tensor->node;
    pl_buffer_release(tensor->array.buffer);
    free(tensor);
    if (node) node_release(node);
    tensor = gradient;
  }
}

pl_status pl_tensor_want_gradient(pl_tensor *tensor, bool on) {
  PL_REQUIRE(!on || pl_dtype_is_float(tensor->array.dtype), "requires_grad: only floating-point tensors, got %s",
             pl_dtype_name(tensor->array.dtype));
  PL_REQUIRE(!tensor->node, "requires_grad: this tensor was computed by '%s'; only leaves can be switched (use detach)",
             tensor->node->name);
  tensor->wants_gradient = on;
  return PL_OK;
}

pl_status pl_tensor_mutate(pl_tensor *tensor, const char *operation) {
  PL_REQUIRE(!recording || !pl_tensor_tracked(tensor),
             "%s: in-place change of a tensor that needs a gradient; do it inside pl.no_grad or on t:detach()",
             operation);
  PL_REQUIRE(!tensor->node, "%s: in-place change of a tensor computed by '%s'", operation, tensor->node->name);
  PL_REQUIRE(!pl_array_overlaps_itself(&tensor->array),
             "%s: in-place change of an expanded tensor, whose elements share memory; change a clone", operation);
  tensor->array.buffer->version++;
  return PL_OK;
}

/* ---- nodes ---- */

static void give_back(pl_node *node) {
  for (int i = 0; i < node->saves; i++) pl_buffer_release(node->save[i].buffer);
  node->saves = 0;
  if (node->forget) node->forget(node->note);
  node->forget = NULL;
}

static void node_release(pl_node *node) {
  static bool draining;
  if (--node->count > 0) return;
  node->next = doomed;
  doomed = node;
  if (draining) return; /* the loop below, further up the stack, comes to it */
  draining = true;
  while (doomed) {
    pl_node *dead = doomed;
    doomed = dead->next;
    give_back(dead);
    for (int i = 0; i < dead->inputs; i++) {
      pl_tensor_release(dead->input[i].leaf); /* leaves have no node: no recursion */
      if (dead->input[i].node) node_release(dead->input[i].node);
    }
    free(dead->input);
    free(dead->shape_in);
    free(dead->save);
    free(dead->version);
    free(dead);
  }
  draining = false;
}

static pl_array shape_of(const pl_tensor *tensor) {
  pl_array shape = tensor->array;
  shape.buffer = NULL;
  return shape;
}

void pl_record(const char *name, pl_backward_rule backward, pl_tensor *const inputs[], int input_count,
               pl_tensor *const outputs[], int output_count, pl_node **made) {
  *made = NULL;
  bool tracked = false;
  for (int i = 0; i < input_count; i++) tracked = tracked || (inputs[i] && pl_tensor_tracked(inputs[i]));
  if (!recording || !tracked) return;
  pl_node *node = pl_allocate(sizeof *node);
  node->name = name;
  node->backward = backward;
  node->sequence = ++sequence;
  node->inputs = input_count;
  node->input = pl_allocate((size_t)input_count * sizeof *node->input);
  node->shape_in = pl_allocate((size_t)input_count * sizeof *node->shape_in);
  for (int i = 0; i < input_count; i++) {
    if (!inputs[i]) continue;
    node->shape_in[i] = shape_of(inputs[i]);
    if (inputs[i]->node) {
      node->input[i] = (pl_edge){.node = inputs[i]->node, .output = inputs[i]->output};
      inputs[i]->node->count++;
    } else if (inputs[i]->wants_gradient)
      node->input[i].leaf = pl_tensor_retain(inputs[i]);
  }
  for (int i = 0; i < output_count; i++) {
    if (!outputs[i]) continue;
    node->shape_out[i] = shape_of(outputs[i]);
    outputs[i]->node = node;
    outputs[i]->output = i;
    node->count++;
  }
  *made = node;
}

void pl_save(pl_node *node, const pl_tensor *tensor) {
  node->save = pl_reallocate(node->save, (size_t)(node->saves + 1) * sizeof *node->save);
  node->version = pl_reallocate(node->version, (size_t)(node->saves + 1) * sizeof *node->version);
  pl_array *save = &node->save[node->saves];
  *save = tensor->array;
  if (save->buffer) {
    pl_buffer_retain(save->buffer);
    node->version[node->saves] = save->buffer->version;
  }
  node->saves++;
}

pl_status pl_saved(const pl_node *node, int index, pl_tensor **tensor) {
  const pl_array *save = &node->save[index];
  PL_REQUIRE(!save->buffer || save->buffer->version == node->version[index],
             "backward: a tensor that '%s' needs was changed in place after it was used", node->name);
  *tensor = save->buffer ? pl_tensor_alias(save) : wrap(save);
  return PL_OK;
}

/* ---- the backward pass ---- */

typedef struct {
  pl_node **node;
  size_t count, capacity;
} node_list;

static void push(node_list *list, pl_node *node) {
  if (node->visit == visits) return;
  node->visit = visits;
  if (list->count == list->capacity) {
    list->capacity = list->capacity ? list->capacity * 2 : 64;
    list->node = pl_reallocate(list->node, list->capacity * sizeof *list->node);
  }
  node->count++; /* so that giving back a later node's edges cannot free it */
  list->node[list->count++] = node;
}

static int later_first(const void *a, const void *b) {
  const pl_node *x = *(pl_node *const *)a, *y = *(pl_node *const *)b;
  return x->sequence < y->sequence ? 1 : -1;
}

/* Whether a gradient may be added to in place: nobody else sees the memory. */
static bool is_alone(const pl_tensor *sum) {
  return sum->count == 1 && sum->array.buffer->count == 1 && pl_array_contiguous(&sum->array);
}

pl_tensor *pl_gradient_so_far(const pl_node *node, int input) {
  const pl_edge *edge = &node->input[input];
  pl_tensor *sum = edge->node ? edge->node->gradient[edge->output] : NULL;
  return sum && is_alone(sum) ? sum : NULL;
}

/* sum += gradient, unless that is the sum already. */
static pl_status add_into(pl_tensor **sum, pl_tensor *gradient) {
  if (*sum == gradient) return PL_OK;
  if (!*sum) {
    *sum = pl_tensor_retain(gradient);
    return PL_OK;
  }
  pl_tensor *old = *sum;
  pl_tensor *target = NULL;
  if (is_alone(old))
    target = pl_tensor_retain(old);
  else
    PL_TRY(pl_tensor_like(old, old->array.dtype, &target));
  const pl_array *in[PL_OPERANDS] = {&old->array, &gradient->array};
  pl_device *device = pl_tensor_device(old);
  pl_status status = device->pointwise(device, PL_OP_add, PL_VALUE, &target->array, in);
  if (status != PL_OK) {
    pl_tensor_release(target);
    return status;
  }
  pl_tensor_release(old);
  *sum = target;
  return PL_OK;
}

static pl_status collect(pl_tensor *leaf, pl_tensor *gradient) {
  if (leaf->gradient) {
    /* In the same tensor, so that whoever holds t.grad sees the sum; in a buffer of its own, when the old one is
     * shared. */
    pl_array sum = leaf->gradient->array;
    const pl_array *in[PL_OPERANDS] = {&leaf->gradient->array, &gradient->array};
    pl_device *device = pl_tensor_device(leaf);
    bool shared = sum.buffer->count > 1;
    if (shared) {
      pl_array_pack(&sum);
      sum.offset = 0;
      PL_TRY(pl_buffer_new(device, (size_t)pl_array_count(&sum) * pl_dtype_size(sum.dtype), &sum.buffer));
    }
    sum.buffer->version++;
    pl_status status = device->pointwise(device, PL_OP_add, PL_VALUE, &sum, in);
    if (shared) pl_buffer_release(status == PL_OK ? leaf->gradient->array.buffer : sum.buffer);
    if (status == PL_OK) leaf->gradient->array = sum;
    return status;
  }
  if (is_alone(gradient))
    leaf->gradient = pl_tensor_retain(gradient);
  else
    PL_TRY(pl_clone(gradient, &leaf->gradient));
  return PL_OK;
}

static pl_status deliver(const pl_edge *edge, pl_tensor *gradient) {
  return edge->node ? add_into(&edge->node->gradient[edge->output], gradient) : collect(edge->leaf, gradient);
}

static void drop_gradients(pl_node *node) {
  for (int i = 0; i < PL_NODE_OUTPUTS; i++) {
    pl_tensor_release(node->gradient[i]);
    node->gradient[i] = NULL;
  }
}

static pl_status pass(pl_node *node) {
  bool arrived = false;
  for (int i = 0; i < PL_NODE_OUTPUTS; i++) arrived = arrived || node->gradient[i];
  if (!arrived) return PL_OK;
  PL_REQUIRE(!node->used,
             "backward: the graph through '%s' was used up by an earlier backward; compute the result again",
             node->name);
  PL_TRY(pl_check_interrupt());
  pl_tensor **gin = pl_allocate((size_t)node->inputs * sizeof(pl_tensor *));
  pl_status status = node->backward(node, node->gradient, gin);
  node->used = true;
  give_back(node);
  drop_gradients(node);
  for (int i = 0; i < node->inputs; i++) {
    if (status == PL_OK && gin[i] && pl_needs(node, i)) status = deliver(&node->input[i], gin[i]);
    pl_tensor_release(gin[i]);
  }
  free(gin);
  return status;
}

/* ---- telling when a leaf's gradient is complete ---- */

static void await_leaves(const node_list *list) {
  for (size_t i = 0; i < list->count; i++)
    for (int k = 0; k < list->node[i]->inputs; k++)
      if (list->node[i]->input[k].leaf) list->node[i]->input[k].leaf->awaited++;
}

/* Also those that a failed pass did not come to. */
static void forget_leaves(const node_list *list) {
  for (size_t i = 0; i < list->count; i++)
    for (int k = 0; k < list->node[i]->inputs; k++)
      if (list->node[i]->input[k].leaf) list->node[i]->input[k].leaf->awaited = 0;
}

/* A node counts as passed for its leaves whether or not a gradient came to it. */
static pl_status tell(const pl_node *node, const pl_leaf_watch *watch) {
  for (int i = 0; i < node->inputs; i++) {
    pl_tensor *leaf = node->input[i].leaf;
    if (leaf && --leaf->awaited == 0) PL_TRY(watch->complete(watch->context, leaf));
  }
  return PL_OK;
}

/* watch may be NULL */
static pl_status run_backward(pl_tensor *tensor, pl_tensor *seed, const pl_leaf_watch *watch) {
  if (!tensor->node) {
    PL_TRY(collect(tensor, seed));
    return watch ? watch->complete(watch->context, tensor) : PL_OK;
  }
  node_list list = {0};
  visits++;
  push(&list, tensor->node);
  for (size_t i = 0; i < list.count; i++)
    for (int k = 0; k < list.node[i]->inputs; k++)
      if (list.node[i]->input[k].node) push(&list, list.node[i]->input[k].node);
  /* Inputs are recorded before what is computed from them, so descending sequence is an order of dependence. */
  qsort(list.node, list.count, sizeof *list.node, later_first);
  pl_status status = add_into(&tensor->node->gradient[tensor->output], seed);
  if (watch) await_leaves(&list);
  for (size_t i = 0; i < list.count && status == PL_OK; i++) {
    status = pass(list.node[i]);
    if (watch && status == PL_OK) status = tell(list.node[i], watch);
  }
  if (watch) forget_leaves(&list);
  for (size_t i = 0; i < list.count; i++) {
    drop_gradients(list.node[i]);
    node_release(list.node[i]);
  }
  free(list.node);
  return status;
}

pl_status pl_backward(pl_tensor *tensor, pl_tensor *seed) { return pl_backward_watched(tensor, seed, NULL); }

pl_status pl_backward_watched(pl_tensor *tensor, pl_tensor *seed, const pl_leaf_watch *watch) {
  PL_REQUIRE(pl_tensor_tracked(tensor), "backward: this tensor does not depend on any that requires a gradient");
  PL_REQUIRE(!seed || pl_array_same_shape(&seed->array, &tensor->array), "backward: seed has shape %s, expected %s",
             pl_shape_text(&seed->array), pl_shape_text(&tensor->array));
  PL_REQUIRE(seed || pl_tensor_count(tensor) == 1,
             "backward: a tensor of shape %s needs a seed; only one element needs none", pl_shape_text(&tensor->array));
  const pl_array *shape = &tensor->array;
  pl_device *device = pl_tensor_device(tensor);
  pl_tensor *start = NULL;
  bool was = pl_set_recording(false);
  pl_status status = seed ? pl_convert_to(seed, shape->dtype, device, &start)
                          : pl_filled(device, shape->dtype, shape->rank, shape->size, 1, &start);
  if (status == PL_OK) status = run_backward(tensor, start, watch);
  pl_set_recording(was);
  pl_tensor_release(start);
  return status;
}
