/* Launches of the fused recurrence: its kernels, what they are given, and the passes around them. */
#include "host/cuda/fused.h"

#include "host/cuda/blas.h"
#include "host/cuda/cell_text.h"
#include "host/cuda/fused_plan.h"
#include "host/cuda/layout.h"
#include "host/cuda/primitives.h"
#include "host/cuda/recurrence_plan.h"

enum { ALIGNMENT = 256, THREADS = 256 };

static size_t aligned(int64_t bytes) { return (size_t)((bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT); }

/* ---- kernels ---- */

typedef struct {
  const pl_recurrence *q;
  pl_fused_variant variant;
  pl_fused_shape shape;
} fused_call;

static pl_status prepare(pl_cuda *cuda, const pl_recurrence *q, const pl_fused_variant *variant, fused_call *call) {
  *call = (fused_call){.q = q, .variant = *variant};
  call->variant.own_instructions = cuda->architecture >= 90;
  pl_fused_limits limits = {.architecture = cuda->architecture,
                            .multiprocessors = cuda->multiprocessors,
                            .shared_bytes = (size_t)cuda->shared_bytes_max};
  PL_TRY(pl_fused_shape_of(q, &call->variant, &call->shape));
  return pl_fused_shape_check(q, &call->shape, &limits);
}

/* All that the text of the kernels follows from. */
static void print_key(const fused_call *call, const char *file, const char *name, pl_text *key) {
  const pl_recurrence *q = call->q;
  const pl_fused_plan *p = &q->plan;
  const pl_fused_variant *v = &call->variant;
  pl_text_print(key, "%s %s %lld %d %d %d %d %d %d %d %d %d %d %d %d %d %d ", file, name, (long long)q->dim, q->storage,
                q->product, pl_tf32_allowed(), p->scope, p->rows, p->blocks, p->parts, p->clustered, p->groups,
                p->splits, p->writers[call->variant.backward], p->ring, call->shape.in_registers, p->resident);
  pl_text_print(key, "%d %d %d %d %d %d %d %d %d %d %s", v->backward, v->lengths, v->remember, v->states_out, v->given,
                v->want_input, v->want_recurrent, v->want_initial, v->through, v->clip, q->cell->key);
}

static pl_status load(pl_cuda *cuda, const fused_call *call, const char *file, const char *name,
                      pl_cu_function *function) {
  pl_text words = {0}, text = {0};
  print_key(call, file, name, &words);
  uint64_t key = pl_cuda_key(PL_FAMILY_FUSED, words.data);
  pl_text_release(&words);
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_status status = pl_fused_text(call->q, &call->variant, &call->shape, &text);
  if (status == PL_OK) status = pl_cuda_kernel_load(cuda, key, file, text.data, "", name, function);
  pl_text_release(&text);
  return status;
}

/* Blocks of a cluster of this launch; 1: no clusters. Forward, the grid scope needs none. */
static int cluster_size(const fused_call *call) {
  const pl_fused_plan *plan = &call->q->plan;
  bool clustered = plan->scope == PL_SCOPE_CLUSTER || (call->variant.backward && pl_fused_clustered(plan));
  return clustered ? plan->parts : 1;
}

static pl_status load_main(pl_cuda *cuda, fused_call *call, pl_cu_function *function) {
  const char *file = call->variant.backward ? "fused_backward.cu" : "fused_forward.cu",
             *name = call->variant.backward ? "fused_backward" : "fused_forward";
  int local_bytes, least;
  PL_TRY(load(cuda, call, file, name, function));
  PL_CUDA_TRY(pl_cu.FuncGetAttribute(&local_bytes, PL_CU_FUNCTION_LOCAL_BYTES, *function));
  pl_fused_shape best = call->shape;
  least = local_bytes;
  for (int cut = 0; cut < PL_FUSED_CUTS_MAX && pl_fused_cut_registers(call->q, &call->variant, local_bytes,
                                                                      (size_t)cuda->shared_bytes_max, &call->shape);
       cut++) {
    PL_TRY(load(cuda, call, file, name, function));
    PL_CUDA_TRY(pl_cu.FuncGetAttribute(&local_bytes, PL_CU_FUNCTION_LOCAL_BYTES, *function));
    if (local_bytes >= least) continue;
    best = call->shape;
    least = local_bytes;
  }
  if (local_bytes > least) {
    call->shape = best;
    PL_TRY(load(cuda, call, file, name, function));
  }
  PL_CUDA_TRY(pl_cu.FuncSetAttribute(*function, PL_CU_FUNCTION_DYNAMIC_SHARED_BYTES_MAX, (int)call->shape.map.total));
  if (cluster_size(call) > 8)
    PL_CUDA_TRY(pl_cu.FuncSetAttribute(*function, PL_CU_FUNCTION_NON_PORTABLE_CLUSTER_ALLOWED, 1));
  return PL_OK;
}

/* Groups of blocks (of one head and batch tile) that can run at once. */
static pl_status groups_at_once(const pl_cuda *cuda, const fused_call *call, pl_cu_function function,
                                const pl_cu_launch *launch, int64_t *groups) {
  int units, blocks = call->q->plan.blocks;
  if (cluster_size(call) > 1) {
    PL_CUDA_TRY(pl_cu.OccupancyMaxActiveClusters(&units, function, launch));
    units *= cluster_size(call);
  } else {
    PL_CUDA_TRY(pl_cu.OccupancyMaxActiveBlocks(&units, function, call->shape.threads, call->shape.map.total));
    units *= cuda->multiprocessors;
  }
  *groups = units / blocks;
  PL_REQUIRE(*groups > 0, "rnn: a fused plan needs %d blocks that run at once; %d fit on %s", blocks, units,
             cuda->device.name);
  return PL_OK;
}

/* One launch, or in the grid scope as many as it takes for the blocks of each to run at once. */
static pl_status launch_main(pl_cuda *cuda, const fused_call *call, pl_cu_function function, void *arguments,
                             int *first_group) {
  const pl_fused_plan *plan = &call->q->plan;
  pl_cu_launch_attribute attributes[2];
  unsigned count = 0;
  if (cluster_size(call) > 1)
    attributes[count++] = (pl_cu_launch_attribute){.id = PL_CU_LAUNCH_CLUSTER_DIMENSION,
                                                   .value.cluster = {(unsigned)cluster_size(call), 1, 1}};
  if (plan->scope == PL_SCOPE_GRID)
    attributes[count++] = (pl_cu_launch_attribute){.id = PL_CU_LAUNCH_COOPERATIVE, .value.cooperative = 1};
  int64_t groups = call->shape.blocks / plan->blocks, at_once = groups;
  pl_cu_launch launch = {.grid_x = (unsigned)plan->blocks,
                         .grid_y = 1,
                         .grid_z = 1,
                         .block_x = (unsigned)call->shape.threads,
                         .block_y = 1,
                         .block_z = 1,
                         .shared_bytes = (unsigned)call->shape.map.total,
                         .stream = cuda->stream,
                         .attributes = attributes,
                         .attribute_count = count};
  if (plan->scope == PL_SCOPE_GRID) PL_TRY(groups_at_once(cuda, call, function, &launch, &at_once));
  pl_cuda_recorded_kernel(cuda, function);
  for (int64_t first = 0; first < groups; first += at_once) {
    int64_t now = groups - first < at_once ? groups - first : at_once;
    *first_group = (int)first;
    launch.grid_x = (unsigned)(now * plan->blocks);
    PL_CUDA_TRY(pl_cu.LaunchKernelEx(&launch, function, (void *[]){arguments}, NULL));
  }
  return PL_OK;
}

/* The grid scope's exchange, emptied. */
static int64_t slots_bytes(const fused_call *call) {
  return call->shape.blocks / call->q->plan.blocks * call->shape.slots_bytes;
}

static pl_status empty_slots(pl_cuda *cuda, const fused_call *call, char *slots) {
  int64_t bytes = slots_bytes(call);
  if (bytes == 0) return PL_OK;
  return PL_CUDA(pl_cu.MemsetD8Async((pl_cu_pointer)(uintptr_t)slots, 0, (size_t)bytes, cuda->stream));
}

static pl_status launch_over(pl_cuda *cuda, pl_cu_function function, int64_t count, unsigned blocks_y,
                             void *arguments) {
  return pl_cuda_launch(cuda, function, (uint64_t)(count + THREADS - 1) / THREADS, blocks_y, THREADS, 0,
                        (void *[]){arguments});
}

/* R in the order of the kernel, in scratch. */
static int64_t packed_bytes(const fused_call *call) {
  return call->q->heads * call->q->plan.blocks * call->shape.warps * call->shape.fragments * 32 * 16;
}

static pl_status pack(pl_cuda *cuda, const fused_call *call, char *packed) {
  const pl_recurrence *q = call->q;
  if (call->shape.fragments == 0) return PL_OK;
  pl_cu_function function;
  PL_TRY(load(cuda, call, "fused_pack.cu", "fused_pack", &function));
  pl_pack arguments = {.recurrent = pl_view_of(q->recurrent),
                       .type = (int)q->recurrent->dtype,
                       .heads = (int)q->heads,
                       .packed = packed};
  return launch_over(cuda, function, packed_bytes(call) / 4, 1, &arguments);
}

/* ---- operands ---- */

/* Units side by side and all lines on 16 bytes, as the kernels read them: `array` itself, or a copy whose buffer the
 * caller releases. */
static pl_status aligned_lines(pl_device *device, const pl_array *array, pl_array *lines, pl_buffer **copy) {
  int64_t per_line = 16 / (int64_t)pl_dtype_size(array->dtype);
  bool fits = array->stride[4] == 1 && (uintptr_t)pl_array_data(array) % 16 == 0;
  for (int axis = 0; axis < 4; axis++) fits = fits && array->stride[axis] % per_line == 0;
  *lines = *array;
  *copy = NULL;
  if (fits) return PL_OK;
  PL_TRY(pl_buffer_new(device, (size_t)pl_array_count(array) * pl_dtype_size(array->dtype), copy));
  lines->buffer = *copy;
  lines->offset = 0;
  pl_array_pack(lines);
  pl_status status = pl_cuda_copy(device, lines, array);
  if (status != PL_OK) pl_buffer_release(*copy);
  return status;
}

/* ---- the workspace: the records, and h before each step ---- */

static size_t records_bytes(const fused_call *call) {
  const pl_fused_shape *s = &call->shape;
  return aligned((call->q->steps + 1) * s->blocks * s->records * s->record_words * 32 * 4);
}

static int64_t h_bytes(const pl_recurrence *q) {
  if (pl_cell_recurrents(q->cell) == 0) return 0;
  return q->batch * q->steps * q->heads * q->dim * (int64_t)pl_dtype_size(q->product);
}

pl_status pl_cuda_fused_workspace(pl_device *device, const pl_recurrence *q, size_t *bytes) {
  pl_cuda *cuda;
  fused_call call;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(prepare(cuda, q, &(pl_fused_variant){.remember = true, .lengths = q->lengths != NULL}, &call));
  *bytes = records_bytes(&call) + (size_t)h_bytes(q);
  return PL_OK;
}

/* ---- forward ---- */

static pl_status run_forward(pl_cuda *cuda, fused_call *call, const pl_recurrence_result *result, const pl_array *input,
                             char *scratch) {
  const pl_recurrence *q = call->q;
  pl_cu_function function;
  pl_complaints complaint = pl_complaints_of(cuda);
  char *records = result->workspace;
  pl_forward p = {
      .batch = (int)q->batch,
      .steps = (int)q->steps,
      .heads = (int)q->heads,
      .tiles = (int)call->shape.batch_tiles,
      .input = pl_view_of(input),
      .bias = pl_view_of(q->bias),
      .initial = pl_view_of(q->initial),
      .states = pl_view_of(result->states),
      .last = pl_view_of(result->last),
      .packed = scratch,
      .records = records,
      .h_before = records ? records + records_bytes(call) : NULL,
      .slots = scratch + aligned(packed_bytes(call)),
      .lengths = pl_view_of(q->lengths),
      .complaint = (char *)(uintptr_t)complaint.place,
      .lock = (char *)(uintptr_t)complaint.lock,
  };
  for (int s = 0; s < q->cell->states; s++) p.initial_value[s] = q->cell->initial[s];
  for (int i = 0; i < q->cell->params; i++) p.param[i] = pl_view_of(q->param[i]);
  PL_TRY(load_main(cuda, call, &function));
  PL_TRY(pack(cuda, call, p.packed));
  PL_TRY(empty_slots(cuda, call, p.slots));
  return launch_main(cuda, call, function, &p, &p.first_group);
}

pl_status pl_cuda_fused_forward(pl_device *device, const pl_recurrence *q, const pl_recurrence_result *result) {
  pl_cuda *cuda;
  fused_call call;
  pl_fused_variant variant = {.remember = result->workspace != NULL,
                              .lengths = q->lengths != NULL,
                              .states_out = result->states ? (int)result->states->size[0] : 0};
  pl_buffer *scratch = NULL, *copy = NULL;
  pl_array input = {0};
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(prepare(cuda, q, &variant, &call));
  PL_TRY(aligned_lines(device, q->input, &input, &copy));
  pl_status status = pl_buffer_new(device, aligned(packed_bytes(&call)) + aligned(slots_bytes(&call)), &scratch);
  if (status == PL_OK) status = run_forward(cuda, &call, result, &input, scratch->data);
  pl_buffer_release(scratch); /* whoever has it next comes later on the same stream */
  pl_buffer_release(copy);
  return status;
}

/* ---- backward ---- */

typedef struct {
  size_t packed, slots, extra, totals, places, weights, total;
} backward_scratch;

static backward_scratch lay_out(const fused_call *call) {
  const pl_recurrence *q = call->q;
  backward_scratch s = {0};
  int64_t extras = 0, sums = pl_cell_biases(q->cell) + q->cell->params;
  for (unsigned set = call->shape.extra; set; set &= set - 1) extras++;
  s.slots = s.packed + aligned(packed_bytes(call));
  s.extra = s.slots + aligned(slots_bytes(call));
  s.totals = s.extra + aligned(q->batch * q->steps * extras * q->heads * q->dim * (int64_t)pl_dtype_size(q->product));
  s.places = s.totals + aligned(call->shape.batch_tiles * call->shape.total_parts * sums * q->heads * q->dim * 4);
  s.weights = s.places + aligned(3 * pl_cell_recurrents(q->cell) * q->heads * (int64_t)sizeof(char *));
  s.total = s.weights +
            aligned(call->variant.want_recurrent ? pl_cell_recurrents(q->cell) * q->heads * q->dim * q->dim * 4 : 0);
  return s;
}

/* dR: the gradients of the gates of all rows and steps, transposed, times h before those steps. With one head and gates
 * side by side in the order of R it is one product; else one for each gate and head, in two calls where some gates lie
 * in `input` and some in `extra`. */
static pl_status multiply_weights(pl_cuda *cuda, const fused_call *call, pl_backward *p, char *h) {
  const pl_recurrence *q = call->q;
  int64_t units = q->heads * q->dim, lines = q->batch * q->steps;
  int64_t extras = 0, inputs = pl_cell_inputs(q->cell), fed = pl_cell_recurrents(q->cell);
  for (unsigned set = call->shape.extra; set; set &= set - 1) extras++;
  pl_blas_matrix gates = {p->input.data, q->product, true, inputs * units, 0};
  pl_blas_matrix before = {h, q->product, false, units, 0}, out = {p->weights, PL_F32, false, q->dim, 0};
  if (q->heads == 1 && (extras == fed || (extras == 0 && inputs == fed))) {
    if (extras) gates.data = p->extra, gates.leading = extras * units;
    return pl_blas_multiply(cuda, fed * q->dim, q->dim, lines, 1, &gates, &before, 0, &out, 1);
  }
  pl_cu_function function;
  PL_TRY(load(cuda, call, "fused_backward.cu", "place_weights", &function));
  PL_TRY(pl_cuda_launch(cuda, function, (uint64_t)(fed * q->heads + THREADS - 1) / THREADS, 1, THREADS, 0,
                        (void *[]){p, &h}));
  int64_t count = fed * q->heads, direct = count - extras * q->heads;
  for (int64_t first = 0; first < count; first += direct) {
    int64_t now = first == 0 && direct > 0 ? direct : count - first;
    bool apart = first > 0 || direct == 0;
    gates.data = p->places + first, before.data = p->places + count + first, out.data = p->places + 2 * count + first;
    if (apart) gates.leading = extras * units;
    PL_TRY(pl_blas_multiply_each(cuda, q->dim, q->dim, lines, 1, &gates, &before, 0, &out, now));
    if (apart) break;
  }
  return PL_OK;
}

static pl_status run_backward(pl_cuda *cuda, fused_call *call, const pl_recurrence_gradient *g, const pl_array *states,
                              char *scratch) {
  const pl_recurrence *q = call->q;
  backward_scratch at = lay_out(call);
  pl_cu_function function, sums, spread;
  pl_complaints complaint = pl_complaints_of(cuda);
  pl_backward p = {
      .batch = (int)q->batch,
      .steps = (int)q->steps,
      .heads = (int)q->heads,
      .tiles = (int)call->shape.batch_tiles,
      .recurrent_type = g->recurrent ? (int)g->recurrent->dtype : 0,
      .clip = q->clip,
      .states = pl_view_of(states),
      .last = pl_view_of(g->last),
      .input = pl_view_of(g->input),
      .bias = pl_view_of(g->bias),
      .initial = pl_view_of(g->initial),
      .recurrent = pl_view_of(g->recurrent),
      .packed = scratch + at.packed,
      .records = g->workspace,
      .extra = scratch + at.extra,
      .totals = scratch + at.totals,
      .weights = scratch + at.weights,
      .slots = scratch + at.slots,
      .places = (char **)(void *)(scratch + at.places),
      .lengths = pl_view_of(q->lengths),
      .complaint = (char *)(uintptr_t)complaint.place,
      .lock = (char *)(uintptr_t)complaint.lock,
  };
  for (int i = 0; i < q->cell->params; i++) {
    p.param[i] = pl_view_of(q->param[i]);
    p.param_gradient[i] = pl_view_of(g->param[i]);
  }
  PL_TRY(load_main(cuda, call, &function));
  PL_TRY(load(cuda, call, "fused_backward.cu", "sum_parts", &sums));
  if (call->variant.through) PL_TRY(pack(cuda, call, p.packed));
  PL_TRY(empty_slots(cuda, call, p.slots));
  PL_TRY(launch_main(cuda, call, function, &p, &p.first_group));
  unsigned count = (unsigned)(pl_cell_biases(q->cell) + q->cell->params);
  if (count) PL_TRY(launch_over(cuda, sums, q->heads * q->dim, count, &p));
  if (!g->recurrent) return PL_OK;
  PL_TRY(load(cuda, call, "fused_backward.cu", "spread_weights", &spread));
  PL_TRY(multiply_weights(cuda, call, &p, p.records + records_bytes(call)));
  return launch_over(cuda, spread, pl_cell_recurrents(q->cell) * q->heads * q->dim * q->dim, 1, &p);
}

pl_status pl_cuda_fused_backward(pl_device *device, const pl_recurrence *q, const pl_recurrence_gradient *g) {
  pl_cuda *cuda;
  fused_call call;
  pl_fused_variant variant = {.backward = true,
                              .lengths = q->lengths != NULL,
                              .given = g->states ? (int)g->states->size[0] : 0,
                              .want_input = g->input != NULL,
                              .want_recurrent = g->recurrent != NULL,
                              .want_initial = g->initial != NULL,
                              .through = pl_cell_recurrents(q->cell) > 0 && !q->cut,
                              .clip = q->clip > 0};
  pl_buffer *scratch = NULL, *copy = NULL;
  pl_array states = {0};
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(prepare(cuda, q, &variant, &call));
  if (g->states) PL_TRY(aligned_lines(device, g->states, &states, &copy));
  pl_status status = pl_buffer_new(device, lay_out(&call).total, &scratch);
  if (status == PL_OK) status = run_backward(cuda, &call, g, g->states ? &states : NULL, scratch->data);
  pl_buffer_release(scratch);
  pl_buffer_release(copy);
  return status;
}
