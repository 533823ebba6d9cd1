/* What the forward and backward way of the recurrence share: how the work is cut into items for teams of threads, where
 * things lie in the workspace, and R packed into panels.
 *
 * An item is one head and one chunk of batch rows; it runs through all time steps. A team of threads runs an item: each
 * member owns a slice of the units (whole vectors of them) and meets the others once per step. Planes are the element
 * blocks of a member, [rows][units of its slice], padded to whole vectors; what the product reads is [rows][units of
 * all].
 *
 * The workspace: a header, then per item
 *   h       [T+1][rows][padded]              h before each step (and after the last), rounded for the product
 *   saves   [T][member][V][rows][its units]
 *   kept    [T+1][member][K][rows][its units] the states that the backward program reads */
#ifndef PL_CPU_RECURRENCE_RUN_H
#define PL_CPU_RECURRENCE_RUN_H

#include "host/cpu/barrier.h"
#include "host/cpu/machine.h"
#include "host/cpu/cpu.h"

/* How the work is cut; the workspace's header keeps it for the backward way. */
typedef struct {
  int64_t team;   /* threads of a team */
  int64_t chunks; /* of the batch rows */
} pl_recurrence_plan;

/* A team at work. */
typedef struct {
  pl_barrier barrier;
  atomic_long stop; /* the tick after which all members leave: an interrupt */
  char *memory;     /* what the members share */
} pl_team;

/* Pieces of one allocation: taken twice, first without memory to learn the size. */
typedef struct {
  char *base;
  size_t used;
} pl_arena;

typedef struct {
  const pl_recurrence *q;
  const pl_cell *cell;
  const pl_kernels *kernels;
  const pl_recurrence_loops *loops;
  pl_compute compute;
  size_t size; /* bytes of an element */
  int64_t batch, steps, heads, dim;
  int gw, gr, gb;                   /* gates with input, recurrent part, bias */
  int recurrent_gate[PL_GATES_MAX]; /* the gate of each recurrent part */
  int64_t blocks, padded;           /* vectors of units, units padded to whole vectors */
  int kept, keep[PL_STATES_MAX];    /* states in the workspace; the place of each or -1 */
  bool shared_h;                    /* whether h is laid out for the product (or rounded for the output) */
  pl_recurrence_plan plan;
  int64_t items, teams, rows_max, units_max; /* most rows of an item, most units of a slice */
  pl_machine *machine;
  pl_team *team; /* [teams] */
} pl_run;

/* A member's units: [first, first + units), of which `valid` exist. */
typedef struct {
  int64_t block, blocks, first, units, valid;
} pl_slice;

/* One item as one member sees it. */
typedef struct {
  int64_t index, head, row, rows;
  pl_slice slice;
  int64_t plane; /* elements of a plane */
} pl_item;

/* What forward and backward bring to the frame that they share. */
typedef struct {
  void *way;
  const pl_program *program;
  void (*layout)(void *way,
                 pl_arena *arena); /* takes all scratch, run->team among it; called twice: to measure, to take */
  bool (*work)(void *way, int64_t thread); /* packs, then runs a thread's items; false: an interrupt came */
  void (*gather)(void *way);               /* called by every thread once all items are done; may be NULL */
  void (*finish)(void *way);               /* on one thread, at the end of a whole run; may be NULL */
} pl_job;
/* Runs the job on run->teams teams, with a machine and scratch that live as long as that. */
pl_status pl_run_drive(pl_run *run, const pl_job *job);

/* `plan` NULL: chooses one for the threads there are. */
void pl_run_begin(pl_run *run, const pl_recurrence *q, const pl_recurrence_plan *plan);
pl_slice pl_run_slice(const pl_run *run, int64_t member);
pl_item pl_run_item(const pl_run *run, int64_t index, int64_t member);
/* The item that a team runs after `previous` (-1: its first); items or more: none is left. Single threads take what is
 * next from `taken` (0 at first), so that one that other programs hold up takes less. */
int64_t pl_run_next(const pl_run *run, atomic_long *taken, int64_t team, int64_t previous);
size_t pl_run_workspace(const pl_run *run);

/* Addresses in the workspace (as pl_cpu_recurrence_workspace laid it out). */
char *pl_run_h(const pl_run *run, void *workspace, const pl_item *item, int64_t step);
char *pl_run_saves(const pl_run *run, void *workspace, const pl_item *item, int64_t step);
char *pl_run_kept(const pl_run *run, void *workspace, const pl_item *item, int64_t step);

/* R as panels. Forward: depth D, per member the vectors (block of its slice, recurrent gate). Backward: R transposed,
 * depth Gr D (gate, unit), per member the blocks of its slice. */
size_t pl_run_panel_bytes(const pl_run *run, bool backward);
/* Packs all heads; every thread of a parallel region calls it, and it ends with a barrier of the region. */
void pl_run_pack(const pl_run *run, bool backward, char *panels);
/* Where a member's panels of a head begin. */
const char *pl_run_panels(const pl_run *run, bool backward, const char *panels, int64_t head, int64_t member);
/* The product of rows a [rows][a_row] (depth contiguous) by a member's panels, added to `out` at the offsets. */
void pl_run_product(const pl_run *run, const pl_item *item, int64_t vectors, int64_t depth, const void *a,
                    int64_t a_row, const void *panels, void *out, const long *offset);

/* Whether row r of the item is past its length at this step. */
bool pl_run_past(const pl_run *run, const pl_item *item, int64_t r, int64_t step);

/* A thread's place in its team, and its way through the meetings. Ticks count them from 1. */
typedef struct {
  pl_team *team;
  int64_t member;
  long tick;
  int epoch;
} pl_seat;

void pl_team_begin(pl_team *team, int64_t size, char *memory);
void pl_team_end(pl_team *team);
/* Once per step: what the others read is written; then waits for theirs. Between the two a thread does what nobody
 * waits for. False: an interrupt came, all members leave here. */
void pl_team_arrive(pl_seat *seat);
bool pl_team_wait(pl_seat *seat);

/* `bytes` bytes, 64-byte aligned; NULL while measuring. */
void *pl_arena_take(pl_arena *arena, size_t bytes);

/* The address of element (i, j, k, l, m) of an array; trailing indices past its rank are 0. */
static inline void *pl_run_at(const pl_array *array, int64_t i, int64_t j, int64_t k, int64_t l, int64_t m) {
  int64_t index[5] = {i, j, k, l, m}, offset = 0;
  for (int d = 0; d < array->rank && d < 5; d++) offset += index[d] * array->stride[d];
  return (char *)pl_array_data(array) + offset * (int64_t)pl_dtype_size(array->dtype);
}

#endif
