/* Reading arguments by signature, calling the operation, pushing its results. */
#include "host/bind/call.h"

#include "host/bind/handle.h"
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS_MAX = 8 };

/* One argument of a signature such as "dim:D?" or "eps:x?=1e-5". */
typedef struct {
  char name[24];
  char code;
  bool optional;
  double fallback;
} argument;

typedef struct {
  const pl_operation *operation;
  int count;
  argument argument[ARGUMENTS_MAX];
} signature;

static void parse(const pl_operation *operation, signature *s) {
  *s = (signature){.operation = operation};
  for (const char *at = operation->signature; *at;) {
    argument *a = &s->argument[s->count++];
    size_t length = strcspn(at, ":");
    memcpy(a->name, at, length);
    at += length + 1;
    a->code = *at++;
    a->optional = *at == '?';
    if (a->optional) at++;
    if (*at == '=') a->fallback = strtod(at + 1, NULL);
    at += strcspn(at, " ");
    while (*at == ' ') at++;
  }
}

/* What the reading of one call has come to. */
typedef struct {
  lua_State *L;
  const signature *s;
  pl_call call;
  int tensors, integers, numbers;
  bool axes_given;
} reading;

static int fail(reading *r, const argument *a, const char *expected, int index) {
  return pl_error(r->L, "%s: %s: expected %s, got %s", r->s->operation->name, a->name, expected,
                  lua_isnone(r->L, index) ? "nothing" : luaL_typename(r->L, index));
}

static int64_t integer_at(reading *r, const argument *a, int index) {
  int exact;
  lua_Integer value = lua_tointegerx(r->L, index, &exact);
  if (!exact) fail(r, a, "an integer", index);
  return value;
}

/* A dimension of the first tensor, as 0-based axis. */
static int axis_at(reading *r, const argument *a, int index, int rank) {
  int64_t dim = integer_at(r, a, index), from_front = dim < 0 ? rank + dim : dim - 1;
  if (dim == 0 || from_front < 0 || from_front >= rank)
    pl_error(r->L, "%s: %s: dimension %d is outside 1..%d (or -%d..-1)", r->s->operation->name, a->name, (int)dim, rank,
             rank);
  return (int)from_front;
}

static int rank_of_first(const reading *r) {
  const pl_tensor *first = r->call.tensor[0] ? r->call.tensor[0] : r->call.listed ? r->call.list[0] : NULL;
  return first ? first->array.rank : 0;
}

static void read_tensor(reading *r, const argument *a, int index) {
  const char *function = r->s->operation->name;
  r->call.tensor[r->tensors++] = a->optional ? pl_optional_tensor(r->L, index, function, a->name)
                                             : pl_check_tensor(r->L, index, function, a->name);
}

static void read_list(reading *r, const argument *a, int index) {
  if (!lua_istable(r->L, index)) fail(r, a, "a table of tensors", index);
  int count = (int)lua_rawlen(r->L, index); /* raw: only the table itself keeps the tensors from the collector */
  if (count == 0) pl_error(r->L, "%s: %s: expected at least one tensor", r->s->operation->name, a->name);
  r->call.list = lua_newuserdatauv(r->L, (size_t)count * sizeof *r->call.list, 0);
  lua_insert(r->L, 1); /* kept below the arguments while they are read */
  for (int i = 0; i < count; i++) {
    lua_rawgeti(r->L, index + 1, i + 1);
    r->call.list[i] = pl_check_tensor(r->L, -1, r->s->operation->name, a->name);
    lua_pop(r->L, 1); /* the caller's table holds it */
  }
  r->call.listed = count;
}

static void read_dim(reading *r, const argument *a, int index) {
  int rank = rank_of_first(r);
  if (a->optional && lua_isnoneornil(r->L, index)) {
    int from_front = a->fallback < 0 ? rank + (int)a->fallback : (int)a->fallback - 1;
    if (from_front < 0 || from_front >= rank)
      pl_error(r->L, "%s: a tensor without dimensions has no dimension %d", r->s->operation->name, (int)a->fallback);
    r->call.integer[r->integers++] = from_front;
  } else
    r->call.integer[r->integers++] = axis_at(r, a, index, rank);
}

static void read_dims(reading *r, const argument *a, int index) {
  int rank = rank_of_first(r);
  r->axes_given = !lua_isnoneornil(r->L, index);
  if (!r->axes_given) {
    r->call.axes = (1u << rank) - 1;
    return;
  }
  if (!lua_istable(r->L, index)) {
    r->call.axes = 1u << axis_at(r, a, index, rank);
    return;
  }
  for (int i = 1; i <= (int)luaL_len(r->L, index); i++) {
    lua_geti(r->L, index, i);
    r->call.axes |= 1u << axis_at(r, a, lua_gettop(r->L), rank);
    lua_pop(r->L, 1);
  }
}

static void read_boolean(reading *r, const argument *a, int index) {
  if (!lua_isnoneornil(r->L, index) && !lua_isboolean(r->L, index)) fail(r, a, "true or false", index);
  r->call.integer[r->integers++] = lua_toboolean(r->L, index);
}

static void read_integer(reading *r, const argument *a, int index) {
  bool absent = a->optional && lua_isnoneornil(r->L, index);
  r->call.integer[r->integers++] = absent ? (int64_t)a->fallback : integer_at(r, a, index);
}

static void read_number(reading *r, const argument *a, int index) {
  bool absent = a->optional && lua_isnoneornil(r->L, index);
  if (!absent && lua_type(r->L, index) != LUA_TNUMBER) fail(r, a, "a number", index);
  r->call.number[r->numbers++] = absent ? a->fallback : lua_tonumber(r->L, index);
}

/* Integers from a table at index, or from index on to the last argument. */
static void read_shape(reading *r, const argument *a, int index) {
  bool table = lua_istable(r->L, index);
  int count = table ? (int)luaL_len(r->L, index) : lua_gettop(r->L) - index + 1;
  if (count > PL_RANK_MAX)
    pl_error(r->L, "%s: %s: at most %d dimensions, got %d", r->s->operation->name, a->name, PL_RANK_MAX, count);
  for (int i = 0; i < count; i++) {
    if (table)
      lua_geti(r->L, index, i + 1);
    else
      lua_pushvalue(r->L, index + i);
    r->call.shape[i] = integer_at(r, a, lua_gettop(r->L));
    if (r->call.shape[i] < -1)
      pl_error(r->L, "%s: %s: sizes must not be negative, got %d", r->s->operation->name, a->name,
               (int)r->call.shape[i]);
    lua_pop(r->L, 1);
  }
  r->call.rank = count > 0 ? count : 0;
}

static void read_order(reading *r, const argument *a, int index) {
  int rank = rank_of_first(r);
  unsigned seen = 0;
  read_shape(r, a, index);
  for (int i = 0; i < r->call.rank; i++) {
    int64_t dim = r->call.shape[i] < 0 ? rank + r->call.shape[i] : r->call.shape[i] - 1;
    if (dim >= 0 && dim < rank) seen |= 1u << dim;
    r->call.shape[i] = dim;
  }
  if (r->call.rank != rank || seen != (1u << rank) - 1)
    pl_error(r->L, "%s: %s: expected each dimension 1..%d exactly once", r->s->operation->name, a->name, rank);
}

static void read_given(reading *r, const argument *a, int index) {
  (void)a, (void)index;
  r->call.integer[r->integers++] = r->axes_given;
}

static void (*const readers[128])(reading *, const argument *, int) = {
    ['t'] = read_tensor,  ['l'] = read_list,   ['d'] = read_dim,   ['D'] = read_dims,  ['b'] = read_boolean,
    ['i'] = read_integer, ['x'] = read_number, ['s'] = read_shape, ['S'] = read_order, ['a'] = read_given,
};

/* A table with names in it at the place of a plain argument holds this and all later arguments by name. */
static bool is_options(lua_State *L, const argument *a, int index) {
  if (!lua_istable(L, index) || strchr("lsSa", a->code)) return false;
  bool sequence = lua_geti(L, index, 1) != LUA_TNIL;
  lua_pop(L, 1);
  return !sequence;
}

static void check_names(reading *r, int from, int index) {
  for (lua_pushnil(r->L); lua_next(r->L, index); lua_pop(r->L, 1)) {
    bool known = false;
    for (int i = from; i < r->s->count && lua_type(r->L, -2) == LUA_TSTRING; i++)
      known = known || strcmp(r->s->argument[i].name, lua_tostring(r->L, -2)) == 0;
    if (!known)
      pl_error(r->L, "%s: unknown option '%s'", r->s->operation->name,
               lua_type(r->L, -2) == LUA_TSTRING ? lua_tostring(r->L, -2) : "?");
  }
}

static void read_all(reading *r) {
  int options = 0, base = 1;
  for (int i = 0; i < r->s->count; i++) {
    const argument *a = &r->s->argument[i];
    int index = base + i;
    if (!options && is_options(r->L, a, index)) {
      options = index;
      check_names(r, i, options);
    }
    if (options) {
      lua_getfield(r->L, options, a->name);
      index = lua_gettop(r->L);
    }
    readers[(unsigned char)a->code](r, a, index);
    if (a->code == 'l') base++; /* the list moved in below */
  }
  if (!options) { /* optional trailing arguments may be absent, further ones may not be there */
    const argument *last = &r->s->argument[r->s->count - 1];
    int most = r->s->count - (last->code == 'a'), given = lua_gettop(r->L) - (base - 1);
    if (given > most && last->code != 's' && last->code != 'S')
      pl_error(r->L, "%s: expected at most %d arguments, got %d", r->s->operation->name, most, given);
  }
}

typedef struct {
  reading r;
  pl_tensor *out[PL_NODE_OUTPUTS];
} operation_run;

static pl_status run_operation(void *context) {
  operation_run *run = context;
  return run->r.s->operation->run(&run->r.call, run->out);
}

static int call_operation(lua_State *L) {
  const signature *s = lua_touserdata(L, lua_upvalueindex(1));
  operation_run run = {.r = {.L = L, .s = s}};
  read_all(&run.r);
  pl_tensor **place[PL_NODE_OUTPUTS];
  luaL_checkstack(L, PL_NODE_OUTPUTS + 2, "results");
  for (int i = 0; i < s->operation->outputs; i++) place[i] = pl_push_handle(L);
  pl_run(L, s->operation->name, run_operation, &run);
  int results = 0;
  for (int i = 0; i < s->operation->outputs; i++) {
    *place[i] = run.out[i];
    if (run.out[i]) results++;
  }
  lua_settop(L, lua_gettop(L) - (s->operation->outputs - results)); /* absent results come last */
  return results;
}

/* ---- elementwise ---- */

typedef struct {
  pl_op op;
  pl_tensor *operand[3], *out;
} pointwise_run;

static pl_status run_pointwise(void *context) {
  pointwise_run *run = context;
  return pl_pointwise_run(run->op, run->operand, &run->out);
}

static int call_pointwise(lua_State *L) {
  static const char *const names[] = {"first operand", "second operand", "third operand"};
  pointwise_run run = {.op = (pl_op)lua_tointeger(L, lua_upvalueindex(1))};
  const pl_pointwise *row = &pl_pointwise_table[run.op];
  pl_tensor numbers[3];
  for (int i = 0; i < row->arity; i++) {
    if (lua_type(L, i + 1) == LUA_TNUMBER) {
      numbers[i] = (pl_tensor){.count = 1,
                               .array = lua_isinteger(L, i + 1) ? pl_array_integer(lua_tointeger(L, i + 1))
                                                                : pl_array_number(lua_tonumber(L, i + 1))};
      run.operand[i] = &numbers[i];
    } else {
      if (!pl_is_tensor(L, i + 1))
        return pl_error(L, "%s: %s: expected a tensor or a number, got %s", row->name, names[i],
                        lua_isnone(L, i + 1) ? "nothing" : luaL_typename(L, i + 1));
      run.operand[i] = pl_check_tensor(L, i + 1, row->name, names[i]);
    }
  }
  if (lua_gettop(L) > row->arity)
    return pl_error(L, "%s: expected %d arguments, got %d", row->name, row->arity, lua_gettop(L));
  pl_tensor **place = pl_push_handle(L);
  pl_run(L, row->name, run_pointwise, &run);
  *place = run.out;
  return 1;
}

/* An operator whose other operand is something else that knows the operator (an expression inside a cell) is its
 * affair. */
static int call_operator(lua_State *L) {
  const char *event = lua_tostring(L, lua_upvalueindex(2));
  for (int i = 1; i <= 2; i++)
    if (lua_type(L, i) == LUA_TTABLE && luaL_getmetafield(L, i, event) != LUA_TNIL) {
      lua_pushvalue(L, 1);
      lua_pushvalue(L, 2);
      lua_call(L, 2, 1);
      return 1;
    }
  lua_settop(L, pl_pointwise_table[lua_tointeger(L, lua_upvalueindex(1))].arity); /* unary minus comes twice */
  return call_pointwise(L);
}

static int refuse_order(lua_State *L) {
  return pl_error(L,
                  "tensors cannot be compared with < and <=, which give one boolean in Lua; use pl.lt, le, gt or ge");
}

static void register_operators(lua_State *L) {
  static const struct {
    const char *event;
    pl_op op;
  } operators[] = {{"__add", PL_OP_add}, {"__sub", PL_OP_sub}, {"__mul", PL_OP_mul},      {"__div", PL_OP_div},
                   {"__pow", PL_OP_pow}, {"__unm", PL_OP_neg}, {"__mod", PL_OP_remainder}};
  luaL_getmetatable(L, PL_TENSOR);
  for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
    lua_pushinteger(L, operators[i].op);
    lua_pushstring(L, operators[i].event);
    lua_pushcclosure(L, call_operator, 2);
    lua_setfield(L, -2, operators[i].event);
  }
  lua_pushcfunction(L, refuse_order);
  lua_setfield(L, -2, "__lt");
  lua_pushcfunction(L, refuse_order);
  lua_setfield(L, -2, "__le");
  lua_pop(L, 1);
}

/* The rows of the elementwise table for Lua: what cells compile with, and what the test over all of them walks. */
static void push_rows(lua_State *L) {
  static const char *const domains[] = {"any", "test", "real"};
  lua_createtable(L, PL_OPS, 0);
  for (int i = 0; i < PL_OPS; i++) {
    const pl_pointwise *row = &pl_pointwise_table[i];
    lua_createtable(L, 0, 7);
    lua_pushstring(L, row->name), lua_setfield(L, -2, "name");
    lua_pushinteger(L, row->arity), lua_setfield(L, -2, "arity");
    lua_pushstring(L, domains[row->domain]), lua_setfield(L, -2, "domain");
    lua_pushstring(L, row->text[PL_VALUE]), lua_setfield(L, -2, "value");
    lua_pushnumber(L, row->low), lua_setfield(L, -2, "low");
    lua_pushnumber(L, row->high), lua_setfield(L, -2, "high");
    lua_createtable(L, 3, 0);
    for (int k = 0; k < 3; k++) lua_pushstring(L, row->text[PL_GRADIENT_A + k]), lua_seti(L, -2, k + 1);
    lua_setfield(L, -2, "gradient");
    lua_seti(L, -2, i + 1);
  }
}

void pl_register_calls(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, PL_METHODS);
  lua_createtable(L, pl_operation_count, 0);
  for (int i = 0; i < pl_operation_count; i++) {
    signature *s = lua_newuserdatauv(L, sizeof *s, 0);
    parse(&pl_operations[i], s);
    lua_pushcclosure(L, call_operation, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, pl_operations[i].name); /* as a method */
    lua_setfield(L, -4, pl_operations[i].name);
    lua_createtable(L, 0, 2);
    lua_pushstring(L, pl_operations[i].name), lua_setfield(L, -2, "name");
    lua_pushstring(L, pl_operations[i].signature), lua_setfield(L, -2, "signature");
    lua_seti(L, -2, i + 1);
  }
  lua_setfield(L, -3, "operations");
  for (int i = 0; i < PL_OPS; i++) {
    lua_pushinteger(L, i);
    lua_pushcclosure(L, call_pointwise, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, pl_pointwise_table[i].name);
    lua_setfield(L, -3, pl_pointwise_table[i].name);
  }
  push_rows(L);
  lua_setfield(L, -3, "pointwise");
  lua_pop(L, 1);
  register_operators(L);
}
