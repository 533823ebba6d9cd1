/* Plans of recurrences, kept for the next call of the same sizes. */
#include "host/cuda/recurrence_plan.h"

#include "host/cuda/blas.h"
#include <stdlib.h>
#include <string.h>

enum { PLANS_MAX = 24, GRAPH_STEPS_MIN = 8, PIECE_ALIGNMENT = 256, PROGRAMMATIC_DRIVER = 12040, PROGRAMMATIC_SM = 90 };

static pl_step_plan *plans[PLANS_MAX];
static uint64_t clock_ticks;

pl_view pl_view_of(const pl_array *array) {
  pl_view view = {0};
  if (!array) return view;
  view.data = pl_array_data(array);
  for (int i = 0; i < array->rank && i < 5; i++) view.stride[i] = array->stride[i];
  return view;
}

/* Leaves the context of the plan's GPU current. */
static void plan_free(pl_step_plan *plan) {
  pl_cuda *cuda;
  /* Freeing waits until the GPU is done with the memory. A lost context has freed everything already. */
  bool here = pl_cuda_enter(&plan->cuda->device, &cuda) == PL_OK;
  for (int i = 0; i < PL_STEP_GRAPHS; i++)
    if (here && plan->graphs[i].graph) (void)pl_cu.GraphExecDestroy(plan->graphs[i].graph);
  if (here && plan->memory) (void)pl_cu.MemFree(plan->memory);
  free(plan->key);
  free(plan);
}

/* ---- making ---- */

static void print_key(const pl_recurrence *q, bool backward, bool to_initial, const pl_cuda *cuda, pl_text *key) {
  pl_text_print(key, "%d %d %d %d %d %lld %lld %lld %d %d %d %s", cuda->ordinal, backward, to_initial,
                backward && q->cut, pl_tf32_allowed(), (long long)q->batch, (long long)q->heads, (long long)q->dim,
                q->type, q->storage, q->product, q->cell->key);
}

static pl_status load(pl_step_plan *plan, const char *file, const char *text, const char *name,
                      pl_cu_function *function) {
  pl_text words = {0};
  pl_text_print(&words, "%s %s\n%s", file, name, text);
  uint64_t key = pl_cuda_key(PL_FAMILY_RECURRENCE, words.data);
  pl_text_release(&words);
  *function = pl_cuda_kernel_found(plan->cuda, key);
  if (*function) return PL_OK;
  return pl_cuda_kernel_load(plan->cuda, key, file, text, "", name, function);
}

static pl_status load_kernels(pl_step_plan *plan, const pl_recurrence *q) {
  const char *file = plan->backward ? "recurrence_backward.cu" : "recurrence_forward.cu";
  pl_text text = {0};
  pl_status status = pl_step_text(q, &plan->shape, &text);
  if (status == PL_OK) status = load(plan, file, text.data, "begin", &plan->begin);
  if (status == PL_OK) status = load(plan, file, text.data, "step", &plan->step);
  if (status == PL_OK) status = load(plan, file, text.data, plan->backward ? "sum_rows" : "end", &plan->last);
  if (status == PL_OK && plan->backward) status = load(plan, file, text.data, "spread_weights", &plan->spread);
  pl_text_clear(&text);
  if (status == PL_OK) status = pl_pack_text(q, &text);
  if (status == PL_OK) status = load(plan, "recurrence_pack.cu", text.data, "pack_weights", &plan->pack);
  pl_text_release(&text);
  return status;
}

static int64_t packed_elements(const pl_step_plan *plan) {
  const pl_step_shape *s = &plan->shape;
  if (s->product == PL_PRODUCT_INSIDE)
    return s->heads * s->tiles * (s->columns / s->unit_tiles) * s->chunks * PL_TILE_UNITS *
           (PL_CHUNK_BYTES / (int64_t)pl_dtype_size(plan->product_type));
  return s->heads * s->recurrents * s->dim * s->dim;
}

static size_t piece(int64_t elements, pl_dtype type) {
  size_t bytes = (size_t)elements * pl_dtype_size(type);
  return (bytes + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
}

static pl_status place_memory(pl_step_plan *plan) {
  const pl_step_shape *s = &plan->shape;
  bool blas = s->product == PL_PRODUCT_BLAS;
  int64_t lines = blas ? s->batch * s->heads : 0;
  size_t arguments = piece(plan->backward ? sizeof(pl_backward_arguments) : sizeof(pl_forward_arguments), PL_U8);
  size_t packed = piece(packed_elements(plan), plan->product_type);
  size_t current = piece(lines * (plan->backward ? s->across : s->row), plan->product_type);
  size_t result = piece(lines * (plan->backward ? s->dim : s->recurrents * s->dim), plan->type);
  void *memory;
  PL_TRY(plan->cuda->device.allocate(&plan->cuda->device, arguments + packed + current + result, &memory));
  plan->memory = (pl_cu_pointer)(uintptr_t)memory;
  plan->arguments = memory;
  plan->packed = plan->arguments + arguments;
  plan->current = blas ? plan->packed + packed : NULL;
  plan->result = blas ? plan->current + current : NULL;
  return PL_OK;
}

static void forget_plans(void) {
  for (int i = 0; i < PLANS_MAX; i++) {
    if (plans[i]) plan_free(plans[i]);
    plans[i] = NULL;
  }
}

static pl_status plan_make(pl_cuda *cuda, const pl_recurrence *q, bool backward, bool to_initial, pl_step_plan *plan) {
  plan->cuda = cuda;
  plan->backward = backward;
  plan->product_type = q->product;
  plan->type = q->type;
  pl_step_shape_choose(q, backward, &plan->shape);
  plan->through = plan->shape.recurrents > 0 && !q->cut;
  plan->to_initial = to_initial;
  if (plan->shape.product == PL_PRODUCT_BLAS) PL_TRY(pl_blas_ready(cuda));
  PL_TRY(load_kernels(plan, q));
  pl_status status = place_memory(plan);
  if (status != PL_OUT_OF_MEMORY) return status;
  forget_plans();
  PL_TRY(pl_cuda_enter(&cuda->device, &cuda));
  pl_device_trim(&cuda->device);
  return place_memory(plan);
}

pl_status pl_step_plan_find(pl_cuda *cuda, const pl_recurrence *q, bool backward, bool to_initial,
                            pl_step_plan **plan) {
  pl_text key = {0};
  print_key(q, backward, to_initial, cuda, &key);
  int oldest = 0;
  for (int i = 0; i < PLANS_MAX; i++) {
    if (plans[i] && strcmp(plans[i]->key, key.data) == 0) {
      *plan = plans[i];
      (*plan)->used = ++clock_ticks;
      (*plan)->shape.steps = q->steps;
      pl_text_release(&key);
      return PL_OK;
    }
    if (plans[oldest] && (!plans[i] || plans[i]->used < plans[oldest]->used)) oldest = i;
  }
  pl_step_plan *made = pl_allocate(sizeof *made);
  made->key = key.data; /* the text's memory changes hands */
  made->used = ++clock_ticks;
  pl_status status = plan_make(cuda, q, backward, to_initial, made);
  if (status != PL_OK) {
    plan_free(made);
    return status;
  }
  if (plans[oldest]) plan_free(plans[oldest]);
  plans[oldest] = *plan = made;
  return pl_cuda_enter(&cuda->device, &cuda);
}

/* ---- running ---- */

pl_status pl_step_plan_launch(pl_step_plan *plan, pl_cu_function function, int64_t count, unsigned blocks_y,
                              void **parameters) {
  uint64_t blocks = ((uint64_t)count + PL_STEP_THREADS - 1) / PL_STEP_THREADS;
  return pl_cuda_launch(plan->cuda, function, blocks, blocks_y, PL_STEP_THREADS, 0, parameters);
}

pl_status pl_step_plan_pack(pl_step_plan *plan, const pl_array *recurrent) {
  const pl_step_shape *s = &plan->shape;
  if (s->product == PL_PRODUCT_NONE || (plan->backward && !plan->through)) return PL_OK;
  int inside = plan->backward ? PL_PACK_BACKWARD : PL_PACK_FORWARD;
  pl_pack_arguments arguments = {.recurrent = pl_view_of(recurrent),
                                 .type = (int)recurrent->dtype,
                                 .gates = (int)s->recurrents,
                                 .heads = (int)s->heads,
                                 .dim = (int)s->dim,
                                 .layout = s->product == PL_PRODUCT_INSIDE ? inside : PL_PACK_PLAIN,
                                 .chunks = s->chunks,
                                 .tiles = s->tiles,
                                 .packed = plan->packed};
  return pl_step_plan_launch(plan, plan->pack, packed_elements(plan), 1, (void *[]){&arguments});
}

/* The product in front of a step: R h forward, R^T times the gradients of gates backward, all heads at once. */
static pl_status multiply(pl_step_plan *plan) {
  const pl_step_shape *s = &plan->shape;
  int64_t all = s->recurrents * s->dim, left = plan->backward ? s->across : s->row;
  int64_t right = plan->backward ? s->dim : all;
  pl_blas_matrix current = {plan->current, plan->product_type, false, s->heads * left, left};
  pl_blas_matrix packed = {plan->packed, plan->product_type, !plan->backward, s->dim, all * s->dim};
  pl_blas_matrix result = {plan->result, plan->type, false, s->heads * right, right};
  return pl_blas_multiply(plan->cuda, s->batch, right, plan->backward ? all : s->dim, 1, &current, &packed, 0, &result,
                          s->heads);
}

/* `overlap`: what stands in front is a step or its product, so the kernel may begin before that has ended. */
static pl_status launch_step(pl_step_plan *plan, int step, bool overlap) {
  const pl_step_shape *s = &plan->shape;
  bool inside = s->product == PL_PRODUCT_INSIDE;
  int64_t count = s->batch * s->heads * s->dim;
  pl_cu_launch_attribute attribute = {.id = PL_CU_LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION};
  attribute.value.programmatic_stream_serialization = 1;
  bool programmatic =
      overlap && plan->cuda->architecture >= PROGRAMMATIC_SM && pl_driver_version() >= PROGRAMMATIC_DRIVER;
  pl_cu_launch launch = {
      .grid_x = (unsigned)(inside ? s->tiles / s->unit_tiles : (count + PL_STEP_THREADS - 1) / PL_STEP_THREADS),
      .grid_y = inside ? (unsigned)s->heads : 1,
      .grid_z = inside ? (unsigned)((s->batch + 16 * s->rows - 1) / (16 * s->rows)) : 1,
      .block_x = inside ? 32 * (unsigned)s->warps : PL_STEP_THREADS,
      .block_y = 1,
      .block_z = 1,
      .stream = plan->cuda->stream,
      .attributes = &attribute,
      .attribute_count = programmatic,
  };
  void *arguments = plan->arguments;
  return PL_CUDA(pl_cu.LaunchKernelEx(&launch, plan->step, (void *[]){&arguments, &step}, NULL));
}

static pl_status launch_steps(pl_step_plan *plan) {
  int steps = (int)plan->shape.steps, end = plan->to_initial ? -1 : 0;
  bool blas = plan->shape.product == PL_PRODUCT_BLAS;
  if (!plan->backward) {
    for (int t = 0; t < steps; t++) {
      if (blas) PL_TRY(multiply(plan));
      PL_TRY(launch_step(plan, t, blas || t > 0));
    }
    return PL_OK;
  }
  for (int t = steps - 1; t >= end; t--) {
    bool product = blas && plan->through && t < steps - 1;
    if (product) PL_TRY(multiply(plan));
    PL_TRY(launch_step(plan, t, t < steps - 1));
  }
  return PL_OK;
}

/* The graph owns copies of all launches; a capture that fails leaves the stream as it was. */
static pl_status capture(pl_step_plan *plan, pl_cu_graph_exec *made) {
  pl_cu_graph graph = NULL;
  PL_CUDA_TRY(pl_cu.StreamBeginCapture(plan->cuda->stream, PL_CU_CAPTURE_THREAD_LOCAL));
  pl_status launched = launch_steps(plan);
  if (launched != PL_OK) {
    (void)pl_cu.StreamEndCapture(plan->cuda->stream, &graph);
    if (graph) (void)pl_cu.GraphDestroy(graph);
    return launched;
  }
  PL_CUDA_TRY(pl_cu.StreamEndCapture(plan->cuda->stream, &graph));
  pl_status status = PL_CUDA(pl_cu.GraphInstantiate(made, graph, 0));
  (void)pl_cu.GraphDestroy(graph);
  return status;
}

/* The place of this many steps: where they are known, or of the steps used longest ago, which are forgotten. */
static pl_step_graph *graph_of(pl_step_plan *plan) {
  pl_step_graph *oldest = &plan->graphs[0];
  for (int i = 0; i < PL_STEP_GRAPHS; i++) {
    pl_step_graph *at = &plan->graphs[i];
    if (at->steps == plan->shape.steps) return at;
    if (at->used < oldest->used) oldest = at;
  }
  if (oldest->graph) (void)pl_cu.GraphExecDestroy(oldest->graph); /* lives on until it has run */
  *oldest = (pl_step_graph){.steps = plan->shape.steps};
  return oldest;
}

pl_status pl_step_plan_run(pl_step_plan *plan) {
  if (plan->shape.steps <= GRAPH_STEPS_MIN) return launch_steps(plan);
  pl_step_graph *at = graph_of(plan);
  at->used = ++clock_ticks;
  /* Numbers of steps that never come again are not worth a graph. */
  if (++at->uses == 1) return launch_steps(plan);
  if (!at->graph) PL_TRY(capture(plan, &at->graph));
  return PL_CUDA(pl_cu.GraphLaunch(at->graph, plan->cuda->stream));
}
