/* The backward way of the recurrence: per step from the last the cell's gradient program, then the gradient of h
 * through R; the gradient of R as one product over many steps at a time. */
#include "host/cpu/machine.h"
#include "host/cpu/recurrence.h"
#include "host/cpu/recurrence_run.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH = 128 }; /* rows of gate gradients that one product for dR takes, at least */

typedef struct {
  char *machine, *gates, *arriving, *leaving, *through; /* planes of gate gradients, state gradients */
  char *params, *param_gradients, *param_sums, *bias_sums;
  char *left, *right; /* packed operands of dR: strips of gate gradients, panels of h */
  long *offset;       /* of each vector of units in a plane */
} worker;

typedef struct {
  pl_run run;
  const pl_recurrence_gradient *gradient;
  bool through, weights;                 /* whether h's gradient goes through R; whether dR is wanted */
  int64_t window, across;                /* steps between products for dR; recurrent gates times units */
  char *panels, *weight_sums, *row_sums; /* R transposed; per item dR [Gr D][padded] and sums [Gb+P][padded] */
  pl_team *team;                         /* its memory: gate gradients [window][rows][across] */
  worker *worker;
  atomic_long taken; /* items that single threads have begun */
} backward;

static size_t weight_bytes(const backward *b) { return (size_t)(b->across * b->run.padded) * b->run.size; }
static int row_sums_count(const pl_run *run) { return run->gb + run->cell->params; }

static worker layout_worker(const backward *b, pl_arena *arena) {
  const pl_run *run = &b->run;
  const pl_cell *cell = run->cell;
  size_t plane = (size_t)(run->rows_max * run->units_max) * run->size, depth = (size_t)(b->window * run->rows_max);
  size_t strips = (size_t)(run->units_max + run->loops->tile);
  size_t params = (size_t)cell->params * plane, states = (size_t)cell->states * plane;
  return (worker){
      .machine = pl_arena_take(arena, pl_machine_scratch(b->run.machine)),
      .gates = pl_arena_take(arena, (size_t)cell->gates * plane),
      .arriving = pl_arena_take(arena, states),
      .leaving = pl_arena_take(arena, states),
      .through = pl_arena_take(arena, b->run.q->clip > 0 ? plane : 0),
      .params = pl_arena_take(arena, params),
      .param_gradients = pl_arena_take(arena, params),
      .param_sums = pl_arena_take(arena, params),
      .bias_sums = pl_arena_take(arena, (size_t)run->gb * plane),
      .left = pl_arena_take(arena, b->weights ? depth * strips * run->size : 0),
      .right = pl_arena_take(arena, b->weights ? depth * (size_t)run->padded * run->size : 0),
      .offset = pl_arena_take(arena, (size_t)run->blocks * sizeof(long)),
  };
}

static void layout(void *way, pl_arena *arena) {
  backward *b = way;
  const pl_run *run = &b->run;
  int64_t workers = run->teams * run->plan.team;
  pl_team *team = pl_arena_take(arena, (size_t)run->teams * sizeof(pl_team));
  worker *work = pl_arena_take(arena, (size_t)workers * sizeof(worker));
  b->run.team = team, b->worker = work;
  b->panels = pl_arena_take(arena, b->through ? pl_run_panel_bytes(run, true) : 0);
  b->weight_sums = pl_arena_take(arena, b->weights ? (size_t)run->items * weight_bytes(b) : 0);
  b->row_sums = pl_arena_take(arena, (size_t)(run->items * row_sums_count(run) * run->padded) * run->size);
  for (int64_t i = 0; i < run->teams; i++) {
    char *memory = pl_arena_take(arena, (size_t)(b->window * run->rows_max * b->across) * run->size);
    if (team) pl_team_begin(&team[i], run->plan.team, memory);
  }
  for (int64_t i = 0; i < workers; i++) {
    worker w = layout_worker(b, arena);
    if (work) work[i] = w;
  }
}

/* One item on one thread. */
typedef struct {
  const backward *b;
  const pl_run *run;
  pl_seat *seat;
  worker w;
  pl_item item;
} passage;

static char *plane(const passage *p, char *planes, int64_t index) {
  return planes + (size_t)(index * p->item.plane) * p->run->size;
}

/* Adds a gradient array [S or 1,B,T or 1,N,D] at one step to planes of state gradients. */
static void add_states(const passage *p, const pl_array *gradient, int64_t step, char *planes) {
  const pl_slice slice = p->item.slice;
  if (!gradient) return;
  for (int s = 0; s < gradient->size[0]; s++) {
    char *to = plane(p, planes, s);
    pl_rows from = {pl_run_at(gradient, s, p->item.row, step, p->item.head, slice.first), gradient->stride[1],
                    gradient->stride[4]};
    p->run->loops->gather(p->item.rows, slice.valid, to, slice.units, from, (pl_rows){to, slice.units, 1});
  }
}

static void begin(passage *p) {
  const pl_run *run = p->run;
  const pl_slice slice = p->item.slice;
  size_t bytes = (size_t)p->item.plane * run->size;
  memset(p->w.arriving, 0, (size_t)run->cell->states * bytes);
  memset(p->w.param_sums, 0, (size_t)run->cell->params * bytes);
  memset(p->w.bias_sums, 0, (size_t)run->gb * bytes);
  memset(p->w.params, 0, (size_t)run->cell->params * bytes);
  for (int i = 0; i < run->cell->params; i++) {
    const pl_array *param = run->q->param[i];
    pl_rows from = {pl_run_at(param, p->item.head, slice.first, 0, 0, 0), 0, param->stride[1]};
    run->loops->gather(p->item.rows, slice.valid, plane(p, p->w.params, i), slice.units, from, (pl_rows){0});
  }
  for (int64_t v = 0; v < run->blocks; v++) p->w.offset[v] = (long)(v * run->loops->lanes);
  size_t row = (size_t)run->padded * run->size;
  for (int g = 0; g < run->gr && p->b->weights; g++)
    memset(p->b->weight_sums + (size_t)p->item.index * weight_bytes(p->b) + (size_t)(g * run->dim + slice.first) * row,
           0, (size_t)slice.valid * row);
  add_states(p, p->b->gradient->last, 0, p->w.arriving);
  if (run->steps > 0) add_states(p, p->b->gradient->states, run->steps - 1, p->w.arriving);
}

static void cell_step(const passage *p, int64_t step) {
  const pl_run *run = p->run;
  const pl_cell *cell = run->cell;
  void *workspace = p->b->gradient->workspace;
  char *saves = pl_run_saves(run, workspace, &p->item, step);
  char *before = pl_run_kept(run, workspace, &p->item, step), *after = pl_run_kept(run, workspace, &p->item, step + 1);
  const void *in[PL_SAVES_MAX + 3 * PL_STATES_MAX + PL_PARAMS_MAX];
  void *out[PL_GATES_MAX + PL_STATES_MAX + PL_PARAMS_MAX];
  int i = 0, o = 0;
  for (int v = 0; v < cell->saves; v++) in[i++] = plane(p, saves, v);
  for (int s = 0; s < cell->states; s++) in[i++] = run->keep[s] < 0 ? NULL : plane(p, before, run->keep[s]);
  for (int s = 0; s < cell->states; s++) in[i++] = run->keep[s] < 0 ? NULL : plane(p, after, run->keep[s]);
  for (int k = 0; k < cell->params; k++) in[i++] = plane(p, p->w.params, k);
  for (int s = 0; s < cell->states; s++) in[i++] = plane(p, p->w.arriving, s);
  for (int g = 0; g < cell->gates; g++) out[o++] = plane(p, p->w.gates, g);
  for (int s = 0; s < cell->states; s++) out[o++] = plane(p, p->w.leaving, s);
  for (int k = 0; k < cell->params; k++) out[o++] = plane(p, p->w.param_gradients, k);
  pl_machine_run(p->b->run.machine, p->w.machine, p->item.plane, in, out);
}

/* Rows past their length pass the gradients of their states on; their gates and params get none. */
static void skip_past(const passage *p, int64_t step) {
  const pl_cell *cell = p->run->cell;
  size_t bytes = (size_t)p->item.slice.units * p->run->size;
  for (int64_t r = 0; r < p->item.rows; r++) {
    if (!pl_run_past(p->run, &p->item, r, step)) continue;
    size_t at = (size_t)r * bytes;
    for (int g = 0; g < cell->gates; g++) memset(plane(p, p->w.gates, g) + at, 0, bytes);
    for (int k = 0; k < cell->params; k++) memset(plane(p, p->w.param_gradients, k) + at, 0, bytes);
    for (int s = 0; s < cell->states; s++)
      memcpy(plane(p, p->w.leaving, s) + at, plane(p, p->w.arriving, s) + at, bytes);
  }
}

/* Where the gate gradients [rows][across] of a step lie for the products. */
static char *shared_gates(const passage *p, int64_t step) {
  return p->seat->team->memory + (size_t)(step % p->b->window * p->item.rows * p->b->across) * p->run->size;
}

/* Gate gradients go where the products of all members read them. */
static void share_gates(const passage *p, int64_t step) {
  const pl_run *run = p->run;
  const pl_slice slice = p->item.slice;
  for (int r = 0; r < run->gr; r++)
    run->loops->scatter(p->item.rows, slice.valid,
                        shared_gates(p, step) + (size_t)(r * run->dim + slice.first) * run->size, p->b->across, 1,
                        plane(p, p->w.gates, run->recurrent_gate[r]), slice.units);
}

/* Gate gradients go to dWx and, with those of the params, into the sums over rows and steps. */
static void spread_gates(const passage *p, int64_t step) {
  const pl_run *run = p->run;
  const pl_cell *cell = run->cell;
  const pl_slice slice = p->item.slice;
  const pl_array *input = p->b->gradient->input; /* [B,T,Gw,N,D] */
  for (int g = 0, w = 0, b = 0; g < cell->gates; g++) {
    const char *from = plane(p, p->w.gates, g);
    if (cell->has_input[g] && input)
      run->loops->scatter(p->item.rows, slice.valid, pl_run_at(input, p->item.row, step, w, p->item.head, slice.first),
                          input->stride[0], input->stride[4], from, slice.units);
    w += cell->has_input[g];
    if (cell->has_bias[g]) run->kernels->accumulate[run->compute](p->item.plane, plane(p, p->w.bias_sums, b++), from);
  }
  run->kernels->accumulate[run->compute](cell->params * p->item.plane, p->w.param_sums, p->w.param_gradients);
}

/* The gradient of the previous h through R. */
static void through(const passage *p, int64_t step, const char *panels) {
  const pl_run *run = p->run;
  double clip = run->q->clip;
  char *out = clip > 0 ? p->w.through : p->w.leaving; /* h is the first state */
  if (clip > 0) memset(out, 0, (size_t)p->item.plane * run->size);
  pl_run_product(run, &p->item, p->item.slice.blocks, p->b->across, shared_gates(p, step), p->b->across, panels, out,
                 p->w.offset);
  if (clip > 0) run->loops->add_clamped(p->item.plane, p->w.leaving, out, clip);
}

/* dR of the member's units += gate gradients of steps [first, end), transposed, times h before those steps. */
static void weights(const passage *p, int64_t first, int64_t end) {
  const pl_run *run = p->run;
  const pl_recurrence_loops *loops = run->loops;
  const pl_slice slice = p->item.slice;
  int64_t depth = (end - first) * p->item.rows, lanes = loops->lanes, tile = loops->tile;
  const char *h = pl_run_h(run, p->b->gradient->workspace, &p->item, first), *gates = shared_gates(p, first);
  for (int64_t v = 0; v < run->blocks; v++) {
    int64_t panel = v / loops->vectors * loops->vectors;
    int64_t width = (run->blocks - panel < loops->vectors ? run->blocks - panel : loops->vectors) * lanes;
    int64_t valid = run->dim - v * lanes < lanes ? run->dim - v * lanes : lanes;
    char *to = p->w.right + (size_t)(panel * lanes * depth + (v - panel) * lanes) * run->size;
    loops->pack(depth, lanes, valid, to, width, h + (size_t)(v * lanes) * run->size, run->padded, 1);
  }
  for (int g = 0; g < run->gr; g++) {
    int64_t column = g * run->dim + slice.first;
    for (int64_t u = 0; u < slice.valid; u += tile) {
      int64_t valid = slice.valid - u < tile ? slice.valid - u : tile;
      loops->pack(depth, tile, valid, p->w.left + (size_t)(u * depth) * run->size, tile,
                  gates + (size_t)(column + u) * run->size, p->b->across, 1);
    }
    char *out = p->b->weight_sums + (size_t)p->item.index * weight_bytes(p->b);
    loops->product(&(pl_panel_product){.rows = slice.valid,
                                       .vectors = run->blocks,
                                       .depth = depth,
                                       .a = p->w.left,
                                       .tile = tile,
                                       .a_tile = tile * depth,
                                       .a_row = 1,
                                       .a_depth = tile,
                                       .b = p->w.right,
                                       .out = out + (size_t)(column * run->padded) * run->size,
                                       .out_row = run->padded,
                                       .offset = p->w.offset});
  }
}

/* What the item adds to the gradients of biases and params: its rows summed. */
static void sum_rows(const passage *p) {
  const pl_run *run = p->run;
  const pl_slice slice = p->item.slice;
  for (int i = 0; i < row_sums_count(run); i++) {
    char *from = i < run->gb ? plane(p, p->w.bias_sums, i) : plane(p, p->w.param_sums, i - run->gb);
    int64_t at = (p->item.index * row_sums_count(run) + i) * run->padded + slice.first;
    char *to = p->b->row_sums + (size_t)at * run->size;
    memset(to, 0, (size_t)slice.units * run->size);
    for (int64_t r = 0; r < p->item.rows; r++)
      run->kernels->accumulate[run->compute](slice.units, to, from + (size_t)(r * slice.units) * run->size);
  }
}

static void write_initial(const passage *p) {
  const pl_array *initial = p->b->gradient->initial; /* [S,B,1,N,D] */
  const pl_slice slice = p->item.slice;
  if (!initial) return;
  for (int s = 0; s < p->run->cell->states; s++)
    p->run->loops->scatter(p->item.rows, slice.valid, pl_run_at(initial, s, p->item.row, 0, p->item.head, slice.first),
                           initial->stride[1], initial->stride[4], plane(p, p->w.arriving, s), slice.units);
}

static bool pass(passage *p) {
  const pl_run *run = p->run;
  const backward *b = p->b;
  const char *panels = b->through ? pl_run_panels(run, true, b->panels, p->item.head, p->seat->member) : NULL;
  begin(p);
  /* Windows are aligned to step 0, so that a step's place in the ring follows from the step. */
  for (int64_t t = run->steps - 1, end = run->steps; t >= 0; t--) {
    cell_step(p, t);
    if (run->q->lengths) skip_past(p, t);
    share_gates(p, t);
    pl_team_arrive(p->seat);
    spread_gates(p, t);
    if (t > 0) add_states(p, b->gradient->states, t - 1, p->w.leaving);
    if (!pl_team_wait(p->seat)) return false;
    if (b->through && (t > 0 || b->gradient->initial)) through(p, t, panels);
    if (b->weights && t % b->window == 0) weights(p, t, end), end = t;
    char *swap = p->w.arriving;
    p->w.arriving = p->w.leaving, p->w.leaving = swap;
  }
  /* The next item writes the team's gate gradients, which a slower member may still read. */
  pl_team_arrive(p->seat);
  write_initial(p);
  sum_rows(p);
  return pl_team_wait(p->seat);
}

/* One thread's share: the items of its team. */
static bool work(void *way, int64_t thread) {
  backward *b = way;
  const pl_run *run = &b->run;
  int64_t team = thread / run->plan.team;
  pl_seat seat = {.team = &run->team[team], .member = thread % run->plan.team};
  if (b->through) pl_run_pack(run, true, b->panels);
  pl_machine_prepare(run->machine, b->worker[thread].machine);
  for (int64_t i = -1; (i = pl_run_next(run, &b->taken, team, i)) < run->items;) {
    passage p = {.b = b, .run = run, .seat = &seat, .w = b->worker[thread], .item = pl_run_item(run, i, seat.member)};
    if (!pass(&p)) return false;
  }
  return true;
}

/* dR of all heads: the items' sums added in order. Called by every thread of the region. */
static void finish_weights(void *way) {
  const backward *b = way;
  const pl_run *run = &b->run;
  const pl_array *out = b->gradient->recurrent; /* [Gr,N,D,D] */
  int64_t chunks = run->plan.chunks, count = run->dim * run->padded;
#pragma omp for schedule(static)
  for (int64_t i = 0; i < run->heads * run->gr; i++) {
    int64_t head = i / run->gr, gate = i % run->gr;
    char *sum = b->weight_sums + (size_t)(head * chunks) * weight_bytes(b) + (size_t)(gate * count) * run->size;
    for (int64_t c = 1; c < chunks; c++)
      run->kernels->accumulate[run->compute](count, sum, sum + (size_t)c * weight_bytes(b));
    run->loops->scatter(run->dim, run->dim, pl_run_at(out, gate, head, 0, 0, 0), out->stride[2], out->stride[3], sum,
                        run->padded);
  }
}

static void finish_rows(void *way) {
  const backward *b = way;
  const pl_run *run = &b->run;
  int count = row_sums_count(run);
  int64_t chunks = run->plan.chunks;
  for (int64_t i = 0; i < run->heads * count; i++) {
    int64_t head = i / count, k = i % count;
    char *sum = b->row_sums + (size_t)((head * chunks * count + k) * run->padded) * run->size;
    for (int64_t c = 1; c < chunks; c++)
      run->kernels->accumulate[run->compute](run->padded, sum, sum + (size_t)(c * count * run->padded) * run->size);
    const pl_array *out = k < run->gb ? b->gradient->bias : b->gradient->param[k - run->gb];
    if (!out) continue;
    void *to = k < run->gb ? pl_run_at(out, k, head, 0, 0, 0) : pl_run_at(out, head, 0, 0, 0, 0);
    run->loops->scatter(1, run->dim, to, 0, out->stride[k < run->gb ? 2 : 1], sum, 0);
  }
}

pl_status pl_cpu_recurrence_backward(pl_device *device, const pl_recurrence *q,
                                     const pl_recurrence_gradient *gradient) {
  (void)device;
  backward b = {.gradient = gradient};
  pl_run_begin(&b.run, q, gradient->workspace);
  b.weights = b.run.gr > 0 && gradient->recurrent;
  b.through = b.run.gr > 0 && !q->cut;
  /* At least two steps: one is written while slower members read the other. */
  b.window = b.weights && b.run.rows_max ? (DEPTH + b.run.rows_max - 1) / b.run.rows_max : 2;
  b.window = b.window < 2 ? 2 : b.window;
  b.across = b.run.gr * b.run.dim;
  return pl_run_drive(&b.run, &(pl_job){.way = &b,
                                        .program = &q->cell->backward,
                                        .layout = layout,
                                        .work = work,
                                        .gather = b.weights ? finish_weights : NULL,
                                        .finish = finish_rows});
}
