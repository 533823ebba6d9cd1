/* Buckets of gradients. The last layer's gradients are complete first, so buckets are filled from the last parameter
 * on, and each is sent on its way as soon as it and those before it are full: all ranks then send the same buckets in
 * the same order, whichever leaf is complete first. */
#include "host/tensor/buckets.h"

#include "host/tensor/operations.h"
#include <stdlib.h>

/* Large enough that starting an operation costs little, small enough that most of them run beside the backward pass. */
enum { BUCKET_BYTES = 25 << 20 };

typedef struct {
  pl_tensor *tensor;
  int bucket;
} member;

typedef struct {
  int first, count; /* of the parameters; they are counted from the last one, down */
  int awaited;      /* gradients that are not complete yet, in the pass that runs */
} bucket;

struct pl_buckets {
  pl_group *group;
  int members, buckets, next; /* next: the first bucket not yet sent */
  pl_tensor **parameter;      /* [members] */
  member *member;             /* [members] in the order of addresses */
  bucket *bucket;             /* [buckets] */
  const pl_array **array;     /* [members] room for one call */
};

static int by_address(const void *a, const void *b) {
  uintptr_t x = (uintptr_t)((const member *)a)->tensor, y = (uintptr_t)((const member *)b)->tensor;
  return x < y ? -1 : x > y;
}

static pl_status check(const pl_group *group, const pl_tensor *parameter, int index) {
  PL_REQUIRE(pl_dtype_is_float(parameter->array.dtype) && !parameter->node,
             "distributed: parameters[%d]: expected a floating-point leaf, got %s", index + 1,
             parameter->node ? parameter->node->name : pl_dtype_name(parameter->array.dtype));
  PL_REQUIRE(pl_tensor_device(parameter) == group->device, "distributed: parameters[%d] is on %s, others are on %s",
             index + 1, pl_tensor_device(parameter)->name, group->device->name);
  return PL_OK;
}

static void fill(pl_buckets *b) {
  size_t bytes = BUCKET_BYTES; /* in the last bucket; at first no room is left in none */
  for (int i = b->members - 1; i >= 0; i--) {
    if (bytes >= BUCKET_BYTES) {
      b->bucket[b->buckets++] = (bucket){.first = i};
      bytes = 0;
    }
    b->bucket[b->buckets - 1].count++;
    b->member[i] = (member){b->parameter[i], b->buckets - 1};
    bytes += (size_t)pl_tensor_count(b->parameter[i]) * pl_dtype_size(b->parameter[i]->array.dtype);
  }
  qsort(b->member, (size_t)b->members, sizeof *b->member, by_address);
}

pl_status pl_buckets_new(pl_group *group, pl_tensor *const parameters[], int count, pl_buckets **made) {
  for (int i = 0; i < count; i++) PL_TRY(check(group, parameters[i], i));
  pl_buckets *b = pl_allocate(sizeof *b);
  b->group = group;
  b->members = count;
  b->parameter = pl_allocate((size_t)count * sizeof *b->parameter);
  b->member = pl_allocate((size_t)count * sizeof *b->member);
  b->bucket = pl_allocate((size_t)count * sizeof *b->bucket);
  b->array = pl_allocate((size_t)count * sizeof *b->array);
  for (int i = 0; i < count; i++) b->parameter[i] = pl_tensor_retain(parameters[i]);
  fill(b);
  *made = b;
  return PL_OK;
}

void pl_buckets_release(pl_buckets *b) {
  if (!b) return;
  for (int i = 0; i < b->members; i++) pl_tensor_release(b->parameter[i]);
  free(b->parameter);
  free(b->member);
  free(b->bucket);
  free(b->array);
  free(b);
}

/* ---- a backward pass ---- */

static void begin(pl_buckets *b) {
  b->next = 0;
  for (int k = 0; k < b->buckets; k++) {
    bucket *now = &b->bucket[k];
    now->awaited = 0;
    for (int i = 0; i < now->count; i++) now->awaited += b->parameter[now->first - i]->wants_gradient;
  }
}

static pl_status send_bucket(pl_buckets *b, const bucket *now) {
  int count = 0;
  for (int i = 0; i < now->count; i++) {
    const pl_tensor *parameter = b->parameter[now->first - i];
    if (!parameter->wants_gradient) continue;
    b->array[count++] = &parameter->gradient->array;
    parameter->gradient->array.buffer->version++;
  }
  return count ? b->group->all_reduce(b->group, PL_GROUP_MEAN, b->array, count) : PL_OK;
}

static pl_status send_full_buckets(pl_buckets *b) {
  for (; b->next < b->buckets && b->bucket[b->next].awaited == 0; b->next++)
    PL_TRY(send_bucket(b, &b->bucket[b->next]));
  return PL_OK;
}

static pl_status complete(void *context, pl_tensor *leaf) {
  pl_buckets *b = context;
  member key = {leaf, 0};
  const member *found = bsearch(&key, b->member, (size_t)b->members, sizeof key, by_address);
  /* Whoever wants a gradient no longer, since the graph was made, is not waited for. */
  if (!found || !leaf->wants_gradient || !leaf->gradient) return PL_OK;
  b->bucket[found->bucket].awaited--;
  return send_full_buckets(b);
}

static int first_missing(const pl_buckets *b) {
  for (int i = 0; i < b->members; i++)
    if (b->parameter[i]->wants_gradient && !b->parameter[i]->gradient) return i;
  return -1;
}

/* A parameter that this pass did not come to, but that has a gradient from one before. */
static pl_status send_rest(pl_buckets *b) {
  for (int k = b->next; k < b->buckets; k++) b->bucket[k].awaited = 0;
  return send_full_buckets(b);
}

pl_status pl_buckets_backward(pl_buckets *b, pl_tensor *tensor, pl_tensor *seed, int *missing) {
  begin(b);
  pl_status status = pl_backward_watched(tensor, seed, &(pl_leaf_watch){complete, b});
  *missing = status == PL_OK ? first_missing(b) : -1;
  if (status == PL_OK && *missing < 0) status = send_rest(b);
  /* Also after a failure: what was sent holds on to memory that is about to be freed. */
  pl_status joined = b->group->join(b->group);
  return status == PL_OK ? joined : status;
}
