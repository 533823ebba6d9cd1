/* One way of a recurrence made ready for its sizes: kernels, memory that stays in place, and the graph of its steps. */
#ifndef PL_CUDA_RECURRENCE_PLAN_H
#define PL_CUDA_RECURRENCE_PLAN_H

#include "host/cuda/cuda.h"
#include "host/cuda/recurrence_arguments.h"

/* Sizes that follow from the cell, the problem and its cut. */
typedef struct {
  int64_t batch, steps, heads, dim;
  int64_t recurrents;
  int64_t row, across; /* elements of h, and of the gradients of the gates that R feeds, of one head and batch row */
  pl_step_product product;
  /* PL_PRODUCT_INSIDE: tiles of 8 units of a head and of a block, their columns (one per gate that is summed), tiles of
   * 16 batch rows of a block, chunks of 64 bytes that a sum runs over, warps that share them. */
  int tiles, unit_tiles, columns, rows, chunks, warps;
} pl_step_shape;

/* An error names what the kernels cannot do of the cut. */
pl_status pl_step_shape_of(const pl_recurrence *q, bool backward, pl_step_shape *shape);

typedef struct {
  pl_step_shape shape; /* .steps: those of the call at hand, to which nothing but graphs is tied */
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
  pl_buffer *memory;
} pl_step_plan;

/* The plan for this recurrence, new or from an earlier call; borrowed until the next buffer is made, which may take the
 * plan's memory. A GPU keeps the plans used last, up to a number and a part of its memory. */
pl_status pl_step_plan_find(pl_cuda *cuda, const pl_recurrence *q, bool backward, bool to_initial, pl_step_plan **plan);
/* The device's primitive `shed`: gives up the plan used longest ago. */
bool pl_step_plans_shed(pl_device *device);

/* One thread for each of `count` elements. */
pl_status pl_step_plan_launch(pl_step_plan *plan, pl_cu_function function, int64_t count, unsigned blocks_y,
                              void **parameters);
/* Brings R to the plan's memory. */
pl_status pl_step_plan_pack(pl_step_plan *plan, const pl_array *recurrent);
/* `first` of the arguments for the first piece that pl_step_plan_run runs. */
int pl_step_plan_first(const pl_step_plan *plan);
/* All steps, in pieces of some hundreds; a piece is a CUDA graph from its second run on, and launched step by step
 * where the driver has no memory for the graph. The arguments must lie in plan->arguments. */
pl_status pl_step_plan_run(pl_step_plan *plan);
/* Gives up the plan's graphs; those that run end first. The context of its GPU is current. */
void pl_step_graphs_forget(const pl_step_plan *plan);

/* Appends the text in front of the kernels of the steps (types, arguments, sizes, the cell), and of that which packs R
 * (types and arguments only). */
pl_status pl_step_text(const pl_recurrence *q, const pl_step_shape *shape, pl_text *text);
pl_status pl_pack_text(const pl_recurrence *q, pl_text *text);
pl_view pl_view_of(const pl_array *array); /* NULL: absent */

#endif
