/* Token shards and their batches as Lua values; perilune.data.shard checks what users give. */
#include "host/bind/data.h"

#include "host/base/batches.h"
#include "host/bind/construct.h"
#include "host/bind/handle.h"
#include "host/tensor/files.h"

static const char SHARD[] = "perilune.shard", BATCHES[] = "perilune.batches";

/* shard_write(path, ids, vocabulary, end_of_document or 0): ids is int64, contiguous, on the CPU */
static int write_shard(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  const pl_array *ids = &pl_check_tensor(L, 2, "data.write", "ids")->array;
  if (ids->dtype != PL_I64 || !pl_array_contiguous(ids) || !ids->buffer->device->host_memory)
    return pl_error(L, "data.write: ids: expected a contiguous int64 tensor on the CPU");
  pl_raise_unless_ok(L, pl_shard_write(path, pl_array_data(ids), (uint64_t)pl_array_count(ids),
                                       (uint64_t)luaL_checkinteger(L, 3), (uint64_t)luaL_checkinteger(L, 4)));
  return 0;
}

static pl_shard **push_shard(lua_State *L) {
  pl_shard **place = lua_newuserdatauv(L, sizeof *place, 0);
  *place = NULL;
  luaL_setmetatable(L, SHARD);
  return place;
}

/* shard_open(path) -> shard, count, vocabulary, end_of_document or nil, bytes of an id */
static int open_shard(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  pl_shard **place = push_shard(L);
  pl_raise_unless_ok(L, pl_shard_open(path, place));
  lua_pushinteger(L, (lua_Integer)(*place)->count);
  lua_pushinteger(L, (lua_Integer)(*place)->vocabulary);
  (*place)->end ? lua_pushinteger(L, (lua_Integer)(*place)->end) : lua_pushnil(L);
  lua_pushinteger(L, (*place)->width);
  return 5;
}

static int release_shard(lua_State *L) {
  pl_shard **place = luaL_checkudata(L, 1, SHARD);
  pl_shard_release(*place);
  *place = NULL;
  return 0;
}

typedef struct {
  pl_device *device;
  int rank;
  int64_t size[3];
  const int64_t *ids;
  pl_tensor *out;
} upload;

static pl_status run_upload(void *context) {
  upload *u = context;
  return pl_tensor_upload(u->device, PL_I64, u->rank, u->size, u->ids, &u->out);
}

/* Pushes a tensor of ids. */
static int push_ids(lua_State *L, upload *u) {
  pl_tensor **place = pl_push_handle(L);
  pl_run(L, "data", run_upload, u);
  *place = u->out;
  return 1;
}

/* shard:ids(first, count) -> int64 [count]; places from 1 on, within the shard */
static int ids_of_shard(lua_State *L) {
  pl_shard *shard = *(pl_shard **)luaL_checkudata(L, 1, SHARD);
  lua_Integer first = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
  luaL_argcheck(L, first >= 1 && count >= 0 && (uint64_t)count <= shard->count, 3, "out of range");
  luaL_argcheck(L, (uint64_t)first - 1 <= shard->count - (uint64_t)count, 2, "out of range");
  int64_t *ids = lua_newuserdatauv(L, (size_t)count * sizeof *ids + 1, 0);
  for (lua_Integer i = 0; i < count; i++) ids[i] = pl_shard_at(shard, (uint64_t)(first - 1 + i));
  upload u = {.device = pl_device_at(0), .rank = 1, .size = {count}, .ids = ids};
  return push_ids(L, &u);
}

typedef struct {
  pl_batches *batches;
  pl_batch_plan plan;
  pl_device *device;
} batches;

static uint64_t field(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  uint64_t value = (uint64_t)luaL_checkinteger(L, -1);
  lua_pop(L, 1);
  return value;
}

static bool flag(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

/* shard:batches{ first, count, rows, length, rank, world, seed, contiguous, separate, device } -> batches, steps of an
 * epoch */
static int batches_of_shard(lua_State *L) {
  pl_shard *shard = *(pl_shard **)luaL_checkudata(L, 1, SHARD);
  luaL_checktype(L, 2, LUA_TTABLE);
  pl_batch_plan plan = {.first = field(L, "first") - 1,
                        .count = field(L, "count"),
                        .rows = field(L, "rows"),
                        .length = field(L, "length"),
                        .rank = field(L, "rank"),
                        .world = field(L, "world"),
                        .seed = field(L, "seed"),
                        .contiguous = flag(L, "contiguous"),
                        .separate = flag(L, "separate")};
  lua_getfield(L, 2, "device");
  pl_device *device = pl_check_device(L, lua_gettop(L), "batches");
  batches *made = lua_newuserdatauv(L, sizeof *made, 0);
  *made = (batches){NULL, plan, device};
  luaL_setmetatable(L, BATCHES);
  pl_raise_unless_ok(L, pl_batches_new(shard, &plan, &made->batches));
  lua_pushinteger(L, (lua_Integer)pl_batches_epoch(made->batches));
  return 2;
}

static int release_batches(lua_State *L) {
  batches *b = luaL_checkudata(L, 1, BATCHES);
  pl_batches_release(b->batches);
  b->batches = NULL;
  return 0;
}

/* batches:take(step) -> int64 [2, rows / world, length] */
static int take(lua_State *L) {
  batches *b = luaL_checkudata(L, 1, BATCHES);
  lua_Integer step = luaL_checkinteger(L, 2);
  luaL_argcheck(L, step >= 1, 2, "expected a step of 1 or more");
  if (!b->batches) return pl_error(L, "batches: these are closed");
  int64_t rows = (int64_t)(b->plan.rows / b->plan.world), length = (int64_t)b->plan.length;
  upload u = {.device = b->device, .rank = 3, .size = {2, rows, length}};
  u.ids = pl_batches_take(b->batches, (uint64_t)step);
  return push_ids(L, &u);
}

static void new_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction release) {
  luaL_newmetatable(L, name);
  lua_pushcfunction(L, release);
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

void pl_register_data(lua_State *L) {
  static const luaL_Reg functions[] = {{"shard_write", write_shard}, {"shard_open", open_shard}, {0}};
  static const luaL_Reg shard[] = {{"ids", ids_of_shard}, {"batches", batches_of_shard}, {0}};
  static const luaL_Reg of_batches[] = {{"take", take}, {"close", release_batches}, {0}};
  new_class(L, SHARD, shard, release_shard);
  new_class(L, BATCHES, of_batches, release_batches);
  luaL_setfuncs(L, functions, 0);
}
