/* Batches of a token shard: which ids the batch of a step holds follows from seed and step alone, so that a training
 * that goes on sees what it would have seen. A thread makes the next batch while the last one is used. */
#ifndef PL_BASE_BATCHES_H
#define PL_BASE_BATCHES_H

#include "host/base/shard.h"
#include <stdbool.h>

typedef struct {
  uint64_t first, count; /* the part of the shard, from 0 on */
  uint64_t rows, length; /* of a batch */
  uint64_t rank, world;  /* only the rank-th (from 0 on) of `world` equal parts of a batch's rows are made */
  uint64_t seed;
  /* Row b reads the b-th of `rows` equal parts from its beginning, `length` ids a step, and then anew. Otherwise
   * windows that do not overlap, every one once an epoch, each epoch in another order and from another beginning. */
  bool contiguous;
  bool separate; /* what lies behind the end of a window's first document has the label 0 */
} pl_batch_plan;

typedef struct pl_batches pl_batches;

/* Keeps a reference to the shard. Fails, with the size needed, when the part is too short. */
pl_status pl_batches_new(pl_shard *shard, const pl_batch_plan *plan, pl_batches **batches);
void pl_batches_release(pl_batches *batches); /* NULL is fine; waits for the thread */

/* How many steps an epoch has (windows that are left over belong to the next). */
uint64_t pl_batches_epoch(const pl_batches *batches);
/* Fills 1-based ids [2, rows / world, length] for a step, from 1 on: inputs, then labels, the ids after them. */
void pl_batches_fill(const pl_batches *batches, uint64_t step, int64_t *ids);
/* The same from what the thread has made, which then begins with the next step; good until the next call. */
const int64_t *pl_batches_take(pl_batches *batches, uint64_t step);

#endif
