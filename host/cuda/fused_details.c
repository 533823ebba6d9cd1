/* What a plan of a fused recurrence comes to on a chip: whether it fits, and what it holds and moves. */
#include "host/cuda/fused_details.h"

#include "host/cuda/fused_plan.h"

enum { FRAGMENT_BYTES = 16 * 32, FORWARD = 0, BACKWARD = 1 };

/* Bytes that a block sends the others of its head in a step, numbers of the step included (kernels/exchange.cuh). */
static int64_t exchanged_bytes(const pl_recurrence *q, const pl_fused_shape *s, bool backward) {
  const pl_fused_plan *p = &q->plan;
  int64_t bytes = s->slots_bytes / 2 / p->blocks; /* room for two steps */
  if (pl_cell_recurrents(q->cell) == 0) return 0;
  if (backward && pl_fused_clustered(p)) bytes += (int64_t)p->parts * p->rows * s->units * (int64_t)sizeof(float);
  if (!backward && p->scope == PL_SCOPE_CLUSTER)
    bytes += (int64_t)p->rows * s->padded * (int64_t)pl_dtype_size(q->product);
  return bytes;
}

static void describe_way(const pl_recurrence *q, const pl_fused_shape *s, bool backward, pl_fused_details *details) {
  details->way[backward].register_bytes = (int64_t)s->warps * s->in_registers * FRAGMENT_BYTES;
  details->way[backward].weight_bytes = (int64_t)s->warps * (s->fragments - s->in_registers) * FRAGMENT_BYTES;
  details->way[backward].shared_bytes = (int64_t)s->map.total;
  details->way[backward].exchanged_bytes = exchanged_bytes(q, s, backward);
}

/* Wx in; states, records and the h that backward multiplies with out. */
static int64_t moved_bytes(const pl_recurrence *q, const pl_fused_shape *s) {
  int64_t units = q->batch * q->heads * q->dim, stored = (int64_t)pl_dtype_size(q->storage);
  int64_t values = pl_cell_inputs(q->cell) + q->cell->states;
  int64_t h = pl_cell_recurrents(q->cell) > 0 ? units * (int64_t)pl_dtype_size(q->product) : 0;
  return units * values * stored + h + s->blocks * s->records * s->record_words * 32 * 4;
}

pl_status pl_cuda_fused_details(const pl_recurrence *q, const pl_fused_chip *chip, pl_fused_details *details) {
  pl_fused_limits limits = {.architecture = chip->architecture,
                            .multiprocessors = chip->multiprocessors,
                            .shared_bytes = (size_t)chip->shared_bytes};
  bool own = chip->architecture >= 90;
  const pl_fused_variant variants[] = {
      [FORWARD] = {.own_instructions = own, .lengths = true, .remember = true, .states_out = q->cell->states},
      [BACKWARD] = {.backward = true,
                    .own_instructions = own,
                    .lengths = true,
                    .given = q->cell->states,
                    .want_input = true,
                    .want_recurrent = pl_cell_recurrents(q->cell) > 0,
                    .want_initial = true,
                    .through = pl_cell_recurrents(q->cell) > 0,
                    .clip = true},
  };
  pl_fused_shape shape[2];
  *details = (pl_fused_details){0};
  for (int way = FORWARD; way <= BACKWARD; way++) {
    PL_TRY(pl_fused_shape_of(q, &variants[way], &shape[way]));
    PL_TRY(pl_fused_shape_check(q, &shape[way], &limits));
    describe_way(q, &shape[way], way == BACKWARD, details);
  }
  const pl_fused_shape *forward = &shape[FORWARD];
  int64_t groups = forward->blocks / q->plan.blocks;
  int64_t at_once = (int64_t)chip->multiprocessors * q->plan.resident / q->plan.blocks;
  details->warps = forward->warps;
  details->threads = forward->threads;
  details->padded = forward->padded;
  details->blocks = forward->blocks;
  details->launches = q->plan.scope == PL_SCOPE_GRID ? (groups + at_once - 1) / at_once : 1;
  details->moved_bytes = moved_bytes(q, forward);
  details->products = q->batch * q->heads * pl_cell_recurrents(q->cell) * q->dim * q->dim;
  return PL_OK;
}
