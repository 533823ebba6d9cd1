/* The arguments of one recurrence on a GPU: what lies in the workspace, what in scratch, and the passes around the
 * steps. Shapes: B batch, T steps, N heads, D dim; a plane is [B,N,D]. */
#include "host/cuda/recurrence.h"

#include "host/cuda/blas.h"
#include "host/cuda/cell_text.h"
#include "host/cuda/recurrence_plan.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256 };

/* Pieces of one allocation: taken twice, first without memory to learn the size. */
typedef struct {
  char *base;
  size_t used;
} arena;

static char *take(arena *a, int64_t elements, pl_dtype type) {
  char *data = a->base ? a->base + a->used : NULL;
  a->used += ((size_t)elements * pl_dtype_size(type) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  return data;
}

static int64_t lines_of(const pl_recurrence *q) { return q->batch * q->heads; }
static int64_t plane_of(const pl_recurrence *q) { return lines_of(q) * q->dim; }

/* ---- the workspace: h before each step and after the last, the states that backward reads, alike, and the saves ----
 */

typedef struct {
  char *h, *carried[PL_STATES_MAX], *saves;
} workspace;

static workspace lay_out(const pl_recurrence *q, const pl_step_shape *shape, arena *a) {
  workspace w = {.h = take(a, (q->steps + 1) * lines_of(q) * shape->row, q->product)};
  unsigned kept = pl_cell_kept(q->cell);
  for (int s = 0; s < q->cell->states; s++)
    if (kept >> s & 1) w.carried[s] = take(a, (q->steps + 1) * plane_of(q), q->type);
  w.saves = take(a, q->steps * q->cell->saves * plane_of(q), q->type);
  return w;
}

pl_status pl_cuda_recurrence_workspace(pl_device *device, const pl_recurrence *q, size_t *bytes) {
  (void)device;
  pl_step_shape shape;
  arena a = {0};
  pl_step_shape_choose(q, false, &shape);
  lay_out(q, &shape, &a);
  *bytes = a.used;
  return PL_OK;
}

/* Lengths as the kernels read them, in scratch of B ints. */
static pl_status bring_lengths(pl_device *device, const pl_recurrence *q, char *to) {
  if (!q->lengths) return PL_OK;
  size_t bytes = (size_t)q->batch * sizeof(int);
  int *list = pl_allocate(bytes + 1);
  for (int64_t b = 0; b < q->batch; b++) list[b] = (int)q->lengths[b];
  pl_status status = device->upload(device, to, list, bytes);
  free(list);
  return status;
}

static pl_status check(const pl_recurrence *q) {
  PL_REQUIRE(plane_of(q) <= INT_MAX && lines_of(q) * pl_cell_recurrents(q->cell) * q->dim <= INT_MAX &&
                 q->steps < INT_MAX && q->dim <= INT_MAX / PL_GATES_MAX,
             "rnn: B=%lld N=%lld D=%lld T=%lld: more than 2^31 elements in a step", (long long)q->batch,
             (long long)q->heads, (long long)q->dim, (long long)q->steps);
  return PL_OK;
}

/* Zeros behind the units, which the tensor cores multiply along. */
static pl_status clear(pl_cuda *cuda, const pl_step_shape *shape, bool padded, char *data, int64_t elements,
                       pl_dtype type) {
  if (!padded || shape->product != PL_PRODUCT_INSIDE) return PL_OK;
  return PL_CUDA(
      pl_cu.MemsetD8Async((pl_cu_pointer)(uintptr_t)data, 0, (size_t)elements * pl_dtype_size(type), cuda->stream));
}

/* ---- forward ---- */

typedef struct {
  char *lengths, *h, *carried[PL_STATES_MAX];
} forward_scratch;

/* What is not in a workspace: two places for h in turn, one for each state, which every thread replaces for itself. */
static forward_scratch lay_out_forward(const pl_recurrence *q, const pl_step_shape *shape, bool remember, arena *a) {
  forward_scratch w = {.lengths = take(a, q->lengths ? q->batch : 0, PL_I32)};
  unsigned kept = remember ? pl_cell_kept(q->cell) : 0;
  if (!remember) w.h = take(a, 2 * lines_of(q) * shape->row, q->product);
  for (int s = 0; s < q->cell->states; s++)
    if (!(kept >> s & 1)) w.carried[s] = take(a, plane_of(q), q->type);
  return w;
}

static pl_forward_arguments forward_arguments(const pl_recurrence *q, const pl_recurrence_result *result,
                                              const pl_step_plan *plan, const workspace *w, const forward_scratch *x) {
  pl_forward_arguments p = {
      .batch = (int)q->batch,
      .steps = (int)q->steps,
      .heads = (int)q->heads,
      .dim = (int)q->dim,
      .row = (int)plan->shape.row,
      .states_count = result->states ? (int)result->states->size[0] : 0,
      .h_mask = w->h ? -1 : 1,
      .input = pl_view_of(q->input),
      .bias = pl_view_of(q->bias),
      .initial = pl_view_of(q->initial),
      .states = pl_view_of(result->states),
      .last = pl_view_of(result->last),
      .h = w->h ? w->h : x->h,
      .h_current = plan->current,
      .saves = w->saves,
      .packed = plan->packed,
      .product = plan->result,
      .lengths = (const int *)(void *)x->lengths,
  };
  if (!q->lengths) p.lengths = NULL;
  for (int s = 0; s < q->cell->states; s++) {
    p.carried[s] = w->carried[s] ? w->carried[s] : x->carried[s];
    p.mask[s] = w->carried[s] ? -1 : 0;
    p.initial_value[s] = q->cell->initial[s];
  }
  for (int i = 0; i < q->cell->params; i++) p.param[i] = pl_view_of(q->param[i]);
  return p;
}

static pl_status run_forward(pl_device *device, pl_step_plan *plan, const pl_recurrence *q,
                             const pl_recurrence_result *result, char *scratch) {
  pl_cuda *cuda = device->state;
  const pl_step_shape *shape = &plan->shape;
  arena kept = {.base = result->workspace}, own = {.base = scratch};
  workspace w = result->workspace ? lay_out(q, shape, &kept) : (workspace){0};
  forward_scratch x = lay_out_forward(q, shape, result->workspace != NULL, &own);
  pl_forward_arguments p = forward_arguments(q, result, plan, &w, &x);
  PL_TRY(bring_lengths(device, q, x.lengths));
  int64_t planes = w.h ? q->steps + 1 : 2;
  PL_TRY(clear(cuda, shape, shape->row != q->dim, p.h, planes * lines_of(q) * shape->row, q->product));
  PL_TRY(pl_step_plan_pack(plan, q->recurrent));
  PL_TRY(pl_step_plan_launch(plan, plan->begin, plane_of(q), 1, (void *[]){&p, &plan->arguments}));
  PL_TRY(pl_step_plan_run(plan));
  return pl_step_plan_launch(plan, plan->last, plane_of(q), 1, (void *[]){&plan->arguments});
}

pl_status pl_cuda_recurrence_forward(pl_device *device, const pl_recurrence *q, const pl_recurrence_result *result) {
  pl_cuda *cuda;
  pl_step_plan *plan;
  pl_buffer *scratch;
  arena a = {0};
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(check(q));
  PL_TRY(pl_step_plan_find(cuda, q, false, false, &plan));
  lay_out_forward(q, &plan->shape, result->workspace != NULL, &a);
  PL_TRY(pl_buffer_new(device, a.used, &scratch));
  pl_status status = run_forward(device, plan, q, result, scratch->data);
  pl_buffer_release(scratch); /* whoever has it next comes later on the same stream */
  return status;
}

/* ---- backward ---- */

typedef struct {
  char *lengths, *gates, *leaving, *sums, *weights;
} backward_scratch;

static backward_scratch lay_out_backward(const pl_recurrence *q, const pl_step_shape *shape, bool weights, arena *a) {
  const pl_cell *cell = q->cell;
  return (backward_scratch){
      .lengths = take(a, q->lengths ? q->batch : 0, PL_I32),
      .gates = take(a, (weights ? q->steps : 2) * lines_of(q) * shape->across, q->product),
      .leaving = take(a, cell->states * plane_of(q), q->type),
      .sums = take(a, (pl_cell_biases(cell) + cell->params) * plane_of(q), q->type),
      .weights = take(a, weights ? shape->recurrents * q->heads * q->dim * q->dim : 0, q->type),
  };
}

static pl_backward_arguments backward_arguments(const pl_recurrence *q, const pl_recurrence_gradient *g,
                                                const pl_step_plan *plan, const workspace *w,
                                                const backward_scratch *x) {
  pl_backward_arguments p = {
      .batch = (int)q->batch,
      .steps = (int)q->steps,
      .heads = (int)q->heads,
      .dim = (int)q->dim,
      .across = (int)plan->shape.across,
      .states_count = g->states ? (int)g->states->size[0] : 0,
      .gates_mask = g->recurrent ? -1 : 1,
      .through = plan->through,
      .clip = q->clip,
      .states = pl_view_of(g->states),
      .last = pl_view_of(g->last),
      .input = pl_view_of(g->input),
      .bias = pl_view_of(g->bias),
      .initial = pl_view_of(g->initial),
      .recurrent = pl_view_of(g->recurrent),
      .recurrent_type = g->recurrent ? (int)g->recurrent->dtype : 0,
      .gates = x->gates,
      .gates_current = plan->current,
      .saves = w->saves,
      .packed = plan->packed,
      .product = plan->result,
      .leaving = x->leaving,
      .sums = x->sums,
      .weights = x->weights,
      .lengths = (const int *)(void *)x->lengths,
  };
  if (!q->lengths) p.lengths = NULL;
  memcpy(p.carried, w->carried, sizeof p.carried);
  for (int i = 0; i < q->cell->params; i++) {
    p.param[i] = pl_view_of(q->param[i]);
    p.param_gradient[i] = pl_view_of(g->param[i]);
  }
  return p;
}

/* dR: the gradients of gates of all steps and rows, transposed, times h before those steps; one product per head. */
static pl_status weights(pl_cuda *cuda, pl_step_plan *plan, const pl_recurrence *q, const workspace *w,
                         const backward_scratch *x) {
  const pl_step_shape *s = &plan->shape;
  int64_t all = s->recurrents * s->dim;
  pl_blas_matrix gates = {x->gates, q->product, true, s->heads * s->across, s->across};
  pl_blas_matrix h = {w->h, q->product, false, s->heads * s->row, s->row};
  pl_blas_matrix out = {x->weights, q->type, false, s->dim, all * s->dim};
  PL_TRY(pl_blas_multiply(cuda, all, s->dim, s->steps * s->batch, 1, &gates, &h, 0, &out, s->heads));
  return pl_step_plan_launch(plan, plan->spread, s->heads * all * s->dim, 1, (void *[]){&plan->arguments});
}

static pl_status run_backward(pl_device *device, pl_step_plan *plan, const pl_recurrence *q,
                              const pl_recurrence_gradient *g, char *scratch) {
  pl_cuda *cuda = device->state;
  const pl_step_shape *shape = &plan->shape;
  arena kept = {.base = g->workspace}, own = {.base = scratch};
  workspace w = lay_out(q, shape, &kept);
  backward_scratch x = lay_out_backward(q, shape, g->recurrent != NULL, &own);
  pl_backward_arguments p = backward_arguments(q, g, plan, &w, &x);
  int64_t planes = g->recurrent ? q->steps : 2, across = lines_of(q) * shape->across;
  PL_TRY(bring_lengths(device, q, x.lengths));
  PL_TRY(clear(cuda, shape, shape->across != shape->recurrents * q->dim, x.gates, planes * across, q->product));
  PL_TRY(pl_step_plan_pack(plan, q->recurrent));
  PL_TRY(pl_step_plan_launch(plan, plan->begin, plane_of(q), 1, (void *[]){&p, &plan->arguments}));
  PL_TRY(pl_step_plan_run(plan));
  unsigned sums = (unsigned)(pl_cell_biases(q->cell) + q->cell->params);
  if (sums) PL_TRY(pl_step_plan_launch(plan, plan->last, q->heads * q->dim, sums, (void *[]){&plan->arguments}));
  return g->recurrent ? weights(cuda, plan, q, &w, &x) : PL_OK;
}

pl_status pl_cuda_recurrence_backward(pl_device *device, const pl_recurrence *q, const pl_recurrence_gradient *g) {
  pl_cuda *cuda;
  pl_step_plan *plan;
  pl_buffer *scratch;
  arena a = {0};
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(check(q));
  PL_TRY(pl_step_plan_find(cuda, q, true, g->initial != NULL, &plan));
  lay_out_backward(q, &plan->shape, g->recurrent != NULL, &a);
  PL_TRY(pl_buffer_new(device, a.used, &scratch));
  pl_status status = run_backward(device, plan, q, g, scratch->data);
  pl_buffer_release(scratch);
  return status;
}
