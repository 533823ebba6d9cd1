/* The ranks of a job as Lua sees them; perilune.distributed checks what users give. A process is in one job at most. */
#include "host/bind/distributed.h"

#include "host/bind/handle.h"
#include "host/bind/interrupt.h"
#include "host/device/group.h"
#include "host/tensor/buckets.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char BUCKETS[] = "perilune.buckets", JOB[] = "perilune.job";

enum { GROUPS_MAX = 33 }; /* one per device that tensors came from */
static struct {
  pl_peers *peers; /* NULL outside a job */
  pl_group *group[GROUPS_MAX];
  int groups;
  int number; /* of this job among those of the process */
} job;

/* ---- the job ---- */

/* Where a process ends without closing its Lua state, as os.exit does, the others must still hear that it has left. The
 * driver may be gone by then, so GPUs are left alone. */
static void leave_at_exit(void) {
  pl_peers_leave(job.peers);
  job.peers = NULL;
}

static void leave(void) {
  bool failed = job.peers && pl_peers_failure(job.peers);
  for (int i = 0; i < job.groups; i++) {
    if (failed) job.group[i]->abort(job.group[i]);
    job.group[i]->release(job.group[i]);
  }
  job.groups = 0;
  pl_peers_leave(job.peers);
  job.peers = NULL;
}

void pl_distributed_failed(const char *message) {
  if (!job.peers) return;
  const char *cause = pl_peers_failure(job.peers), *end = strstr(message, "\nstack traceback:");
  if (cause && !strstr(message, cause)) fprintf(stderr, "perilune: %s\n", cause);
  char *own = pl_duplicate(message);
  if (end) own[end - message] = 0;
  pl_peers_fail(job.peers, own);
  free(own);
  for (int i = 0; i < job.groups; i++) job.group[i]->abort(job.group[i]);
}

static int leave_job(lua_State *L) {
  (void)L;
  leave();
  return 0;
}

/* distributed_join(rank, world, address, port, timeout in seconds): waits for all ranks */
static int join_job(lua_State *L) {
  static bool registered;
  pl_peers_plan plan = {.rank = (int)luaL_checkinteger(L, 1),
                        .world = (int)luaL_checkinteger(L, 2),
                        .address = luaL_checkstring(L, 3),
                        .port = (int)luaL_checkinteger(L, 4),
                        .timeout_ms = luaL_checknumber(L, 5) * 1000,
                        .alarm = pl_interrupt_request};
  if (job.peers) return pl_error(L, "distributed.init: this process is in a job already; see pl.distributed.destroy");
  pl_peers *peers = NULL;
  pl_raise_unless_ok(L, pl_peers_join(&plan, &peers));
  job.peers = peers;
  job.number++;
  if (!registered) atexit(leave_at_exit);
  registered = true;
  return 0;
}

static pl_status group_of(pl_device *device, pl_group **group) {
  PL_REQUIRE(job.peers, "distributed: this process is in no job; call pl.distributed.init first");
  for (int i = 0; i < job.groups; i++)
    if (job.group[i]->device == device) {
      *group = job.group[i];
      return PL_OK;
    }
  PL_TRY(pl_group_new(device, job.peers, group));
  job.group[job.groups++] = *group;
  return PL_OK;
}

/* ---- tensors ---- */

/* The tensors of the table at `index`, in a userdata left on the stack; the table keeps them. */
static pl_tensor **check_list(lua_State *L, int index, const char *function, int *count) {
  luaL_checktype(L, index, LUA_TTABLE);
  *count = (int)lua_rawlen(L, index);
  if (*count == 0) pl_error(L, "%s: expected at least one tensor", function);
  pl_tensor **list = lua_newuserdatauv(L, (size_t)*count * sizeof *list, 0);
  for (int i = 0; i < *count; i++) {
    lua_rawgeti(L, index, i + 1);
    list[i] = pl_check_tensor(L, -1, function, "tensor");
    lua_pop(L, 1);
  }
  return list;
}

typedef struct {
  const char *function;
  pl_tensor **list;
  const pl_array **array;
  int count, kind, from; /* kind: a pl_group_kind; PL_GROUP_KINDS: a broadcast from `from` */
} collective;

static pl_status check_member(const collective *c, const pl_tensor *tensor) {
  pl_dtype dtype = tensor->array.dtype;
  PL_REQUIRE(pl_array_contiguous(&tensor->array), "%s: expected contiguous tensors", c->function);
  PL_REQUIRE(pl_tensor_device(tensor) == pl_tensor_device(c->list[0]), "%s: the tensors are on %s and on %s",
             c->function, pl_tensor_device(c->list[0])->name, pl_tensor_device(tensor)->name);
  PL_REQUIRE(c->kind == PL_GROUP_KINDS || dtype != PL_BOOL, "%s: tensor: expected numbers, got bool", c->function);
  PL_REQUIRE(c->kind != PL_GROUP_MEAN || pl_dtype_is_float(dtype),
             "%s: tensor: a mean is of floating-point tensors, got %s", c->function, pl_dtype_name(dtype));
  return PL_OK;
}

static pl_status run_collective(void *context) {
  collective *c = context;
  pl_group *group;
  for (int i = 0; i < c->count; i++) {
    PL_TRY(check_member(c, c->list[i]));
    PL_TRY(pl_tensor_mutate(c->list[i], c->function));
    c->array[i] = &c->list[i]->array;
  }
  PL_TRY(group_of(pl_tensor_device(c->list[0]), &group));
  pl_status status = c->kind == PL_GROUP_KINDS ? group->broadcast(group, c->from, c->array, c->count)
                                               : group->all_reduce(group, (pl_group_kind)c->kind, c->array, c->count);
  pl_status joined = group->join(group);
  return status == PL_OK ? joined : status;
}

/* Not by pl_run, which repeats: an operation that began counts. */
static int call_collective(lua_State *L, collective *c) {
  c->list = check_list(L, 2, c->function, &c->count);
  c->array = lua_newuserdatauv(L, (size_t)c->count * sizeof *c->array, 0);
  pl_raise_unless_ok(L, run_collective(c));
  return 0;
}

/* distributed_all_reduce("sum" | "mean" | "max" | "min", tensors): in place */
static int all_reduce(lua_State *L) {
  static const char *const kinds[] = {"sum", "mean", "max", "min", NULL};
  return call_collective(
      L, &(collective){.function = "distributed.all_reduce", .kind = luaL_checkoption(L, 1, NULL, kinds)});
}

/* distributed_broadcast(rank, tensors): in place */
static int broadcast(lua_State *L) {
  return call_collective(
      L,
      &(collective){.function = "distributed.broadcast", .kind = PL_GROUP_KINDS, .from = (int)luaL_checkinteger(L, 1)});
}

/* ---- gradients ---- */

typedef struct {
  pl_buckets *buckets;
  int job; /* its number */
} bucket_handle;

/* buckets(parameters) -> buckets */
static int new_buckets(lua_State *L) {
  int count;
  luaL_checktype(L, 1, LUA_TTABLE);
  pl_tensor **list = check_list(L, 1, "distributed: parameters", &count);
  bucket_handle *made = lua_newuserdatauv(L, sizeof *made, 0);
  *made = (bucket_handle){NULL, job.number};
  luaL_setmetatable(L, BUCKETS);
  pl_group *group = NULL;
  pl_status status = group_of(pl_tensor_device(list[0]), &group);
  if (status == PL_OK) status = pl_buckets_new(group, list, count, &made->buckets);
  pl_raise_unless_ok(L, status);
  return 1;
}

/* buckets:backward(loss [, seed]) -> the number, from 1, of a parameter that got no gradient, or nil */
static int backward(lua_State *L) {
  bucket_handle *b = luaL_checkudata(L, 1, BUCKETS);
  pl_tensor *loss = pl_check_tensor(L, 2, "backward", "loss");
  pl_tensor *seed = pl_optional_tensor(L, 3, "backward", "seed");
  int missing;
  if (!job.peers || b->job != job.number) return pl_error(L, "distributed: the job of these parameters has ended");
  pl_raise_unless_ok(L, pl_buckets_backward(b->buckets, loss, seed, &missing));
  if (missing < 0) return 0;
  lua_pushinteger(L, missing + 1);
  return 1;
}

static int release_buckets(lua_State *L) {
  bucket_handle *b = luaL_checkudata(L, 1, BUCKETS);
  pl_buckets_release(b->buckets);
  b->buckets = NULL;
  return 0;
}

/* Leaves the job when the state closes. */
static void guard(lua_State *L) {
  luaL_newmetatable(L, JOB);
  lua_pushcfunction(L, leave_job);
  lua_setfield(L, -2, "__gc");
  lua_newuserdatauv(L, 0, 0);
  lua_insert(L, -2);
  lua_setmetatable(L, -2);
  luaL_ref(L, LUA_REGISTRYINDEX);
}

void pl_register_distributed(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"distributed_join", join_job},       {"distributed_leave", leave_job}, {"distributed_all_reduce", all_reduce},
      {"distributed_broadcast", broadcast}, {"buckets", new_buckets},         {0}};
  luaL_newmetatable(L, BUCKETS);
  lua_pushcfunction(L, release_buckets);
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  lua_pushcfunction(L, backward);
  lua_setfield(L, -2, "backward");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
  guard(L);
}
