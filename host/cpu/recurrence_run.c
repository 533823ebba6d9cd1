/* The cutting of a recurrence into items and slices, its workspace, and the packing of R. */
#include "host/cpu/recurrence_run.h"

#include <limits.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER_BYTES = 64 };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Estimated cycles for all items, from round numbers of current server cores: two vector
 * multiply-adds per cycle, R read from the second-level cache at 40 bytes per cycle when a member's share fits there
 * and at 12 when not, 60 cycles for a vector of one row through the cell, 1500 for meeting, 20000 once for starting
 * threads. */
static double plan_cost(const pl_run *run, int64_t threads, pl_recurrence_plan plan) {
  static const double NEAR_RATE = 40, FAR_RATE = 12, CELL = 60, MEETING = 1500, START = 20000;
  long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
  double near_bytes = 0.75 * (double)(cache > 0 ? cache : 512 << 10);
  double vector_bytes = (double)run->loops->lanes * (double)run->size;
  double rounds = (double)divide_up(run->heads * plan.chunks, threads / plan.team);
  double rows = (double)divide_up(run->batch, plan.chunks), blocks = (double)divide_up(run->blocks, plan.team);
  double vectors = blocks * run->gr * (double)run->dim;
  double read = vector_bytes / (vectors * vector_bytes <= near_bytes ? NEAR_RATE : FAR_RATE);
  double cycles = vectors * (rows / 2 > read ? rows / 2 : read) + rows * blocks * CELL;
  double all = rounds * (double)run->steps * (cycles + (plan.team > 1 ? MEETING : 0));
  return all + (plan.team * plan.chunks * run->heads > 1 ? START : 0);
}

static pl_recurrence_plan plan_choose(const pl_run *run, int64_t threads) {
  pl_recurrence_plan best = {1, 1};
  double least = plan_cost(run, threads, best);
  for (int64_t team = 1; team <= smaller(threads, run->gr ? run->blocks : 1); team++)
    for (int64_t chunks = 1; chunks <= larger(1, smaller(threads, run->batch)); chunks++) {
      pl_recurrence_plan plan = {team, chunks};
      double cost = plan_cost(run, threads, plan);
      if (cost < least) least = cost, best = plan;
    }
  return best;
}

void pl_run_begin(pl_run *run, const pl_recurrence *q, const pl_recurrence_plan *plan) {
  const pl_cell *cell = q->cell;
  *run = (pl_run){.q = q,
                  .cell = cell,
                  .kernels = pl_cpu_kernels(),
                  .batch = q->batch,
                  .steps = q->steps,
                  .heads = q->heads,
                  .dim = q->dim};
  bool wide = q->type == PL_F64;
  run->compute = wide ? PL_COMPUTE_F64 : PL_COMPUTE_F32;
  run->loops = wide ? &run->kernels->recurrence->f64 : &run->kernels->recurrence->f32;
  run->size = pl_dtype_size(q->type);
  run->gw = pl_cell_inputs(cell), run->gr = pl_cell_recurrents(cell), run->gb = pl_cell_biases(cell);
  for (int g = 0, i = 0; g < cell->gates; g++)
    if (cell->has_recurrent[g]) run->recurrent_gate[i++] = g;
  run->shared_h = run->gr > 0 || q->product != q->type;
  run->blocks = divide_up(q->dim, run->loops->lanes);
  run->padded = run->blocks * run->loops->lanes;
  for (int s = 0; s < cell->states; s++) {
    int previous = cell->saves + s, new_state = previous + cell->states;
    bool read = pl_program_reads(&cell->backward, previous) || pl_program_reads(&cell->backward, new_state);
    run->keep[s] = read ? run->kept++ : -1;
  }
  int64_t threads = pl_cpu_threads();
  run->plan = plan ? *plan : plan_choose(run, threads);
  run->items = run->heads * run->plan.chunks;
  run->teams = larger(1, smaller(threads / run->plan.team, run->items));
  run->rows_max = divide_up(run->batch, run->plan.chunks);
  run->units_max = divide_up(run->blocks, run->plan.team) * run->loops->lanes;
}

pl_slice pl_run_slice(const pl_run *run, int64_t member) {
  pl_slice s = {.block = run->blocks * member / run->plan.team};
  s.blocks = run->blocks * (member + 1) / run->plan.team - s.block;
  s.first = s.block * run->loops->lanes, s.units = s.blocks * run->loops->lanes;
  s.valid = smaller(s.units, run->dim - s.first);
  return s;
}

pl_item pl_run_item(const pl_run *run, int64_t index, int64_t member) {
  int64_t chunks = run->plan.chunks, chunk = index % chunks;
  pl_item item = {.index = index, .head = index / chunks, .row = run->batch * chunk / chunks};
  item.rows = run->batch * (chunk + 1) / chunks - item.row;
  item.slice = pl_run_slice(run, member);
  item.plane = item.rows * item.slice.units;
  return item;
}

int64_t pl_run_next(const pl_run *run, atomic_long *taken, int64_t team, int64_t previous) {
  if (run->plan.team == 1) return atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
  return previous < 0 ? team : previous + run->teams;
}

/* Elements of the workspace for one batch row of one head, piece by piece. */
static int64_t row_h(const pl_run *run) { return run->shared_h ? (run->steps + 1) * run->padded : 0; }
static int64_t row_saves(const pl_run *run) { return run->steps * run->cell->saves * run->padded; }
static int64_t row_kept(const pl_run *run) { return (run->steps + 1) * run->kept * run->padded; }
static int64_t row_all(const pl_run *run) { return row_h(run) + row_saves(run) + row_kept(run); }

size_t pl_run_workspace(const pl_run *run) {
  return HEADER_BYTES + (size_t)(run->heads * run->batch * row_all(run)) * run->size;
}

static char *item_at(const pl_run *run, void *workspace, const pl_item *item, int64_t element) {
  int64_t first = (item->head * run->batch + item->row) * row_all(run);
  return (char *)workspace + HEADER_BYTES + (first + element) * (int64_t)run->size;
}

char *pl_run_h(const pl_run *run, void *workspace, const pl_item *item, int64_t step) {
  return item_at(run, workspace, item, step * item->rows * run->padded);
}

char *pl_run_saves(const pl_run *run, void *workspace, const pl_item *item, int64_t step) {
  int64_t within = item->rows * run->cell->saves * (step * run->padded + item->slice.first);
  return item_at(run, workspace, item, item->rows * row_h(run) + within);
}

char *pl_run_kept(const pl_run *run, void *workspace, const pl_item *item, int64_t step) {
  int64_t within = item->rows * run->kept * (step * run->padded + item->slice.first);
  return item_at(run, workspace, item, item->rows * (row_h(run) + row_saves(run)) + within);
}

/* ---- panels ---- */

static int64_t slice_vectors(const pl_run *run, bool backward, pl_slice slice) {
  return backward ? slice.blocks : slice.blocks * run->gr;
}

static int64_t slice_panels(const pl_run *run, bool backward, pl_slice slice) {
  return divide_up(slice_vectors(run, backward, slice), run->loops->vectors);
}

static int64_t head_panels(const pl_run *run, bool backward) {
  int64_t panels = 0;
  for (int64_t m = 0; m < run->plan.team; m++) panels += slice_panels(run, backward, pl_run_slice(run, m));
  return panels;
}

static size_t panel_bytes(const pl_run *run, bool backward) {
  int64_t depth = backward ? run->gr * run->dim : run->dim;
  return (size_t)(depth * run->loops->vectors * run->loops->lanes) * run->size;
}

size_t pl_run_panel_bytes(const pl_run *run, bool backward) {
  return (size_t)(run->heads * head_panels(run, backward)) * panel_bytes(run, backward);
}

const char *pl_run_panels(const pl_run *run, bool backward, const char *panels, int64_t head, int64_t member) {
  int64_t first = head * head_panels(run, backward);
  for (int64_t m = 0; m < member; m++) first += slice_panels(run, backward, pl_run_slice(run, m));
  return panels + (size_t)first * panel_bytes(run, backward);
}

static void round_product(const pl_run *run, int64_t rows, int64_t count, void *data, int64_t row) {
  if (run->q->product != run->q->type) run->kernels->recurrence->round(run->q->product, rows, count, data, row);
}

/* One vector of a panel: `at` is its place, `width` the elements of the panel's rows. */
static void pack_vector(const pl_run *run, bool backward, int64_t head, pl_slice slice, int64_t vector, char *at,
                        int64_t width) {
  const pl_array *r = run->q->recurrent; /* [Gr,N,D,D]: gate, head, unit, previous unit */
  int64_t lanes = run->loops->lanes, dim = run->dim;
  int64_t block = slice.block + (backward ? vector : vector / run->gr), unit = block * lanes;
  int64_t valid = smaller(lanes, dim - unit);
  if (!backward) {
    const void *from = pl_run_at(r, vector % run->gr, head, unit, 0, 0);
    run->loops->pack(dim, lanes, valid, at, width, from, r->stride[3], r->stride[2]);
    return;
  }
  for (int g = 0; g < run->gr; g++) {
    char *to = at + (size_t)(g * dim * width) * run->size;
    run->loops->pack(dim, lanes, valid, to, width, pl_run_at(r, g, head, 0, unit, 0), r->stride[2], r->stride[3]);
  }
}

static void pack_panel(const pl_run *run, bool backward, int64_t head, int64_t panel, char *to) {
  int64_t member = 0, per_panel = run->loops->vectors, lanes = run->loops->lanes;
  pl_slice slice = pl_run_slice(run, 0);
  for (; panel >= slice_panels(run, backward, slice); slice = pl_run_slice(run, ++member))
    panel -= slice_panels(run, backward, slice);
  int64_t first = panel * per_panel, count = smaller(per_panel, slice_vectors(run, backward, slice) - first);
  for (int64_t v = 0; v < count; v++)
    pack_vector(run, backward, head, slice, first + v, to + (size_t)(v * lanes) * run->size, count * lanes);
  round_product(run, 1, count * lanes * (backward ? run->gr * run->dim : run->dim), to, 0);
}

void pl_run_pack(const pl_run *run, bool backward, char *panels) {
  int64_t per_head = head_panels(run, backward);
  size_t bytes = panel_bytes(run, backward);
#pragma omp for schedule(static)
  for (int64_t i = 0; i < run->heads * per_head; i++)
    pack_panel(run, backward, i / per_head, i % per_head, panels + (size_t)i * bytes);
}

void pl_run_product(const pl_run *run, const pl_item *item, int64_t vectors, int64_t depth, const void *a,
                    int64_t a_row, const void *panels, void *out, const long *offset) {
  if (item->rows == 0) return;
  /* Tiles of nearly equal size: a short last one costs as much as a full one. */
  int64_t tile = divide_up(item->rows, divide_up(item->rows, run->loops->tile));
  run->loops->product(&(pl_panel_product){.rows = item->rows,
                                          .vectors = vectors,
                                          .depth = depth,
                                          .a = a,
                                          .tile = tile,
                                          .a_tile = tile * a_row,
                                          .a_row = a_row,
                                          .a_depth = 1,
                                          .b = panels,
                                          .out = out,
                                          .out_row = item->slice.units,
                                          .offset = offset});
}

bool pl_run_past(const pl_run *run, const pl_item *item, int64_t r, int64_t step) {
  const pl_array *lengths = run->q->lengths;
  return lengths && step >= *(const int64_t *)pl_run_at(lengths, item->row + r, 0, 0, 0, 0);
}

void pl_team_begin(pl_team *team, int64_t size, char *memory) {
  pl_barrier_begin(&team->barrier, (int)size);
  atomic_init(&team->stop, LONG_MAX);
  team->memory = memory;
}

void pl_team_end(pl_team *team) { pl_barrier_end(&team->barrier); }

void pl_team_arrive(pl_seat *seat) {
  pl_team *team = seat->team;
  seat->tick++;
  bool first = atomic_load_explicit(&team->stop, memory_order_relaxed) == LONG_MAX;
  if (seat->member == 0 && first && pl_interrupt_pending())
    atomic_store_explicit(&team->stop, seat->tick, memory_order_relaxed);
  seat->epoch = pl_barrier_arrive(&team->barrier);
}

/* The first member may already have stopped a later tick; this one is still gone through by all. */
bool pl_team_wait(pl_seat *seat) {
  pl_barrier_wait(&seat->team->barrier, seat->epoch);
  return atomic_load_explicit(&seat->team->stop, memory_order_relaxed) > seat->tick;
}

void *pl_arena_take(pl_arena *arena, size_t bytes) {
  char *piece = arena->base ? arena->base + arena->used : NULL;
  arena->used += (bytes + 63) / 64 * 64;
  return piece;
}

/* ---- the frame of a run ---- */

static pl_status run_threads(pl_run *run, const pl_job *job) {
  int threads = (int)(run->teams * run->plan.team), missing = 0, stopped = 0;
#pragma omp parallel num_threads(threads) reduction(+ : missing, stopped)
  {
    if (omp_get_num_threads() < threads) {
      missing = 1; /* a team without all its members would wait for ever */
    } else {
      stopped = !job->work(job->way, omp_get_thread_num());
#pragma omp barrier
      if (job->gather) job->gather(job->way);
    }
  }
  PL_REQUIRE(!missing, "the recurrence needs %d threads of OpenMP and got fewer", threads);
  if (stopped) return pl_fail_at(PL_INTERRUPTED, 0, __FILE__, __LINE__, "interrupted");
  if (job->finish) job->finish(job->way);
  return PL_OK;
}

pl_status pl_run_drive(pl_run *run, const pl_job *job) {
  pl_arena arena = {0};
  run->machine = pl_machine_new(job->program, run->compute, run->kernels);
  if (!run->machine) return PL_FAIL_MEMORY("no memory for the program of a cell");
  job->layout(job->way, &arena);
  size_t bytes = arena.used;
  /* Not aligned_alloc: glibc before 2.38 asks for more than it keeps, so no call can have the hole of the one before,
   * and the heap grows with every step that leaves something small behind. */
  char *memory = malloc(bytes + 64);
  pl_status status = PL_OK;
  if (!memory) {
    status = PL_FAIL_MEMORY("no memory for %zu bytes of scratch of a recurrence", bytes);
  } else {
    arena = (pl_arena){.base = memory + (-(uintptr_t)memory & 63)};
    job->layout(job->way, &arena);
    status = run_threads(run, job);
    for (int64_t i = 0; i < run->teams; i++) pl_team_end(&run->team[i]);
  }
  free(memory);
  pl_machine_free(run->machine);
  return status;
}
