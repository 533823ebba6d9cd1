/* The group of host memory: rank 0 adds up in the order of the ranks, and sends what comes out to all. Slower than a
 * ring, but the sums do not depend on who is quick, and each is made once, so that all ranks have the same bits. */
#include "host/device/group.h"

#include <stdlib.h>
#include <string.h>

static pl_status end(pl_group *group, pl_status status) {
  if (status != PL_OK) pl_peers_break(group->peers);
  return status;
}

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

static pl_status send_to_others(pl_group *group, const pl_array *array) {
  for (int rank = 1; rank < pl_peers_world(group->peers); rank++)
    PL_TRY(pl_peers_send(group->peers, rank, pl_array_data(array), bytes_of(array)));
  return PL_OK;
}

static pl_status add(pl_group *group, pl_group_kind kind, const pl_array *sum, const pl_array *other) {
  static const pl_op ops[PL_GROUP_KINDS] = {PL_OP_add, PL_OP_add, PL_OP_maximum, PL_OP_minimum};
  const pl_array *in[PL_OPERANDS] = {sum, other};
  return group->device->pointwise(group->device, ops[kind], PL_VALUE, sum, in);
}

/* In rank 0: adds what a rank sends, by way of a buffer. */
static pl_status add_theirs(pl_group *group, pl_group_kind kind, int rank, const pl_array *array, pl_buffer *buffer) {
  heading own = heading_of((int)kind, array);
  pl_array other = *array;
  other.buffer = buffer, other.offset = 0;
  PL_TRY(expect(group, rank, &own));
  PL_TRY(pl_peers_receive(group->peers, rank, pl_array_data(&other), bytes_of(array)));
  return add(group, kind, array, &other);
}

static pl_status add_all(pl_group *group, pl_group_kind kind, const pl_array *const arrays[], int count,
                         pl_buffer *buffer) {
  int world = pl_peers_world(group->peers);
  for (int rank = 1; rank < world; rank++)
    for (int i = 0; i < count; i++) PL_TRY(add_theirs(group, kind, rank, arrays[i], buffer));
  return kind == PL_GROUP_MEAN ? group->device->scale(group->device, arrays, count, 1.0 / world) : PL_OK;
}

/* In rank 0: all arrays of one rank after those of the one before, then the sums to each. */
static pl_status reduce_at_0(pl_group *group, pl_group_kind kind, const pl_array *const arrays[], int count) {
  size_t most = 0;
  pl_buffer *buffer;
  for (int i = 0; i < count; i++) most = bytes_of(arrays[i]) > most ? bytes_of(arrays[i]) : most;
  PL_TRY(pl_buffer_new(group->device, most, &buffer));
  pl_status status = add_all(group, kind, arrays, count, buffer);
  pl_buffer_release(buffer);
  PL_TRY(status);
  for (int i = 0; i < count; i++) PL_TRY(send_to_others(group, arrays[i]));
  return PL_OK;
}

/* Sends everything, then receives everything: rank 0 does not speak before it has heard all. */
static pl_status reduce_elsewhere(pl_group *group, pl_group_kind kind, const pl_array *const arrays[], int count) {
  for (int i = 0; i < count; i++) {
    heading own = heading_of((int)kind, arrays[i]);
    PL_TRY(pl_peers_send(group->peers, 0, &own, sizeof own));
    PL_TRY(pl_peers_send(group->peers, 0, pl_array_data(arrays[i]), bytes_of(arrays[i])));
  }
  for (int i = 0; i < count; i++)
    PL_TRY(pl_peers_receive(group->peers, 0, pl_array_data(arrays[i]), bytes_of(arrays[i])));
  return PL_OK;
}

static pl_status all_reduce(pl_group *group, pl_group_kind kind, const pl_array *const arrays[], int count) {
  PL_TRY(pl_peers_begin(group->peers));
  return end(group, (pl_peers_rank(group->peers) == 0 ? reduce_at_0 : reduce_elsewhere)(group, kind, arrays, count));
}

/* By way of rank 0, which hears from everybody that it is there. */
static pl_status pass_on(pl_group *group, int from, const pl_array *const arrays[], int count) {
  int rank = pl_peers_rank(group->peers);
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

static pl_status broadcast(pl_group *group, int from, const pl_array *const arrays[], int count) {
  PL_TRY(pl_peers_begin(group->peers));
  return end(group, pass_on(group, from, arrays, count));
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
