/* What plans of fused recurrences come to, as Lua sees it: lua/perilune/rnn/fused.lua chooses by it. */
#include "host/bind/fused.h"

#include "host/bind/cell.h"
#include "host/bind/handle.h"

static void set_integer(lua_State *L, const char *name, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

/* fused_chip(device) -> { model=, architecture=, multiprocessors=, shared_bytes= } of a GPU, else nil */
static int fused_chip(lua_State *L) {
  pl_device *device;
  pl_raise_unless_ok(L, pl_device_named(luaL_checkstring(L, 1), &device));
  if (device->chip.architecture == 0) return 0;
  lua_createtable(L, 0, 4);
  lua_pushstring(L, device->model);
  lua_setfield(L, -2, "model");
  set_integer(L, "architecture", device->chip.architecture);
  set_integer(L, "multiprocessors", device->chip.multiprocessors);
  set_integer(L, "shared_bytes", device->chip.shared_bytes);
  return 1;
}

static int64_t integer_of(lua_State *L, int table, const char *name) {
  int exact;
  lua_getfield(L, table, name);
  int64_t value = lua_tointegerx(L, -1, &exact);
  if (!exact) pl_error(L, "fused_details: %s: expected an integer, got %s", name, luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  return value;
}

static pl_dtype type_of(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  pl_dtype type = pl_dtype_named(luaL_checkstring(L, -1));
  if (type == PL_DTYPES || !pl_dtype_is_float(type))
    pl_error(L, "fused_details: %s: expected a floating-point type, got '%s'", name, lua_tostring(L, -1));
  lua_pop(L, 1);
  return type;
}

static void push_way(lua_State *L, const pl_fused_details *d, int way) {
  lua_createtable(L, 0, 4);
  set_integer(L, "register_bytes", d->way[way].register_bytes);
  set_integer(L, "weight_bytes", d->way[way].weight_bytes);
  set_integer(L, "shared_bytes", d->way[way].shared_bytes);
  set_integer(L, "exchanged_bytes", d->way[way].exchanged_bytes);
}

static void push_details(lua_State *L, const pl_fused_details *d) {
  lua_createtable(L, 0, 9);
  set_integer(L, "warps", d->warps);
  set_integer(L, "threads", d->threads);
  set_integer(L, "padded", d->padded);
  set_integer(L, "blocks", d->blocks);
  set_integer(L, "launches", d->launches);
  set_integer(L, "moved_bytes", d->moved_bytes);
  set_integer(L, "products", d->products);
  push_way(L, d, 0), lua_setfield(L, -2, "forward");
  push_way(L, d, 1), lua_setfield(L, -2, "backward");
}

pl_fused_chip pl_read_fused_chip(lua_State *L, int table) {
  return (pl_fused_chip){.architecture = (int)integer_of(L, table, "architecture"),
                         .multiprocessors = (int)integer_of(L, table, "multiprocessors"),
                         .shared_bytes = integer_of(L, table, "shared_bytes")};
}

/* fused_details(chip, cell, { batch=, heads=, head_dim=, dtype=, product= }, plan) -> what the plan comes to on that
 * chip (see pl_fused_details), or nil and the limit that it breaks. Needs no device. */
static int fused_details(lua_State *L) {
  for (int i = 1; i <= 4; i++)
    if (i != 2) luaL_checktype(L, i, LUA_TTABLE);
  pl_fused_chip chip = pl_read_fused_chip(L, 1);
  pl_recurrence q = {.cell = pl_check_cell(L, 2),
                     .batch = integer_of(L, 3, "batch"),
                     .steps = 1,
                     .heads = integer_of(L, 3, "heads"),
                     .dim = integer_of(L, 3, "head_dim"),
                     .type = PL_F32,
                     .storage = type_of(L, 3, "dtype"),
                     .product = type_of(L, 3, "product")};
  pl_fused_details details;
  pl_read_fused_plan(L, 4, &q.plan);
  if (pl_device_fused(&q, &chip, &details) == PL_OK) {
    push_details(L, &details);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, pl_message_text());
  return 2;
}

void pl_register_fused(lua_State *L) {
  static const luaL_Reg functions[] = {{"fused_chip", fused_chip}, {"fused_details", fused_details}, {0}};
  luaL_setfuncs(L, functions, 0);
}
