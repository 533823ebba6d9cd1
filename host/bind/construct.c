/* Constructors, conversions, and the way back to Lua tables and numbers. */
#include "host/bind/construct.h"

#include "host/bind/handle.h"
#include "host/tensor/files.h"
#include <string.h>

pl_dtype pl_check_dtype(lua_State *L, int index, const char *function) {
  const char *name = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : NULL;
  pl_dtype dtype = name ? pl_dtype_named(name) : PL_DTYPES;
  if (dtype == PL_DTYPES)
    pl_error(L, "%s: dtype: expected float64, float32, bfloat16, float16, int64, int32, uint8 or bool, got %s%s%s",
             function, name ? "'" : "", name ? name : luaL_typename(L, index), name ? "'" : "");
  return dtype;
}

pl_device *pl_check_device(lua_State *L, int index, const char *function) {
  pl_device *device = NULL;
  if (lua_type(L, index) != LUA_TSTRING)
    pl_error(L, "%s: device: expected a name, got %s", function, luaL_typename(L, index));
  pl_raise_unless_ok(L, pl_device_named(lua_tostring(L, index), &device));
  return device;
}

pl_array pl_check_number(lua_State *L, int index, pl_dtype dtype, const char *function, const char *argument) {
  int exact;
  lua_Integer integer = lua_tointegerx(L, index, &exact);
  if (pl_dtype_is_float(dtype))
    return lua_isinteger(L, index) ? pl_array_integer(integer) : pl_array_number(lua_tonumber(L, index));
  if (!exact)
    pl_error(L, "%s: %s: expected an integer for %s, got %s", function, argument, pl_dtype_name(dtype),
             luaL_tolstring(L, index, NULL));
  static const lua_Integer low[] = {[PL_BOOL] = LUA_MININTEGER, 0, INT32_MIN, LUA_MININTEGER};
  static const lua_Integer high[] = {[PL_BOOL] = LUA_MAXINTEGER, UINT8_MAX, INT32_MAX, LUA_MAXINTEGER};
  if (integer < low[dtype] || integer > high[dtype])
    pl_error(L, "%s: %s: %I is out of the range of %s", function, argument, integer, pl_dtype_name(dtype));
  return pl_array_integer(dtype == PL_BOOL ? integer != 0 : integer);
}

lua_Integer pl_check_integer(lua_State *L, int index, const char *function, const char *argument) {
  int exact;
  lua_Integer value = lua_tointegerx(L, index, &exact);
  if (!exact) pl_error(L, "%s: %s: expected an integer, got %s", function, argument, luaL_tolstring(L, index, NULL));
  return value;
}

/* Shape, type and device of a new tensor. */
typedef struct {
  int rank;
  int64_t size[PL_RANK_MAX];
  pl_dtype dtype;
  pl_device *device;
} form;

static void read_dtype(lua_State *L, const char *function, form *f) {
  f->dtype = pl_check_dtype(L, lua_gettop(L), function);
}

static void read_device(lua_State *L, const char *function, form *f) {
  f->device = pl_check_device(L, lua_gettop(L), function);
}

static const struct {
  const char *name;
  void (*read)(lua_State *L, const char *function, form *f); /* the value on top of the stack */
} form_options[] = {{"dtype", read_dtype}, {"device", read_device}};
enum { FORM_OPTIONS = sizeof form_options / sizeof *form_options };

/* dtype and device from the options table at index, where there is one; other names are errors. */
static void read_options(lua_State *L, int index, const char *function, form *f) {
  if (lua_isnoneornil(L, index)) return;
  if (!lua_istable(L, index))
    pl_error(L, "%s: options: expected a table such as { dtype = \"float64\" }, got %s", function,
             luaL_typename(L, index));
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2)) continue; /* sizes stand in the same table */
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int i = 0;
    while (i < FORM_OPTIONS && strcmp(name, form_options[i].name) != 0) i++;
    if (i == FORM_OPTIONS) pl_error(L, "%s: unknown option '%s' (dtype and device are known)", function, name);
    form_options[i].read(L, function, f);
  }
}

/* Sizes and options from one table at index, { 2, 3, dtype = .. }, and options from the table at `options`, if any,
 * which is the last argument. */
static form read_form(lua_State *L, int index, int options, const char *function, pl_dtype dtype) {
  form f = {.dtype = dtype, .device = pl_device_at(0)};
  if (!lua_istable(L, index))
    pl_error(L, "%s: shape: expected a table of sizes, got %s", function, luaL_typename(L, index));
  lua_Integer rank = luaL_len(L, index);
  if (rank > PL_RANK_MAX) pl_error(L, "%s: shape: at most %d dimensions, got %d", function, PL_RANK_MAX, (int)rank);
  f.rank = (int)rank;
  for (int i = 0; i < f.rank; i++) {
    int exact;
    lua_geti(L, index, i + 1);
    f.size[i] = lua_tointegerx(L, -1, &exact);
    if (!exact || f.size[i] < 0)
      pl_error(L, "%s: shape: size %d: expected an integer of 0 or more, got %s", function, i + 1,
               luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
  }
  read_options(L, index, function, &f);
  read_options(L, options, function, &f);
  return f;
}

static double check_number(lua_State *L, int index, const char *function, const char *argument) {
  if (lua_type(L, index) != LUA_TNUMBER)
    pl_error(L, "%s: %s: expected a number, got %s", function, argument, luaL_typename(L, index));
  return lua_tonumber(L, index);
}

static void require_float(lua_State *L, const form *f, const char *function) {
  if (!pl_dtype_is_float(f->dtype))
    pl_error(L, "%s: dtype: expected a floating-point type, got %s", function, pl_dtype_name(f->dtype));
}

/* ---- full, and random tensors ---- */

typedef struct {
  form f;
  pl_tensor value;
  pl_distribution kind;
  double p0, p1;
  pl_tensor *out;
} filling;

static pl_status run_full(void *context) {
  filling *x = context;
  PL_TRY(pl_tensor_new(x->f.device, x->f.dtype, x->f.rank, x->f.size, &x->out));
  pl_status status = x->f.device->copy(x->f.device, &x->out->array, &x->value.array);
  if (status != PL_OK) pl_tensor_release(x->out);
  return status;
}

static pl_status run_random(void *context) {
  filling *x = context;
  return pl_random(x->f.device, x->f.dtype, x->f.rank, x->f.size, x->kind, x->p0, x->p1, &x->out);
}

static int finish(lua_State *L, const char *name, pl_status (*run)(void *), filling *x) {
  pl_tensor **place = pl_push_handle(L);
  pl_run(L, name, run, x);
  *place = x->out;
  return 1;
}

/* full(form, value, options, name): the name, when there is one, is whose errors they are (zeros, ones). */
static int full(lua_State *L) {
  lua_settop(L, 4);
  const char *name = luaL_optstring(L, 4, "full");
  if (lua_type(L, 2) != LUA_TNUMBER && !lua_isboolean(L, 2))
    return pl_error(L, "%s: value: expected a number, got %s", name, luaL_typename(L, 2));
  filling x = {.f = read_form(L, 1, 3, name, PL_F32)};
  if (lua_isboolean(L, 2)) lua_pushinteger(L, lua_toboolean(L, 2)), lua_replace(L, 2);
  x.value.array = pl_check_number(L, 2, x.f.dtype, name, "value");
  return finish(L, "full", run_full, &x);
}

static int rand_(lua_State *L) {
  lua_settop(L, 2);
  filling x = {.f = read_form(L, 1, 2, "rand", PL_F32), .kind = PL_UNIFORM, .p0 = 0, .p1 = 1};
  require_float(L, &x.f, "rand");
  return finish(L, "rand", run_random, &x);
}

static int randn(lua_State *L) {
  lua_settop(L, 2);
  filling x = {.f = read_form(L, 1, 2, "randn", PL_F32), .kind = PL_NORMAL, .p0 = 0, .p1 = 1};
  require_float(L, &x.f, "randn");
  return finish(L, "randn", run_random, &x);
}

static int bernoulli(lua_State *L) {
  lua_settop(L, 3);
  double p = check_number(L, 1, "bernoulli", "p");
  if (!(p >= 0 && p <= 1)) return pl_error(L, "bernoulli: p: expected 0 <= p <= 1, got %f", p);
  filling x = {.f = read_form(L, 2, 3, "bernoulli", PL_F32), .kind = PL_BERNOULLI, .p0 = p};
  return finish(L, "bernoulli", run_random, &x);
}

static int randint(lua_State *L) {
  lua_settop(L, 4);
  lua_Integer low = pl_check_integer(L, 1, "randint", "low"), high = pl_check_integer(L, 2, "randint", "high");
  if (low > high) return pl_error(L, "randint: low %I is above high %I", low, high);
  if (low < -(1LL << 53) || high > 1LL << 53) return pl_error(L, "randint: bounds past 2^53 are not supported");
  filling x = {.f = read_form(L, 3, 4, "randint", PL_I64), .kind = PL_INTEGER, .p0 = (double)low, .p1 = (double)high};
  return finish(L, "randint", run_random, &x);
}

static int seed(lua_State *L) {
  pl_seed((uint64_t)pl_check_integer(L, 1, "seed", "n"));
  return 0;
}

/* random_state([seed, counter]) -> seed, counter as they are, or were before it set them */
static int random_state(lua_State *L) {
  uint64_t now[2];
  pl_random_state(now);
  if (!lua_isnoneornil(L, 1)) {
    uint64_t next[2] = {(uint64_t)luaL_checkinteger(L, 1), (uint64_t)luaL_checkinteger(L, 2)};
    pl_set_random_state(next);
  }
  lua_pushinteger(L, (lua_Integer)now[0]);
  lua_pushinteger(L, (lua_Integer)now[1]);
  return 2;
}

/* ---- from Lua numbers ---- */

/* Values on their way into a tensor: doubles or integers, by the type it will have. */
typedef struct {
  form f;
  union {
    double *real;
    int64_t *whole;
  } at;
  bool integers;
  void *values;
  pl_tensor *out;
} upload;

static void prepare(lua_State *L, upload *u) {
  int64_t count = 1;
  for (int i = 0; i < u->f.rank; i++)
    if (__builtin_mul_overflow(count, u->f.size[i], &count) || count > INT64_MAX / 16)
      pl_error(L, "tensor: shape: too many elements");
  u->integers = !pl_dtype_is_float(u->f.dtype);
  u->values = lua_newuserdatauv(L, (size_t)count * 8 + 8, 0);
  u->at.real = u->values;
}

static pl_status run_upload(void *context) {
  upload *u = context;
  pl_tensor *staged;
  pl_dtype wide = u->integers ? PL_I64 : PL_F64;
  PL_TRY(pl_tensor_upload(pl_device_at(0), wide, u->f.rank, u->f.size, u->values, &staged));
  pl_status status = pl_convert_to(staged, u->f.dtype, u->f.device, &u->out);
  pl_tensor_release(staged);
  return status;
}

static int finish_upload(lua_State *L, upload *u) {
  pl_tensor **place = pl_push_handle(L);
  pl_run(L, "tensor", run_upload, u);
  *place = u->out;
  return 1;
}

/* The sizes of a nested table by its first entries; reports whether every leaf seen there is a boolean. */
static void measure(lua_State *L, int index, form *f) {
  lua_pushvalue(L, index);
  while (lua_istable(L, -1)) {
    if (f->rank == PL_RANK_MAX) pl_error(L, "tensor: data: nested deeper than %d", PL_RANK_MAX);
    lua_Integer length = luaL_len(L, -1);
    if (length == 0 && lua_next(L, (lua_pushnil(L), -2)))
      pl_error(L, "tensor: data: expected a sequence, got a table with the key '%s'", luaL_tolstring(L, -2, NULL));
    f->size[f->rank++] = length;
    if (length == 0) {
      lua_pushnil(L);
      break;
    }
    lua_geti(L, -1, 1);
  }
  if (lua_isboolean(L, -1)) f->dtype = PL_BOOL;
  lua_settop(L, index + 1);
}

static void put(lua_State *L, upload *u) {
  bool truth = lua_isboolean(L, -1);
  if (!truth && lua_type(L, -1) != LUA_TNUMBER)
    pl_error(L, "tensor: data: expected a number, got %s", luaL_typename(L, -1));
  if (u->integers)
    *u->at.whole++ = truth ? lua_toboolean(L, -1) : pl_check_number(L, -1, u->f.dtype, "tensor", "data").integer;
  else
    *u->at.real++ = truth ? lua_toboolean(L, -1) : lua_tonumber(L, -1);
}

static void flatten(lua_State *L, upload *u, int depth) {
  if (depth == u->f.rank) {
    put(L, u);
    return;
  }
  if (!lua_istable(L, -1))
    pl_error(L, "tensor: data: ragged: expected a table at depth %d, got %s", depth + 1, luaL_typename(L, -1));
  lua_Integer length = luaL_len(L, -1);
  if (length != u->f.size[depth])
    pl_error(L, "tensor: data: ragged: a table at depth %d has %d entries, the first one there has %d", depth + 1,
             (int)length, (int)u->f.size[depth]);
  luaL_checkstack(L, 2, "nested data");
  for (lua_Integer i = 1; i <= length; i++) {
    lua_geti(L, -1, i);
    flatten(L, u, depth + 1);
    lua_pop(L, 1);
  }
}

static int tensor(lua_State *L) {
  lua_settop(L, 2);
  if (pl_is_tensor(L, 1)) return pl_error(L, "tensor: data: expected numbers, got a tensor; use clone or to");
  if (!lua_istable(L, 1) && lua_type(L, 1) != LUA_TNUMBER && !lua_isboolean(L, 1))
    return pl_error(L, "tensor: data: expected a number or a nested table, got %s", luaL_typename(L, 1));
  upload u = {.f = {.dtype = PL_F32, .device = pl_device_at(0)}};
  measure(L, 1, &u.f);
  read_options(L, 2, "tensor", &u.f);
  prepare(L, &u);
  lua_pushvalue(L, 1);
  flatten(L, &u, 0);
  return finish_upload(L, &u);
}

/* first, first + step, ..., up to and with last. */
static int arange(lua_State *L) {
  int options = lua_istable(L, 3) ? 3 : 4;
  lua_settop(L, 4);
  double first = check_number(L, 1, "arange", "first"), last = check_number(L, 2, "arange", "last");
  double step = options == 4 && !lua_isnil(L, 3) ? check_number(L, 3, "arange", "step") : 1;
  if (step == 0) return pl_error(L, "arange: step: expected a number other than 0");
  /* A last step that rounding cuts short by a hair still counts. */
  double steps = (last - first) / step + 1e-9;
  upload u = {.f = {.rank = 1, .dtype = PL_F32, .device = pl_device_at(0)}};
  if (!(steps <= 1e12)) return pl_error(L, "arange: %f elements are too many", steps);
  u.f.size[0] = steps < 0 ? 0 : (int64_t)steps + 1;
  read_options(L, options, "arange", &u.f);
  prepare(L, &u);
  for (int64_t i = 0; i < u.f.size[0]; i++)
    if (u.integers)
      *u.at.whole++ = pl_saturate(first + (double)i * step);
    else
      *u.at.real++ = first + (double)i * step;
  return finish_upload(L, &u);
}

static int linspace(lua_State *L) {
  lua_settop(L, 4);
  double first = check_number(L, 1, "linspace", "first"), last = check_number(L, 2, "linspace", "last");
  lua_Integer n = pl_check_integer(L, 3, "linspace", "n");
  if (n < 0) return pl_error(L, "linspace: n: expected 0 or more, got %I", n);
  upload u = {.f = {.rank = 1, .size = {n}, .dtype = PL_F32, .device = pl_device_at(0)}};
  read_options(L, 4, "linspace", &u.f);
  require_float(L, &u.f, "linspace");
  prepare(L, &u);
  for (int64_t i = 0; i < n; i++)
    *u.at.real++ = i == n - 1 && n > 1 ? last : first + (last - first) * (double)i / (double)(n > 1 ? n - 1 : 1);
  return finish_upload(L, &u);
}

/* ---- to other types and devices, and back to Lua ---- */

typedef struct {
  pl_tensor *self, *out;
  pl_dtype dtype;
  pl_device *device;
} conversion;

static pl_status run_conversion(void *context) {
  conversion *c = context;
  return pl_convert_to(c->self, c->dtype, c->device, &c->out);
}

/* t:to("float64"), t:to("cpu"), t:to("cuda", "bfloat16"), t:to{dtype=, device=} */
static int to(lua_State *L) {
  pl_tensor *self = pl_check_tensor(L, 1, "to", "self");
  conversion c = {.self = self, .dtype = self->array.dtype, .device = pl_tensor_device(self)};
  if (lua_gettop(L) < 2) return pl_error(L, "to: expected the name of a type or a device");
  for (int i = 2; i <= lua_gettop(L); i++) {
    if (lua_istable(L, i)) {
      form f = {.dtype = c.dtype, .device = c.device};
      read_options(L, i, "to", &f);
      c.dtype = f.dtype, c.device = f.device;
    } else if (lua_type(L, i) != LUA_TSTRING)
      return pl_error(L, "to: expected the name of a type or a device, got %s", luaL_typename(L, i));
    else if (pl_dtype_named(lua_tostring(L, i)) != PL_DTYPES)
      c.dtype = pl_dtype_named(lua_tostring(L, i));
    else if (pl_device_named(lua_tostring(L, i), &c.device) != PL_OK)
      return pl_error(L, "to: '%s' is neither a type nor a device here: %s", lua_tostring(L, i), pl_message());
  }
  pl_tensor **place = pl_push_handle(L);
  pl_run(L, "to", run_conversion, &c);
  *place = c.out;
  return 1;
}

typedef struct {
  pl_tensor *self;
  void *values;
} download;

static pl_status run_download(void *context) {
  download *d = context;
  pl_tensor *wide;
  bool was = pl_set_recording(false);
  pl_status status = pl_convert_to(d->self, pl_dtype_is_float(d->self->array.dtype) ? PL_F64 : PL_I64,
                                   pl_tensor_device(d->self), &wide);
  pl_set_recording(was);
  PL_TRY(status);
  status = pl_tensor_download(wide, d->values);
  pl_tensor_release(wide);
  return status;
}

/* The elements as doubles or integers in a userdata that is left on the stack. */
static void *values_of(lua_State *L, pl_tensor *self) {
  download d = {.self = self, .values = lua_newuserdatauv(L, (size_t)pl_tensor_count(self) * 8 + 8, 0)};
  pl_run(L, "totable", run_download, &d);
  return d.values;
}

static void push_value(lua_State *L, const pl_tensor *self, const void *values, int64_t i) {
  if (pl_dtype_is_float(self->array.dtype))
    lua_pushnumber(L, ((const double *)values)[i]);
  else
    lua_pushinteger(L, ((const int64_t *)values)[i]);
}

static void nest(lua_State *L, const pl_tensor *self, const void *values, int axis, int64_t *next) {
  if (axis == self->array.rank) {
    push_value(L, self, values, (*next)++);
    return;
  }
  luaL_checkstack(L, 3, "nested table");
  int64_t size = self->array.size[axis];
  lua_createtable(L, size < 1 << 24 ? (int)size : 0, 0);
  for (int64_t i = 1; i <= size; i++) {
    nest(L, self, values, axis + 1, next);
    lua_rawseti(L, -2, i);
  }
}

static int totable(lua_State *L) {
  pl_tensor *self = pl_check_tensor(L, 1, "totable", "self");
  const void *values = values_of(L, self);
  int64_t next = 0;
  nest(L, self, values, 0, &next);
  return 1;
}

static int item(lua_State *L) {
  pl_tensor *self = pl_check_tensor(L, 1, "item", "self");
  if (pl_tensor_count(self) != 1)
    return pl_error(L, "item: expected a tensor of one element, got shape %s", pl_shape_text(&self->array));
  push_value(L, self, values_of(L, self), 0);
  return 1;
}

void pl_register_construct(lua_State *L) {
  static const luaL_Reg functions[] = {{"tensor", tensor},
                                       {"full", full},
                                       {"rand", rand_},
                                       {"randn", randn},
                                       {"randint", randint},
                                       {"bernoulli", bernoulli},
                                       {"arange", arange},
                                       {"linspace", linspace},
                                       {"seed", seed},
                                       {"random_state", random_state},
                                       {0}};
  static const luaL_Reg methods[] = {{"to", to}, {"totable", totable}, {"item", item}, {0}};
  luaL_setfuncs(L, functions, 0);
  lua_createtable(L, 0, FORM_OPTIONS);
  for (int i = 0; i < FORM_OPTIONS; i++) lua_pushboolean(L, 1), lua_setfield(L, -2, form_options[i].name);
  lua_setfield(L, -2, "form_options");
  lua_getfield(L, LUA_REGISTRYINDEX, PL_METHODS);
  luaL_setfuncs(L, methods, 0);
  lua_pop(L, 1);
}
