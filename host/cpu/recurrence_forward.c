/* The forward way of the recurrence: per step the gates (input, bias, product), the cell's program, the new states. */
#include "host/cpu/machine.h"
#include "host/cpu/recurrence.h"
#include "host/cpu/recurrence_run.h"

#include <stdlib.h>
#include <string.h>

/* What one thread works in. */
typedef struct {
  char *machine, *gates, *states, *params, *bias; /* planes, except the machine's scratch and bias [Gb][units] */
  long *offset;                                   /* of each vector of its panels in the gates */
} worker;

typedef struct {
  pl_run run;
  const pl_recurrence_result *result;
  char *panels;
  worker *worker;
  atomic_long taken; /* items that single threads have begun */
} forward;

static size_t plane_bytes(const pl_run *run) { return (size_t)(run->rows_max * run->units_max) * run->size; }

static void layout(void *way, pl_arena *arena) {
  forward *f = way;
  const pl_run *run = &f->run;
  const pl_cell *cell = run->cell;
  int64_t workers = run->teams * run->plan.team;
  pl_team *team = pl_arena_take(arena, (size_t)run->teams * sizeof(pl_team));
  worker *work = pl_arena_take(arena, (size_t)workers * sizeof(worker));
  f->run.team = team, f->worker = work;
  f->panels = pl_arena_take(arena, run->gr ? pl_run_panel_bytes(run, false) : 0);
  for (int64_t i = 0; i < run->teams; i++) {
    /* Without a workspace h alternates between two places. */
    bool shared = run->shared_h && !f->result->workspace;
    char *memory = pl_arena_take(arena, shared ? (size_t)(2 * run->rows_max * run->padded) * run->size : 0);
    if (team) pl_team_begin(&team[i], run->plan.team, memory);
  }
  for (int64_t i = 0; i < workers; i++) {
    worker w = {
        .machine = pl_arena_take(arena, pl_machine_scratch(f->run.machine)),
        .gates = pl_arena_take(arena, (size_t)cell->gates * plane_bytes(run)),
        .states = pl_arena_take(arena, 2 * (size_t)cell->states * plane_bytes(run)),
        .params = pl_arena_take(arena, (size_t)cell->params * plane_bytes(run)),
        .bias = pl_arena_take(arena, (size_t)(run->gb * run->units_max) * run->size),
        .offset = pl_arena_take(arena, (size_t)(run->gr * run->blocks) * sizeof(long)),
    };
    if (work) work[i] = w;
  }
}

/* One item on one thread. */
typedef struct {
  const forward *f;
  const pl_run *run;
  pl_seat *seat;
  worker w;
  pl_item item;
  void *before[PL_STATES_MAX], *after[PL_STATES_MAX]; /* planes of the states around the current step */
} passage;

/* Plane `index` of planes that lie one after the other. */
static char *plane(const passage *p, char *planes, int64_t index) {
  return planes + (size_t)(index * p->item.plane) * p->run->size;
}

static char *h_at(const passage *p, int64_t step) {
  void *workspace = p->f->result->workspace;
  if (workspace) return pl_run_h(p->run, workspace, &p->item, step);
  return p->seat->team->memory + (size_t)(step % 2 * p->item.rows * p->run->padded) * p->run->size;
}

static void *state_at(const passage *p, int s, int64_t step) {
  void *workspace = p->f->result->workspace;
  if (workspace && p->run->keep[s] >= 0)
    return plane(p, pl_run_kept(p->run, workspace, &p->item, step), p->run->keep[s]);
  return plane(p, p->w.states, 2 * s + step % 2);
}

/* h after `step` steps goes where the product reads it, rounded. */
static void publish(const passage *p, int64_t step, const void *h) {
  const pl_run *run = p->run;
  if (!run->shared_h) return;
  pl_slice slice = p->item.slice;
  char *to = h_at(p, step) + (size_t)slice.first * run->size;
  run->loops->scatter(p->item.rows, slice.valid, to, run->padded, 1, h, slice.units);
  if (run->q->product != run->q->type)
    run->kernels->recurrence->round(run->q->product, p->item.rows, slice.valid, (float *)(void *)to, run->padded);
}

static void begin(passage *p) {
  const pl_run *run = p->run;
  const pl_recurrence *q = run->q;
  const pl_item *it = &p->item;
  const pl_slice s = it->slice;
  int64_t rows = it->rows, lanes = run->loops->lanes;
  memset(p->w.gates, 0, (size_t)(run->cell->gates * it->plane) * run->size);
  for (int g = 0; g < run->gb; g++) {
    const pl_array *bias = q->bias;
    pl_rows from = {pl_run_at(bias, g, it->head, s.first, 0, 0), 0, bias->stride[2]};
    char *to = p->w.bias + (size_t)(g * s.units) * run->size;
    run->loops->gather(1, s.valid, to, 0, from, (pl_rows){0});
  }
  for (int i = 0; i < run->cell->params; i++) {
    char *to = plane(p, p->w.params, i);
    memset(to, 0, (size_t)it->plane * run->size);
    pl_rows from = {pl_run_at(q->param[i], it->head, s.first, 0, 0, 0), 0, q->param[i]->stride[1]};
    run->loops->gather(rows, s.valid, to, s.units, from, (pl_rows){0});
  }
  for (int i = 0; i < run->cell->states; i++) {
    void *to = p->before[i] = state_at(p, i, 0);
    for (int64_t e = 0; e < it->plane; e++)
      if (run->compute == PL_COMPUTE_F64)
        ((double *)to)[e] = run->cell->initial[i];
      else
        ((float *)to)[e] = (float)run->cell->initial[i];
    if (!q->initial) continue;
    const pl_array *initial = q->initial; /* [S,B,1,N,D] */
    pl_rows from = {pl_run_at(initial, i, it->row, 0, it->head, s.first), initial->stride[1], initial->stride[4]};
    run->loops->gather(rows, s.valid, to, s.units, from, (pl_rows){0});
  }
  for (int64_t v = 0; v < s.blocks * run->gr; v++)
    p->w.offset[v] = (long)(run->recurrent_gate[v % run->gr] * it->plane + v / run->gr * lanes);
  publish(p, 0, p->before[0]);
}

/* Each gate starts as input plus bias. */
static void gates_begin(const passage *p, int64_t step) {
  const pl_run *run = p->run;
  const pl_cell *cell = run->cell;
  const pl_slice s = p->item.slice;
  const pl_array *input = run->q->input;
  for (int g = 0, w = 0, b = 0; g < cell->gates; g++) {
    pl_rows from = {0}, bias = {0};
    if (cell->has_input[g])
      from = (pl_rows){pl_run_at(input, p->item.row, step, w++, p->item.head, s.first), input->stride[0],
                       input->stride[4]};
    if (cell->has_bias[g]) bias.data = p->w.bias + (size_t)(b++ * s.units) * run->size;
    run->loops->gather(p->item.rows, s.valid, plane(p, p->w.gates, g), s.units, from, bias);
  }
}

static void cell_step(const passage *p, int64_t step) {
  const pl_cell *cell = p->run->cell;
  const void *in[PL_GATES_MAX + PL_STATES_MAX + PL_PARAMS_MAX];
  void *out[PL_STATES_MAX + PL_SAVES_MAX];
  int i = 0, o = 0;
  for (int g = 0; g < cell->gates; g++) in[i++] = plane(p, p->w.gates, g);
  for (int s = 0; s < cell->states; s++) in[i++] = p->before[s];
  for (int k = 0; k < cell->params; k++) in[i++] = plane(p, p->w.params, k);
  for (int s = 0; s < cell->states; s++) out[o++] = p->after[s];
  void *workspace = p->f->result->workspace;
  char *saves = workspace ? pl_run_saves(p->run, workspace, &p->item, step) : NULL;
  for (int v = 0; v < cell->saves; v++) out[o++] = saves ? plane(p, saves, v) : NULL;
  pl_machine_run(p->f->run.machine, p->w.machine, p->item.plane, in, out);
}

/* Rows past their length keep their states. */
static void repeat_past(const passage *p, int64_t step) {
  size_t bytes = (size_t)p->item.slice.units * p->run->size;
  for (int64_t r = 0; r < p->item.rows; r++) {
    if (!pl_run_past(p->run, &p->item, r, step)) continue;
    for (int s = 0; s < p->run->cell->states; s++)
      memcpy((char *)p->after[s] + (size_t)r * bytes, (char *)p->before[s] + (size_t)r * bytes, bytes);
  }
}

static void write_states(const passage *p, int64_t step) {
  const pl_run *run = p->run;
  const pl_array *states = p->f->result->states; /* [S or 1,B,T,N,D] */
  const pl_slice slice = p->item.slice;
  if (!states) return;
  for (int s = 0; s < states->size[0]; s++) {
    void *to = pl_run_at(states, s, p->item.row, step, p->item.head, slice.first);
    const void *from = p->after[s];
    int64_t row = slice.units;
    bool rounded = s == 0 && run->q->product != run->q->type;
    if (rounded) from = h_at(p, step + 1) + (size_t)slice.first * run->size, row = run->padded;
    run->loops->scatter(p->item.rows, slice.valid, to, states->stride[1], states->stride[4], from, row);
  }
}

static bool pass(passage *p) {
  const pl_run *run = p->run;
  int64_t vectors = p->item.slice.blocks * run->gr;
  const char *panels = run->gr ? pl_run_panels(run, false, p->f->panels, p->item.head, p->seat->member) : NULL;
  begin(p);
  pl_team_arrive(p->seat);
  for (int64_t t = 0; t < run->steps; t++) {
    for (int s = 0; s < run->cell->states; s++) p->after[s] = state_at(p, s, t + 1);
    gates_begin(p, t);
    if (!pl_team_wait(p->seat)) return false;
    if (vectors)
      pl_run_product(run, &p->item, vectors, run->dim, h_at(p, t), run->padded, panels, p->w.gates, p->w.offset);
    cell_step(p, t);
    if (run->q->lengths) repeat_past(p, t);
    publish(p, t + 1, p->after[0]);
    pl_team_arrive(p->seat);
    write_states(p, t);
    memcpy(p->before, p->after, sizeof p->before);
  }
  const pl_array *last = p->f->result->last; /* [S,B,1,N,D] */
  for (int s = 0; s < run->cell->states; s++) {
    void *to = pl_run_at(last, s, p->item.row, 0, p->item.head, p->item.slice.first);
    run->loops->scatter(p->item.rows, p->item.slice.valid, to, last->stride[1], last->stride[4], p->before[s],
                        p->item.slice.units);
  }
  return pl_team_wait(p->seat);
}

/* One thread's share: the items of its team. */
static bool work(void *way, int64_t thread) {
  forward *f = way;
  const pl_run *run = &f->run;
  int64_t team = thread / run->plan.team;
  pl_seat seat = {.team = &run->team[team], .member = thread % run->plan.team};
  if (run->gr) pl_run_pack(run, false, f->panels);
  pl_machine_prepare(run->machine, f->worker[thread].machine);
  for (int64_t i = -1; (i = pl_run_next(run, &f->taken, team, i)) < run->items;) {
    passage p = {.f = f, .run = run, .seat = &seat, .w = f->worker[thread], .item = pl_run_item(run, i, seat.member)};
    if (!pass(&p)) return false;
  }
  return true;
}

pl_status pl_cpu_recurrence_workspace(pl_device *device, const pl_recurrence *q, size_t *bytes) {
  (void)device;
  pl_run run;
  pl_run_begin(&run, q, NULL);
  *bytes = pl_run_workspace(&run);
  return PL_OK;
}

pl_status pl_cpu_recurrence_forward(pl_device *device, const pl_recurrence *q, const pl_recurrence_result *result) {
  (void)device;
  forward f = {.result = result};
  pl_run_begin(&f.run, q, NULL);
  if (result->workspace) *(pl_recurrence_plan *)result->workspace = f.run.plan;
  return pl_run_drive(&f.run, &(pl_job){.way = &f, .program = &q->cell->forward, .layout = layout, .work = work});
}
