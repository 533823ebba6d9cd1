/* What a tensor handle shows as fields, what it changes in place, and its part in the graph. */
#include "host/bind/fields.h"

#include "host/bind/construct.h"
#include "host/bind/handle.h"
#include <string.h>

/* ---- fields: t.shape t.dtype t.device t.grad t.is_leaf, t[i], methods ---- */

static int shape(lua_State *L) {
  const pl_array *array = &pl_check_tensor(L, 1, "shape", "self")->array;
  lua_createtable(L, array->rank, 0);
  for (int i = 0; i < array->rank; i++) {
    lua_pushinteger(L, array->size[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int dtype(lua_State *L) {
  lua_pushstring(L, pl_dtype_name(pl_check_tensor(L, 1, "dtype", "self")->array.dtype));
  return 1;
}

static int device(lua_State *L) {
  lua_pushstring(L, pl_tensor_device(pl_check_tensor(L, 1, "device", "self"))->name);
  return 1;
}

static int grad(lua_State *L) {
  pl_tensor *gradient = pl_check_tensor(L, 1, "grad", "self")->gradient;
  if (gradient)
    *pl_push_handle(L) = pl_tensor_retain(gradient);
  else
    lua_pushnil(L);
  return 1;
}

static int is_leaf(lua_State *L) {
  lua_pushboolean(L, pl_check_tensor(L, 1, "is_leaf", "self")->node == NULL);
  return 1;
}

static const luaL_Reg fields[] = {{"shape", shape}, {"dtype", dtype},     {"device", device},
                                  {"grad", grad},   {"is_leaf", is_leaf}, {0}};

/* upvalues: methods, fields */
static int get(lua_State *L) {
  if (lua_type(L, 2) == LUA_TNUMBER) {
    const pl_array *array = &pl_check_tensor(L, 1, "[]", "self")->array;
    if (array->rank > 0 && lua_tointeger(L, 2) == array->size[0] + 1) { /* so that ipairs comes to its end */
      lua_pushnil(L);
      return 1;
    }
    lua_getfield(L, lua_upvalueindex(1), "select");
    lua_insert(L, 1);
    lua_pushinteger(L, 1);
    lua_insert(L, 3);
    lua_call(L, 3, 1);
    return 1;
  }
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TNIL) return 1;
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

static int set(lua_State *L) {
  if (lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "grad") == 0) {
    pl_tensor *self = pl_check_tensor(L, 1, "grad", "self");
    pl_tensor *value = lua_isnil(L, 3) ? NULL : pl_check_tensor(L, 3, "grad", "value");
    if (value && (!pl_array_same_shape(&value->array, &self->array) || value->array.dtype != self->array.dtype))
      return pl_error(L, "grad: expected %s %s, got %s %s", pl_dtype_name(self->array.dtype),
                      pl_shape_text(&self->array), pl_dtype_name(value->array.dtype), pl_shape_text(&value->array));
    /* A gradient has no gradient itself: chains of them could close into a ring that is never freed. */
    if (value && (pl_tensor_tracked(value) || value->gradient))
      return pl_error(L, "grad: expected a tensor outside the graph (detach it)");
    if (value && (!self->wants_gradient || self->node))
      return pl_error(L, "grad: only a leaf that requires a gradient can hold one");
    if (value && pl_tensor_device(value) != pl_tensor_device(self))
      return pl_error(L, "grad: expected a tensor on %s, got one on %s", pl_tensor_device(self)->name,
                      pl_tensor_device(value)->name);
    if (value) {
      pl_raise_unless_ok(L, pl_contiguous(value, &value)); /* backward adds to it */
      pl_tensor *own = pl_tensor_alias(&value->array); /* and sees by the shared buffer that it is the user's, too */
      pl_tensor_release(value);
      value = own;
    }
    pl_tensor_release(self->gradient);
    self->gradient = value;
    return 0;
  }
  if (lua_type(L, 2) != LUA_TNUMBER)
    return pl_error(L, "a tensor has no field '%s' that can be set", luaL_tolstring(L, 2, NULL));
  lua_getfield(L, lua_upvalueindex(1), "copy_");
  lua_getfield(L, lua_upvalueindex(1), "select");
  lua_pushvalue(L, 1);
  lua_pushinteger(L, 1);
  lua_pushvalue(L, 2);
  lua_call(L, 3, 1);
  if (lua_isboolean(L, 3))
    lua_pushinteger(L, lua_toboolean(L, 3));
  else
    lua_pushvalue(L, 3);
  lua_call(L, 2, 0);
  return 0;
}

static int length(lua_State *L) {
  const pl_array *array = &pl_check_tensor(L, 1, "#", "self")->array;
  lua_pushinteger(L, array->rank > 0 ? array->size[0] : 0);
  return 1;
}

/* ---- small questions ---- */

static int dim(lua_State *L) {
  lua_pushinteger(L, pl_check_tensor(L, 1, "dim", "self")->array.rank);
  return 1;
}

static int numel(lua_State *L) {
  lua_pushinteger(L, pl_tensor_count(pl_check_tensor(L, 1, "numel", "self")));
  return 1;
}

static int stride(lua_State *L) {
  const pl_array *array = &pl_check_tensor(L, 1, "stride", "self")->array;
  lua_createtable(L, array->rank, 0);
  for (int i = 0; i < array->rank; i++) {
    lua_pushinteger(L, array->stride[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int is_contiguous(lua_State *L) {
  lua_pushboolean(L, pl_array_contiguous(&pl_check_tensor(L, 1, "is_contiguous", "self")->array));
  return 1;
}

/* ---- in place ---- */

typedef struct {
  pl_tensor *self, operand, scale;
  pl_op op;
  bool scaled;
  const char *name;
} change;

/* The tensor or number at index as an operand. */
static void read_operand(lua_State *L, int index, change *c) {
  if (lua_type(L, index) == LUA_TNUMBER)
    c->operand.array = pl_check_number(L, index, c->self->array.dtype, c->name, "value");
  else
    c->operand.array = pl_check_tensor(L, index, c->name, "value")->array;
}

static pl_status run_copy(void *context) {
  change *c = context;
  return pl_assign(c->self, &c->operand, c->name);
}

static pl_status run_pointwise(void *context) {
  change *c = context;
  pl_array view;
  const pl_array *operand = &c->operand.array;
  pl_dtype type = c->self->array.dtype;
  pl_tensor *product = NULL, *apart = NULL;
  PL_REQUIRE(!operand->buffer || pl_array_broadcast(operand, &c->self->array, &view),
             "%s: value of shape %s does not broadcast to %s", c->name, pl_shape_text(operand),
             pl_shape_text(&c->self->array));
  PL_REQUIRE(!operand->buffer || operand->buffer->device == pl_tensor_device(c->self), "%s: value is on another device",
             c->name);
  PL_REQUIRE(!operand->buffer || pl_dtype_is_float(type) || !pl_dtype_is_float(operand->dtype),
             "%s: a %s tensor cannot take a %s value in place", c->name, pl_dtype_name(type),
             pl_dtype_name(operand->dtype));
  PL_TRY(pl_tensor_mutate(c->self, c->name));
  pl_device *on = pl_tensor_device(c->self);
  pl_status status = PL_OK;
  if (operand->buffer) {
    bool was = pl_set_recording(false);
    pl_tensor *shared = pl_tensor_alias(operand);
    status = c->scaled ? pl_mul(shared, &c->scale, &product) : pl_apart(shared, c->self, &apart);
    pl_tensor_release(shared);
    pl_set_recording(was);
  }
  if (status == PL_OK) {
    const pl_tensor *ready = product ? product : apart;
    const pl_array *in[PL_OPERANDS] = {&c->self->array, ready ? &ready->array : operand};
    status = on->pointwise(on, c->op, PL_VALUE, &c->self->array, in);
  }
  pl_tensor_release(product);
  pl_tensor_release(apart);
  return status;
}

static int in_place(lua_State *L, pl_op op, const char *name) {
  change c = {.self = pl_check_tensor(L, 1, name, "self"), .op = op, .name = name};
  read_operand(L, 2, &c);
  if (op == PL_OP_add && !lua_isnoneornil(L, 3)) {
    if (lua_type(L, 3) != LUA_TNUMBER)
      return pl_error(L, "%s: alpha: expected a number, got %s", name, luaL_typename(L, 3));
    c.scale.array = pl_check_number(L, 3, c.self->array.dtype, name, "alpha");
    c.scaled = c.operand.array.buffer != NULL;
    if (!c.scaled) { /* in Lua's own arithmetic: integers stay integers */
      lua_pushvalue(L, 2);
      lua_pushvalue(L, 3);
      lua_arith(L, LUA_OPMUL);
      c.operand.array = pl_check_number(L, -1, c.self->array.dtype, name, "value");
    }
  }
  pl_run(L, c.name, run_pointwise, &c);
  lua_settop(L, 1);
  return 1;
}

static int add_(lua_State *L) { return in_place(L, PL_OP_add, "add_"); }
static int mul_(lua_State *L) { return in_place(L, PL_OP_mul, "mul_"); }

static int assign(lua_State *L, const char *name) {
  change c = {.self = pl_check_tensor(L, 1, name, "self"), .name = name};
  read_operand(L, 2, &c);
  pl_run(L, c.name, run_copy, &c);
  lua_settop(L, 1);
  return 1;
}

static int copy_(lua_State *L) { return assign(L, "copy_"); }

static int fill_(lua_State *L) {
  if (lua_type(L, 2) != LUA_TNUMBER) return pl_error(L, "fill_: value: expected a number, got %s", luaL_typename(L, 2));
  return assign(L, "fill_");
}

static int zero_(lua_State *L) {
  lua_settop(L, 1);
  lua_pushinteger(L, 0);
  return assign(L, "zero_");
}

/* ---- the graph ---- */

static int requires_grad(lua_State *L) {
  pl_tensor *self = pl_check_tensor(L, 1, "requires_grad", "self");
  bool on = lua_isnoneornil(L, 2) ? true : lua_toboolean(L, 2);
  pl_raise_unless_ok(L, pl_tensor_want_gradient(self, on));
  lua_settop(L, 1);
  return 1;
}

static int tracked(lua_State *L) {
  lua_pushboolean(L, pl_tensor_tracked(pl_check_tensor(L, 1, "needs_grad", "self")));
  return 1;
}

static int backward(lua_State *L) {
  pl_tensor *self = pl_check_tensor(L, 1, "backward", "self");
  pl_tensor *start = pl_optional_tensor(L, 2, "backward", "seed");
  /* Not repeated after running out of memory: part of the graph is used up by then. */
  pl_raise_unless_ok(L, pl_backward(self, start));
  return 0;
}

static const char RECORDING[] = "perilune.recording";

static int restore_recording(lua_State *L) {
  pl_set_recording(*(bool *)luaL_checkudata(L, 1, RECORDING));
  return 0;
}

/* f(...) with recording on or off. What it was is kept in a value to be closed, not by a protected call, which would
 * cut the traceback of an error in f. f cannot yield: others would run with this recording until it is resumed. */
static int call_recording(lua_State *L, const char *function, bool on) {
  if (!lua_isfunction(L, 1)) return pl_error(L, "%s: f: expected a function, got %s", function, luaL_typename(L, 1));
  bool *was = lua_newuserdatauv(L, sizeof *was, 0);
  *was = pl_recording();
  luaL_setmetatable(L, RECORDING);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  pl_set_recording(on);
  lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
  return lua_gettop(L) - 1;
}

/* no_grad(f, ...) -> what f returns */
static int no_grad(lua_State *L) { return call_recording(L, "no_grad", false); }

/* with_grad(f, ...) -> what f returns: gradients of its own for what runs inside somebody's no_grad */
static int with_grad(lua_State *L) { return call_recording(L, "with_grad", true); }

static int grad_enabled(lua_State *L) {
  lua_pushboolean(L, pl_recording());
  return 1;
}

void pl_register_fields(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"no_grad", no_grad}, {"with_grad", with_grad}, {"grad_enabled", grad_enabled}, {0}};
  static const luaL_Reg methods[] = {{"dim", dim},
                                     {"numel", numel},
                                     {"stride", stride},
                                     {"is_contiguous", is_contiguous},
                                     {"add_", add_},
                                     {"mul_", mul_},
                                     {"copy_", copy_},
                                     {"fill_", fill_},
                                     {"zero_", zero_},
                                     {"requires_grad", requires_grad},
                                     {"needs_grad", tracked},
                                     {"backward", backward},
                                     {0}};
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, RECORDING);
  lua_pushcfunction(L, restore_recording);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
  luaL_getmetatable(L, PL_TENSOR);
  lua_getfield(L, LUA_REGISTRYINDEX, PL_METHODS);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_newtable(L);
  luaL_setfuncs(L, fields, 0);
  lua_pushcclosure(L, get, 2);
  lua_setfield(L, -3, "__index");
  lua_pushcclosure(L, set, 1);
  lua_setfield(L, -2, "__newindex");
  lua_pushcfunction(L, length);
  lua_setfield(L, -2, "__len");
  lua_createtable(L, (int)(sizeof fields / sizeof *fields), 0); /* for completion, which calls no functions */
  for (int i = 0; fields[i].name; i++) lua_pushstring(L, fields[i].name), lua_seti(L, -2, i + 1);
  lua_setfield(L, -2, "__names");
  lua_setfield(L, -2, "tensor_metatable");
  lua_getfield(L, LUA_REGISTRYINDEX, PL_METHODS);
  lua_setfield(L, -2, "methods");
}
