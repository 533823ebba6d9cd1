/* The arguments of one recurrence on a GPU: what lies in the workspace, what in scratch, and the passes around the
 * steps. Shapes: B batch, T steps, N heads, D dim; a plane is [B,N,D]. */
#include "host/cuda/recurrence.h"

#include "host/cuda/blas.h"
#include "host/cuda/cell_text.h"
#include "host/cuda/fused.h"
#include "host/cuda/recurrence_plan.h"
#include <limits.h>
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
  if (q->plan.rows) return pl_cuda_fused_workspace(device, q, bytes);
  pl_step_shape shape;
  arena a = {0};
  PL_TRY(pl_step_shape_of(q, false, &shape));
  lay_out(q, &shape, &a);
  *bytes = a.used;
  return PL_OK;
}

static pl_status check(const pl_recurrence *q) {
  PL_REQUIRE(q->steps > 0, "rnn: T: expected at least one time step");
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

/* ---- what both ways have in common ---- */

/* One call: forward has `result`, backward `gradient`. */
typedef struct {
  const pl_recurrence *q;
  const pl_recurrence_result *result;
  const pl_recurrence_gradient *gradient;
  pl_step_shape shape;
  pl_step_plan *plan;
  workspace w; /* empty where no backward will follow */
} way;

typedef struct {
  char *lengths;
  char *h, *carried[PL_STATES_MAX];       /* forward: what is not in a workspace */
  char *gates, *leaving, *sums, *weights; /* backward */
} scratch;

/* Forward: two places for h in turn, one for each state, which every thread replaces for itself. */
static scratch lay_out_scratch(const way *y, arena *a) {
  const pl_recurrence *q = y->q;
  const pl_cell *cell = q->cell;
  scratch x = {.lengths = take(a, q->lengths ? q->batch : 0, PL_I32)};
  if (y->gradient) {
    bool weights = y->gradient->recurrent != NULL;
    x.gates = take(a, (weights ? q->steps : 2) * lines_of(q) * y->shape.across, q->product);
    x.leaving = take(a, cell->states * plane_of(q), q->type);
    x.sums = take(a, (pl_cell_biases(cell) + cell->params) * plane_of(q), q->type);
    x.weights = take(a, weights ? y->shape.recurrents * q->heads * q->dim * q->dim : 0, q->type);
    return x;
  }
  unsigned kept = y->result->workspace ? pl_cell_kept(cell) : 0;
  if (!y->result->workspace) x.h = take(a, 2 * lines_of(q) * y->shape.row, q->product);
  for (int s = 0; s < cell->states; s++)
    if (!(kept >> s & 1)) x.carried[s] = take(a, plane_of(q), q->type);
  return x;
}

static pl_step_arguments common_arguments(const way *y, const scratch *x) {
  const pl_recurrence *q = y->q;
  const pl_cuda *cuda = y->plan->cuda;
  pl_step_arguments p = {
      .batch = (int)q->batch,
      .steps = (int)q->steps,
      .heads = (int)q->heads,
      .dim = (int)q->dim,
      .first = pl_step_plan_first(y->plan),
      .row = (int)y->shape.row,
      .across = (int)y->shape.across,
      .saves = y->w.saves,
      .packed = y->plan->packed,
      .product = y->plan->result,
      .given_lengths = pl_view_of(q->lengths),
      .lengths = q->lengths ? (int *)(void *)x->lengths : NULL,
      .lock = (int *)(uintptr_t)cuda->complaint_lock,
      .complaint = (void *)cuda->complaint,
  };
  for (int i = 0; i < q->cell->params; i++) p.param[i] = pl_view_of(q->param[i]);
  return p;
}

static pl_status launch(const way *y, pl_cu_function function, int64_t count, unsigned blocks_y) {
  return pl_step_plan_launch(y->plan, function, count, blocks_y, (void *[]){&y->plan->arguments});
}

/* R to its place, `begin`, and all steps. */
static pl_status run_steps(const way *y, pl_step_arguments *p) {
  PL_TRY(pl_step_plan_pack(y->plan, y->q->recurrent));
  PL_TRY(pl_step_plan_launch(y->plan, y->plan->begin, plane_of(y->q), 1, (void *[]){p, &y->plan->arguments}));
  return pl_step_plan_run(y->plan);
}

/* Scratch, the plan, then `run`, which makes no buffers: the plan is only borrowed. */
static pl_status run_way(pl_device *device, way *y, void *memory, pl_status (*run)(const way *y, const scratch *x)) {
  pl_cuda *cuda;
  pl_buffer *owned;
  arena kept = {.base = memory}, own = {0};
  bool backward = y->gradient != NULL;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(check(y->q));
  if (backward && y->gradient->recurrent) PL_TRY(pl_blas_ready(cuda));
  PL_TRY(pl_step_shape_of(y->q, backward, &y->shape));
  if (memory) y->w = lay_out(y->q, &y->shape, &kept);
  lay_out_scratch(y, &own);
  PL_TRY(pl_buffer_new(device, own.used, &owned));
  own = (arena){.base = owned->data};
  scratch x = lay_out_scratch(y, &own);
  pl_status status = pl_step_plan_find(cuda, y->q, backward, backward && y->gradient->initial != NULL, &y->plan);
  if (status == PL_OK) status = run(y, &x);
  pl_buffer_release(owned); /* whoever has it next comes later on the same stream */
  return status;
}

/* ---- forward ---- */

static pl_status run_forward(const way *y, const scratch *x) {
  const pl_recurrence *q = y->q;
  const pl_recurrence_result *result = y->result;
  const pl_step_shape *shape = &y->shape;
  pl_step_arguments p = common_arguments(y, x);
  p.h = y->w.h ? y->w.h : x->h;
  p.h_mask = y->w.h ? -1 : 1;
  p.h_current = y->plan->current;
  p.states_count = result->states ? (int)result->states->size[0] : 0;
  p.input = pl_view_of(q->input);
  p.bias = pl_view_of(q->bias);
  p.initial = pl_view_of(q->initial);
  p.states = pl_view_of(result->states);
  p.last = pl_view_of(result->last);
  for (int s = 0; s < q->cell->states; s++) {
    p.carried[s] = y->w.carried[s] ? y->w.carried[s] : x->carried[s];
    p.mask[s] = y->w.carried[s] ? -1 : 0;
    p.initial_value[s] = q->cell->initial[s];
  }
  int64_t planes = y->w.h ? q->steps + 1 : 2;
  PL_TRY(clear(y->plan->cuda, shape, shape->row != q->dim, p.h, planes * lines_of(q) * shape->row, q->product));
  PL_TRY(run_steps(y, &p));
  return launch(y, y->plan->last, plane_of(q), 1);
}

pl_status pl_cuda_recurrence_forward(pl_device *device, const pl_recurrence *q, const pl_recurrence_result *result) {
  if (q->plan.rows) return pl_cuda_fused_forward(device, q, result);
  way y = {.q = q, .result = result};
  return run_way(device, &y, result->workspace, run_forward);
}

/* ---- backward ---- */

/* dR: the gradients of gates of all steps and rows, transposed, times h before those steps; one product per head. */
static pl_status weights(const way *y, const scratch *x) {
  const pl_recurrence *q = y->q;
  const pl_step_shape *s = &y->shape;
  int64_t all = s->recurrents * s->dim;
  pl_blas_matrix gates = {x->gates, q->product, true, s->heads * s->across, s->across};
  pl_blas_matrix h = {y->w.h, q->product, false, s->heads * s->row, s->row};
  pl_blas_matrix out = {x->weights, q->type, false, s->dim, all * s->dim};
  PL_TRY(pl_blas_multiply(y->plan->cuda, all, s->dim, s->steps * s->batch, 1, &gates, &h, 0, &out, s->heads));
  return launch(y, y->plan->spread, s->heads * all * s->dim, 1);
}

static pl_status run_backward(const way *y, const scratch *x) {
  const pl_recurrence *q = y->q;
  const pl_recurrence_gradient *g = y->gradient;
  const pl_step_shape *shape = &y->shape;
  pl_step_arguments p = common_arguments(y, x);
  p.gates = x->gates;
  p.gates_mask = g->recurrent ? -1 : 1;
  p.gates_current = y->plan->current;
  p.leaving = x->leaving;
  p.sums = x->sums;
  p.weights = x->weights;
  p.through = y->plan->through;
  p.clip = q->clip;
  p.states_count = g->states ? (int)g->states->size[0] : 0;
  p.states = pl_view_of(g->states);
  p.last = pl_view_of(g->last);
  p.input = pl_view_of(g->input);
  p.bias = pl_view_of(g->bias);
  p.initial = pl_view_of(g->initial);
  p.recurrent = pl_view_of(g->recurrent);
  p.recurrent_type = g->recurrent ? (int)g->recurrent->dtype : 0;
  memcpy(p.carried, y->w.carried, sizeof p.carried);
  for (int i = 0; i < q->cell->params; i++) p.param_gradient[i] = pl_view_of(g->param[i]);
  int64_t elements = (g->recurrent ? q->steps : 2) * lines_of(q) * shape->across;
  PL_TRY(clear(y->plan->cuda, shape, shape->across != shape->recurrents * q->dim, p.gates, elements, q->product));
  PL_TRY(run_steps(y, &p));
  unsigned sums = (unsigned)(pl_cell_biases(q->cell) + q->cell->params);
  if (sums) PL_TRY(launch(y, y->plan->last, q->heads * q->dim * (PL_STEP_THREADS / PL_SUM_UNITS), sums));
  return g->recurrent ? weights(y, x) : PL_OK;
}

pl_status pl_cuda_recurrence_backward(pl_device *device, const pl_recurrence *q, const pl_recurrence_gradient *g) {
  if (q->plan.rows) return pl_cuda_fused_backward(device, q, g);
  way y = {.q = q, .gradient = g};
  return run_way(device, &y, g->workspace, run_backward);
}
