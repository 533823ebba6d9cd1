/* Byte-pair encoding for Lua; perilune.data.bpe checks what users give. Ids are 0-based here but in tensors. */
#include "host/bind/bpe.h"

#include "host/base/bpe.h"
#include "host/bind/handle.h"
#include "host/tensor/files.h"

static const char BPE[] = "perilune.bpe";

static uint32_t entry(lua_State *L, int table, lua_Integer place) {
  lua_geti(L, table, place);
  uint32_t id = (uint32_t)luaL_checkinteger(L, -1);
  lua_pop(L, 1);
  return id;
}

/* bpe(ids of the bytes 0..255, merges { left, right, made, left, .. }) -> encoder */
static int new_bpe(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  pl_bpe **place = lua_newuserdatauv(L, sizeof *place, 0);
  *place = NULL;
  luaL_setmetatable(L, BPE);
  size_t count = (size_t)luaL_len(L, 2) / 3;
  pl_merge *merges = lua_newuserdatauv(L, count * sizeof *merges + 1, 0);
  for (size_t i = 0; i < count; i++) {
    lua_Integer at = (lua_Integer)(3 * i);
    merges[i] = (pl_merge){entry(L, 2, at + 1), entry(L, 2, at + 2), entry(L, 2, at + 3)};
  }
  uint32_t byte_id[256];
  for (int b = 0; b < 256; b++) byte_id[b] = entry(L, 1, b + 1);
  *place = pl_bpe_new(byte_id, merges, count);
  lua_pop(L, 1);
  return 1;
}

static int release_bpe(lua_State *L) {
  pl_bpe **place = luaL_checkudata(L, 1, BPE);
  pl_bpe_release(*place);
  *place = NULL;
  return 0;
}

typedef struct {
  int64_t count;
  const int64_t *ids;
  pl_tensor *out;
} upload;

static pl_status run_upload(void *context) {
  upload *u = context;
  return pl_tensor_upload(pl_device_at(0), PL_I64, 1, &u->count, u->ids, &u->out);
}

/* encoder:encode(text) -> int64 [count], 1-based */
static int encode(lua_State *L) {
  pl_bpe *bpe = *(pl_bpe **)luaL_checkudata(L, 1, BPE);
  size_t length, count = 0;
  const char *text = luaL_checklstring(L, 2, &length);
  int64_t *wide = lua_newuserdatauv(L, length * sizeof *wide + 1, 0);
  uint32_t *ids = lua_newuserdatauv(L, length * sizeof *ids + 1, 0);
  pl_raise_unless_ok(L, pl_bpe_encode(bpe, text, length, ids, &count));
  for (size_t i = 0; i < count; i++) wide[i] = (int64_t)ids[i] + 1;
  upload u = {.count = (int64_t)count, .ids = wide};
  pl_tensor **place = pl_push_handle(L);
  pl_run(L, "encode", run_upload, &u);
  *place = u.out;
  return 1;
}

/* bpe_train(text, most) -> merges { left, right, made, left, .. } */
static int train(lua_State *L) {
  size_t length, count = 0;
  const char *text = luaL_checklstring(L, 1, &length);
  lua_Integer most = luaL_checkinteger(L, 2);
  pl_merge *merges = lua_newuserdatauv(L, (size_t)most * sizeof *merges + 1, 0);
  pl_raise_unless_ok(L, pl_bpe_train(text, length, merges, (size_t)most, &count));
  lua_createtable(L, (int)count * 3, 0);
  for (size_t i = 0; i < count; i++) {
    const uint32_t ids[] = {merges[i].left, merges[i].right, merges[i].made};
    for (int k = 0; k < 3; k++) lua_pushinteger(L, ids[k]), lua_rawseti(L, -2, (lua_Integer)(3 * i) + k + 1);
  }
  return 1;
}

void pl_register_bpe(lua_State *L) {
  static const luaL_Reg functions[] = {{"bpe", new_bpe}, {"bpe_train", train}, {0}};
  luaL_newmetatable(L, BPE);
  lua_pushcfunction(L, release_bpe);
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  lua_pushcfunction(L, encode);
  lua_setfield(L, -2, "encode");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
