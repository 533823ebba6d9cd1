/* Plans of recurrences: their kernels and memory, kept for the next call of the same sizes. */
#include "host/cuda/recurrence_plan.h"

#include "host/cuda/blas.h"
#include <stdlib.h>
#include <string.h>

enum { PLANS_MAX = 24, MEMORY_PART = 16, PIECE_ALIGNMENT = 256 };

/* Those of one GPU, the one used last in front. */
struct pl_step_plans {
  int count;
  size_t bytes;
  pl_step_plan *plan[PLANS_MAX];
};

pl_view pl_view_of(const pl_array *array) {
  pl_view view = {0};
  if (!array) return view;
  view.data = pl_array_data(array);
  for (int i = 0; i < array->rank && i < 5; i++) view.stride[i] = array->stride[i];
  return view;
}

static void plan_free(pl_step_plan *plan) {
  pl_cuda *cuda;
  /* A lost context has freed its graphs already. */
  if (pl_cuda_enter(&plan->cuda->device, &cuda) == PL_OK) pl_step_graphs_forget(plan);
  pl_buffer_release(plan->memory); /* whoever has it next comes later on the same stream */
  const pl_cu_function held[] = {plan->begin, plan->step, plan->last, plan->spread, plan->pack};
  for (size_t i = 0; i < sizeof held / sizeof *held; i++) pl_cuda_kernel_release(plan->cuda, held[i]);
  free(plan->key);
  free(plan);
}

/* ---- making ---- */

static void print_key(const pl_recurrence *q, bool backward, bool to_initial, pl_text *key) {
  const pl_step_cut *cut = &q->step[backward];
  pl_text_print(key, "%d %d %d %d %lld %lld %lld %d %d %d %d %d %d %d %s", backward, to_initial, backward && q->cut,
                pl_tf32_allowed(), (long long)q->batch, (long long)q->heads, (long long)q->dim, q->type, q->storage,
                q->product, (int)cut->product, cut->warps, cut->rows, cut->unit_tiles, q->cell->key);
}

static pl_status load(pl_step_plan *plan, const char *file, const char *text, const char *name,
                      pl_cu_function *function) {
  pl_text words = {0};
  pl_text_print(&words, "%s %s\n%s", file, name, text);
  uint64_t key = pl_cuda_key(PL_FAMILY_RECURRENCE, words.data);
  pl_text_release(&words);
  *function = pl_cuda_kernel_found(plan->cuda, key);
  if (!*function) PL_TRY(pl_cuda_kernel_load(plan->cuda, key, file, text, "", name, function));
  pl_cuda_kernel_hold(plan->cuda, *function);
  return PL_OK;
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
  size_t arguments = piece(sizeof(pl_step_arguments), PL_U8);
  size_t packed = piece(packed_elements(plan), plan->product_type);
  size_t current = piece(lines * (plan->backward ? s->across : s->row), plan->product_type);
  size_t result = piece(lines * (plan->backward ? s->dim : s->recurrents * s->dim), plan->type);
  PL_TRY(pl_buffer_new(&plan->cuda->device, arguments + packed + current + result, &plan->memory));
  plan->arguments = plan->memory->data;
  plan->packed = plan->arguments + arguments;
  plan->current = blas ? plan->packed + packed : NULL;
  plan->result = blas ? plan->current + current : NULL;
  return PL_OK;
}

static pl_status plan_make(pl_cuda *cuda, const pl_recurrence *q, bool backward, bool to_initial, pl_step_plan *plan) {
  plan->cuda = cuda;
  plan->backward = backward;
  plan->product_type = q->product;
  plan->type = q->type;
  PL_TRY(pl_step_shape_of(q, backward, &plan->shape));
  plan->through = plan->shape.recurrents > 0 && !q->cut;
  plan->to_initial = to_initial;
  if (plan->shape.product == PL_PRODUCT_BLAS) PL_TRY(pl_blas_ready(cuda));
  PL_TRY(load_kernels(plan, q));
  return place_memory(plan);
}

/* ---- keeping ---- */

static void drop_last(struct pl_step_plans *kept) {
  pl_step_plan *last = kept->plan[--kept->count];
  kept->bytes -= last->memory->bytes;
  plan_free(last);
}

bool pl_step_plans_shed(pl_device *device) {
  struct pl_step_plans *kept = ((pl_cuda *)device->state)->step_plans;
  if (!kept || kept->count == 0) return false;
  drop_last(kept);
  return true;
}

/* Moves plan `at` to the front. */
static pl_step_plan *bring_forward(struct pl_step_plans *kept, int at) {
  pl_step_plan *plan = kept->plan[at];
  memmove(kept->plan + 1, kept->plan, (size_t)at * sizeof plan);
  return kept->plan[0] = plan;
}

static void keep(struct pl_step_plans *kept, pl_step_plan *plan, size_t bytes_max) {
  while (kept->count == PLANS_MAX || (kept->count > 0 && kept->bytes + plan->memory->bytes > bytes_max))
    drop_last(kept);
  kept->bytes += plan->memory->bytes;
  kept->plan[kept->count] = plan;
  bring_forward(kept, kept->count++);
}

pl_status pl_step_plan_find(pl_cuda *cuda, const pl_recurrence *q, bool backward, bool to_initial,
                            pl_step_plan **plan) {
  if (!cuda->step_plans) cuda->step_plans = pl_allocate(sizeof *cuda->step_plans);
  struct pl_step_plans *kept = cuda->step_plans;
  pl_text key = {0};
  int at = 0;
  print_key(q, backward, to_initial, &key);
  while (at < kept->count && strcmp(kept->plan[at]->key, key.data) != 0) at++;
  if (at < kept->count) {
    *plan = bring_forward(kept, at);
    (*plan)->shape.steps = q->steps;
    pl_text_release(&key);
    return PL_OK;
  }
  *plan = pl_allocate(sizeof **plan);
  (*plan)->key = key.data; /* the text's memory changes hands */
  pl_status status = plan_make(cuda, q, backward, to_initial, *plan);
  if (status == PL_OK)
    keep(kept, *plan, cuda->total_bytes / MEMORY_PART);
  else
    plan_free(*plan);
  return status;
}

/* ---- use ---- */

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
