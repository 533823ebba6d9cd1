/* One way of a recurrence made ready for its sizes: kernels, memory that stays in place, and the graph of its steps. */
#ifndef PL_CUDA_RECURRENCE_PLAN_H
#define PL_CUDA_RECURRENCE_PLAN_H

#include "host/cuda/cuda.h"
#include "host/cuda/recurrence_arguments.h"

/* Where the product of a step comes from: no gate has one; the step's kernel, on tensor cores; cuBLAS, in front of it.
 */
typedef enum { PL_PRODUCT_NONE, PL_PRODUCT_INSIDE, PL_PRODUCT_BLAS } pl_step_product;

/* Sizes that follow from the cell and the problem. */
typedef struct {
  int64_t batch, steps, heads, dim;
  int64_t recurrents;
  int64_t row, across; /* elements of h, and of the gradients of the gates that R feeds, of one head and batch row */
  pl_step_product product;
  /* PL_PRODUCT_INSIDE: tiles of 8 units of a head and of a block, their columns (one per gate that is summed), tiles of
   * 16 batch rows of a block, chunks of 64 bytes that a sum runs over, warps that share them. */
  int tiles, unit_tiles, columns, rows, chunks, warps;
} pl_step_shape;

void pl_step_shape_choose(const pl_recurrence *q, bool backward, pl_step_shape *shape);

/* The graph of one number of steps; from the second call with that number on. */
typedef struct {
  int64_t steps;
  int uses;
  uint64_t used; /* when, for giving up the one used longest ago */
  pl_cu_graph_exec graph;
} pl_step_graph;

enum { PL_STEP_GRAPHS = 8 };

typedef struct {
  pl_step_shape shape; /* .steps: those of the call at hand, to which nothing but the graphs is tied */
  bool backward;
  pl_dtype product_type;
  bool through, to_initial; /* backward: the product is there; the gradient of the initial states is wanted */
  pl_cu_function begin, step, last, spread, pack; /* last: `end` forward, `sum_rows` backward */
  /* In memory that stays: graphs remember addresses. `current` and `result` are there for PL_PRODUCT_BLAS only. */
  char *arguments, *packed, *current, *result;

  /* ---- private ---- */
  pl_cuda *cuda;
  char *key; /* everything that the rest follows from */
  pl_dtype type;
  pl_cu_pointer memory;
  pl_step_graph graphs[PL_STEP_GRAPHS];
  uint64_t used;
} pl_step_plan;

/* The plan for this recurrence, new or from an earlier call; borrowed until the next call. */
pl_status pl_step_plan_find(pl_cuda *cuda, const pl_recurrence *q, bool backward, bool to_initial, pl_step_plan **plan);
/* Brings R to the plan's memory. */
pl_status pl_step_plan_pack(pl_step_plan *plan, const pl_array *recurrent);
/* All steps, as a graph from the second call on. The arguments must lie in plan->arguments. */
pl_status pl_step_plan_run(pl_step_plan *plan);
/* One thread for each of `count` elements. */
pl_status pl_step_plan_launch(pl_step_plan *plan, pl_cu_function function, int64_t count, unsigned blocks_y,
                              void **parameters);

/* Appends the text in front of the kernels of the steps (types, arguments, sizes, the cell), and of that which packs R
 * (types and arguments only). */
pl_status pl_step_text(const pl_recurrence *q, const pl_step_shape *shape, pl_text *text);
pl_status pl_pack_text(const pl_recurrence *q, pl_text *text);
pl_view pl_view_of(const pl_array *array); /* NULL: absent */

#endif
