/* The steps of a recurrence on the stream: launches, and the graphs that repeat them. */
#include "host/cuda/recurrence_plan.h"

#include "host/cuda/blas.h"
#include <stddef.h>
#include <string.h>

/* Bounds on the nodes of a graph, at most two for a step, and on the graphs of all plans together. */
enum { PIECE_STEPS = 512, GRAPHS_MAX = 64, GRAPH_STEPS_MIN = 9 };
enum { PROGRAMMATIC_DRIVER = 12040, PROGRAMMATIC_SM = 90 };

/* A number of steps of a plan that was run lately; its graph is made when it comes again. */
typedef struct {
  const pl_step_plan *plan;
  int steps;
  pl_cu_graph_exec graph;
} piece;

/* The one used last in front. */
static piece pieces[GRAPHS_MAX];
static int piece_count;

/* ---- launches ---- */

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

/* Step k from the arguments' `first` on. `overlap`: what stands in front is a step or its product, so the kernel may
 * begin before that has ended. */
static pl_status launch_step(pl_step_plan *plan, int k, bool overlap) {
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
  return PL_CUDA(pl_cu.LaunchKernelEx(&launch, plan->step, (void *[]){&arguments, &k}, NULL));
}

static pl_status launch_steps(pl_step_plan *plan, int steps) {
  bool blas = plan->shape.product == PL_PRODUCT_BLAS && (!plan->backward || plan->through);
  for (int k = 0; k < steps; k++) {
    PL_TRY(pl_check_interrupt());
    if (blas) PL_TRY(multiply(plan));
    PL_TRY(launch_step(plan, k, blas || k > 0));
  }
  return PL_OK;
}

/* ---- graphs ---- */

/* Whatever fails, the stream captures no longer, and nothing has run. */
static pl_status capture(pl_step_plan *plan, int steps, pl_cu_graph_exec *made) {
  pl_cu_graph graph = NULL;
  PL_CUDA_TRY(pl_cu.StreamBeginCapture(plan->cuda->stream, PL_CU_CAPTURE_THREAD_LOCAL));
  pl_status status = launch_steps(plan, steps);
  pl_cu_result ended = pl_cu.StreamEndCapture(plan->cuda->stream, &graph);
  if (status == PL_OK)
    status = pl_cuda_check(ended, "pl_cu.StreamEndCapture(plan->cuda->stream, &graph)", __FILE__, __LINE__);
  if (status == PL_OK) status = PL_CUDA(pl_cu.GraphInstantiate(made, graph, 0));
  if (graph) (void)pl_cu.GraphDestroy(graph);
  return status;
}

/* A graph that runs lives on until it has ended. */
static void forget(int at) {
  if (pieces[at].graph) (void)pl_cu.GraphExecDestroy(pieces[at].graph);
  memmove(pieces + at, pieces + at + 1, (size_t)(--piece_count - at) * sizeof *pieces);
}

void pl_step_graphs_forget(const pl_step_plan *plan) {
  for (int at = piece_count - 1; at >= 0; at--)
    if (pieces[at].plan == plan) forget(at);
}

/* Moves the piece to the front; *again: it was there. */
static piece *find_piece(const pl_step_plan *plan, int steps, bool *again) {
  int at = 0;
  while (at < piece_count && (pieces[at].plan != plan || pieces[at].steps != steps)) at++;
  *again = at < piece_count;
  if (!*again && piece_count == GRAPHS_MAX) forget(--at);
  piece found = *again ? pieces[at] : (piece){plan, steps, NULL};
  memmove(pieces + 1, pieces, (size_t)at * sizeof *pieces);
  if (!*again) piece_count++;
  pieces[0] = found;
  return pieces;
}

/* A graph for which memory is short is not an error: the same kernels, launched one by one, give the same results. */
static pl_status run_piece(pl_step_plan *plan, int steps) {
  bool again;
  if (steps < GRAPH_STEPS_MIN) return launch_steps(plan, steps);
  piece *at = find_piece(plan, steps, &again);
  /* Numbers of steps that never come again are not worth a graph. */
  if (!again) return launch_steps(plan, steps);
  pl_status status = at->graph ? PL_OK : capture(plan, steps, &at->graph);
  if (status == PL_OK) status = PL_CUDA(pl_cu.GraphLaunch(at->graph, plan->cuda->stream));
  return status == PL_OUT_OF_MEMORY ? launch_steps(plan, steps) : status;
}

/* ---- all steps ---- */

/* Backward, the last step in time comes before the pieces: no product stands in front of it. */
int pl_step_plan_first(const pl_step_plan *plan) { return plan->backward ? (int)plan->shape.steps - 2 : 0; }

pl_status pl_step_plan_run(pl_step_plan *plan) {
  int steps = (int)plan->shape.steps, first = pl_step_plan_first(plan);
  /* Its plan, arguments and all, may be given up for another one. */
  PL_TRY(pl_cuda_refuse_recorded(plan->cuda, "the alternating backend"));
  if (plan->backward) {
    PL_TRY(launch_step(plan, -1, false));
    steps += plan->to_initial - 1;
  }
  pl_cu_pointer place = (pl_cu_pointer)(uintptr_t)plan->arguments + offsetof(pl_step_arguments, first);
  for (int done = 0; done < steps; done += PIECE_STEPS) {
    PL_TRY(pl_check_interrupt());
    unsigned from = (unsigned)(plan->backward ? first - done : first + done);
    if (done > 0) PL_CUDA_TRY(pl_cu.MemsetD32Async(place, from, 1, plan->cuda->stream));
    PL_TRY(run_piece(plan, steps - done < PIECE_STEPS ? steps - done : PIECE_STEPS));
  }
  return PL_OK;
}
