/* Which windows a batch has, and the thread that fetches them ahead. */
#include "host/base/batches.h"

#include "host/base/text.h"
#include "host/base/thread.h"
#include <stdlib.h>

struct pl_batches {
  pl_shard *shard;
  pl_batch_plan plan;
  uint64_t windows; /* of an epoch; of a row where contiguous */
  /* ---- the thread; `lock` guards what stands below ---- */
  pthread_t thread;
  bool started, ending;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  uint64_t wanted, ready; /* steps; 0: none */
  int64_t *ids[2];        /* what was taken, and what the thread fills */
};

/* A word that looks random, of two (Steele, Lea and Flood 2014, SplitMix64). */
static uint64_t mixed(uint64_t seed, uint64_t n) {
  uint64_t z = seed + n * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* Where `index` goes in a permutation of 0..count-1 that needs no memory: four Feistel rounds on the next even power of
 * two, again until the result is below count (fewer than four times on average). */
static uint64_t permuted(uint64_t seed, uint64_t index, uint64_t count) {
  unsigned half = 1;
  while (half < 31 && (uint64_t)1 << 2 * half < count) half++;
  uint64_t mask = ((uint64_t)1 << half) - 1;
  do {
    uint64_t left = index >> half, right = index & mask;
    for (uint64_t round = 1; round <= 4; round++) {
      uint64_t next = left ^ (mixed(mixed(seed, round), right) & mask);
      left = right;
      right = next;
    }
    index = left << half | right;
  } while (index >= count);
  return index;
}

/* How many rows of a batch are made. */
static uint64_t rows_here(const pl_batch_plan *p) { return p->rows / p->world; }

/* Where the window of a row begins. */
static uint64_t window_place(const pl_batches *b, uint64_t step, uint64_t row) {
  const pl_batch_plan *p = &b->plan;
  if (p->contiguous) return p->first + row * (p->count / p->rows) + (step - 1) % b->windows * p->length;
  uint64_t index = (step - 1) * p->rows + row, seed = mixed(mixed(p->seed, 1), index / b->windows);
  uint64_t spare = p->count - 1 - b->windows * p->length;
  uint64_t beginning = mixed(seed, 0) % ((spare < p->length ? spare : p->length - 1) + 1);
  return p->first + beginning + permuted(seed, index % b->windows, b->windows) * p->length;
}

void pl_batches_fill(const pl_batches *b, uint64_t step, int64_t *ids) {
  uint64_t length = b->plan.length, rows = rows_here(&b->plan), area = rows * length;
  for (uint64_t row = 0; row < rows; row++) {
    uint64_t place = window_place(b, step, b->plan.rank * rows + row);
    bool ended = false;
    for (uint64_t i = row * length; i < (row + 1) * length; i++, place++) {
      ids[i] = pl_shard_at(b->shard, place);
      ended = ended || (b->plan.separate && (uint64_t)ids[i] == b->shard->end);
      ids[area + i] = ended ? 0 : pl_shard_at(b->shard, place + 1);
    }
  }
}

uint64_t pl_batches_epoch(const pl_batches *b) {
  if (b->plan.contiguous) return b->windows;
  uint64_t steps = b->windows / b->plan.rows;
  return steps > 0 ? steps : 1;
}

static void *fetch(void *data) {
  pl_batches *b = data;
  pthread_mutex_lock(&b->lock);
  while (!b->ending) {
    uint64_t step = b->wanted;
    if (step == b->ready) {
      pthread_cond_wait(&b->changed, &b->lock);
      continue;
    }
    pthread_mutex_unlock(&b->lock);
    pl_batches_fill(b, step, b->ids[1]);
    pthread_mutex_lock(&b->lock);
    b->ready = step;
    pthread_cond_broadcast(&b->changed);
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

pl_status pl_batches_new(pl_shard *shard, const pl_batch_plan *plan, pl_batches **out) {
  uint64_t part = plan->contiguous ? plan->count / plan->rows : plan->count;
  PL_REQUIRE(part > plan->length, "%s of %llu ids is too short for windows of %llu and the id after them",
             plan->contiguous ? "a row's part" : "a text", (unsigned long long)part, (unsigned long long)plan->length);
  uint64_t windows = (part - (plan->contiguous ? 1 : plan->length)) / plan->length;
  pl_batches *b = pl_allocate(sizeof *b);
  b->shard = shard;
  shard->references++;
  b->plan = *plan;
  b->windows = windows > 0 ? windows : 1;
  pthread_mutex_init(&b->lock, NULL);
  pthread_cond_init(&b->changed, NULL);
  for (int i = 0; i < 2; i++) b->ids[i] = pl_allocate(2 * rows_here(plan) * plan->length * sizeof(int64_t));
  pl_status status = pl_thread_start(&b->thread, fetch, b);
  b->started = status == PL_OK;
  if (!b->started)
    pl_batches_release(b);
  else
    *out = b;
  return status;
}

const int64_t *pl_batches_take(pl_batches *b, uint64_t step) {
  pthread_mutex_lock(&b->lock);
  while (b->ready != b->wanted) pthread_cond_wait(&b->changed, &b->lock); /* it may be at another step */
  if (b->ready != step) {
    b->wanted = step;
    pthread_cond_broadcast(&b->changed);
    while (b->ready != step) pthread_cond_wait(&b->changed, &b->lock);
  }
  int64_t *made = b->ids[1];
  b->ids[1] = b->ids[0];
  b->ids[0] = made;
  b->wanted = step + 1;
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
  return made;
}

void pl_batches_release(pl_batches *b) {
  if (!b) return;
  if (b->started) {
    pthread_mutex_lock(&b->lock);
    b->ending = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
  }
  pthread_mutex_destroy(&b->lock);
  pthread_cond_destroy(&b->changed);
  pl_shard_release(b->shard);
  for (int i = 0; i < 2; i++) free(b->ids[i]);
  free(b);
}
