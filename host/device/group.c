/* The group of host memory: rank 0 adds up in the order of the ranks, and sends what comes out to all. Slower than a
 * ring, but the sums do not depend on who is quick, and each is made once, so that all ranks have the same bits. */
#include "host/device/group.h"

#include <stdlib.h>
#include <string.h>

/* Goes in front of each array, so that ranks that do different things are told of it. */
typedef struct {
  int32_t what; /* a pl_group_kind, or BROADCAST + its origin */
  int32_t dtype;
  int64_t elements;
} heading;
enum { BROADCAST = 100 };

static void describe(const heading *h, pl_text *text) {
  static const char *const kinds[PL_GROUP_KINDS] = {"sum", "mean", "max", "min"};
  if (h->what >= BROADCAST)
    pl_text_print(text, "broadcast from rank %d", (int)h->what - BROADCAST);
  else
    pl_text_print(text, "all_reduce (%s)", h->what >= 0 && h->what < PL_GROUP_KINDS ? kinds[h->what] : "?");
  pl_text_print(text, " of %lld %s", (long long)h->elements,
                h->dtype >= 0 && h->dtype < PL_DTYPES ? pl_dtype_name((pl_dtype)h->dtype) : "?");
}

static pl_status compare(pl_group *group, int rank, const heading *own, const heading *theirs) {
  if (memcmp(own, theirs, sizeof *own) == 0) return PL_OK;
  pl_text here = {0}, there = {0};
  describe(own, &here);
  describe(theirs, &there);
  pl_status status = PL_FAIL("ranks do not do the same: %s is at %s, rank 0 at %s", pl_peers_name(group->peers, rank),
                             there.data, here.data);
  pl_text_release(&here);
  pl_text_release(&there);
  return status;
}

static heading heading_of(int what, const pl_array *array) {
  return (heading){.what = what, .dtype = (int32_t)array->dtype, .elements = pl_array_count(array)};
}

static size_t bytes_of(const pl_array *array) { return (size_t)pl_array_count(array) * pl_dtype_size(array->dtype); }

/* In rank 0: the heading of a rank's array, which must be like the own. */
static pl_status expect(pl_group *group, int rank, const heading *own) {
  heading theirs;
  PL_TRY(pl_peers_receive(group->peers, rank, &theirs, sizeof theirs));
  return compare(group, rank, own, &theirs);
}

static pl_status add(pl_group *group, pl_group_kind kind, const pl_array *sum, const pl_array *other) {
  static const pl_op ops[PL_GROUP_KINDS] = {PL_OP_add, PL_OP_add, PL_OP_maximum, PL_OP_minimum};
  const pl_array *in[PL_OPERANDS] = {sum, other};
  return group->device->pointwise(group->device, ops[kind], PL_VALUE, sum, in);
}

/* In rank 0: *sum, over what the others send by way of `other`, of the same size. */
static pl_status collect(pl_group *group, pl_group_kind kind, const pl_array *sum, const pl_array *other) {
  heading own = heading_of((int)kind, sum);
  int world = pl_peers_world(group->peers);
  for (int rank = 1; rank < world; rank++) {
    PL_TRY(expect(group, rank, &own));
    PL_TRY(pl_peers_receive(group->peers, rank, pl_array_data(other), bytes_of(sum)));
    PL_TRY(add(group, kind, sum, other));
  }
  if (kind != PL_GROUP_MEAN) return PL_OK;
  return group->device->scale(group->device, &sum, 1, 1.0 / world);
}

static pl_status send_to_others(pl_group *group, const pl_array *array) {
  for (int rank = 1; rank < pl_peers_world(group->peers); rank++)
    PL_TRY(pl_peers_send(group->peers, rank, pl_array_data(array), bytes_of(array)));
  return PL_OK;
}

static pl_status reduce_at_0(pl_group *group, pl_group_kind kind, const pl_array *array) {
  pl_array other = *array;
  other.offset = 0;
  PL_TRY(pl_buffer_new(group->device, bytes_of(array), &other.buffer));
  pl_status status = collect(group, kind, array, &other);
  pl_buffer_release(other.buffer);
  PL_TRY(status);
  return send_to_others(group, array);
}

static pl_status reduce_elsewhere(pl_group *group, pl_group_kind kind, const pl_array *array) {
  heading own = heading_of((int)kind, array);
  PL_TRY(pl_peers_send(group->peers, 0, &own, sizeof own));
  PL_TRY(pl_peers_send(group->peers, 0, pl_array_data(array), bytes_of(array)));
  return pl_peers_receive(group->peers, 0, pl_array_data(array), bytes_of(array));
}

static pl_status all_reduce(pl_group *group, pl_group_kind kind, const pl_array *const arrays[], int count) {
  bool first = pl_peers_rank(group->peers) == 0;
  PL_TRY(pl_peers_begin(group->peers));
  for (int i = 0; i < count; i++) PL_TRY((first ? reduce_at_0 : reduce_elsewhere)(group, kind, arrays[i]));
  return PL_OK;
}

/* By way of rank 0, which hears from everybody that it is there. */
static pl_status broadcast(pl_group *group, int from, const pl_array *const arrays[], int count) {
  int rank = pl_peers_rank(group->peers);
  PL_TRY(pl_peers_begin(group->peers));
  for (int i = 0; i < count; i++) {
    const pl_array *array = arrays[i];
    heading own = heading_of(BROADCAST + from, array);
    if (rank != 0) {
      PL_TRY(pl_peers_send(group->peers, 0, &own, sizeof own));
      if (rank == from) PL_TRY(pl_peers_send(group->peers, 0, pl_array_data(array), bytes_of(array)));
      PL_TRY(pl_peers_receive(group->peers, 0, pl_array_data(array), bytes_of(array)));
      continue;
    }
    for (int other = 1; other < pl_peers_world(group->peers); other++) {
      PL_TRY(expect(group, other, &own));
      if (other == from) PL_TRY(pl_peers_receive(group->peers, other, pl_array_data(array), bytes_of(array)));
    }
    PL_TRY(send_to_others(group, array));
  }
  return PL_OK;
}

static pl_status join(pl_group *group) { return (void)group, PL_OK; }
static void give_up(pl_group *group) { (void)group; }
static void release(pl_group *group) { free(group); }

pl_status pl_group_new(pl_device *device, pl_peers *peers, pl_group **made) {
  if (device->group) return device->group(device, peers, made);
  pl_group *group = pl_allocate(sizeof *group);
  *group = (pl_group){peers, device, all_reduce, broadcast, join, give_up, release};
  *made = group;
  return PL_OK;
}
