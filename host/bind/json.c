/* JSON of Lua values. */
#include "host/bind/json.h"
#include "host/base/json.h"
#include "host/base/text.h"

#include <lauxlib.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BOX        "perilune.json.box"
#define NULL_VALUE "perilune.null"
#define ARRAY      "perilune.array"
enum { DEPTH_MAX = 200 };

json_t *pl_json_string(const char *data, size_t length) {
  pl_text text = {0};
  pl_text_append_utf8(&text, data, length);
  json_t *string = json_stringn_nocheck(text.data, text.length);
  pl_text_release(&text);
  return string;
}

/* ---- Lua to JSON ---- */

typedef struct {
  lua_State *L;
  int depth;
  char *problem;
} converter;

static json_t *convert(converter *c, int index);

static json_t *refuse(converter *c, const char *what) {
  snprintf(c->problem, 200, "cannot write %s as JSON", what);
  return NULL;
}

static bool has_metatable(lua_State *L, int index, const char *name) {
  if (!lua_getmetatable(L, index)) return false;
  luaL_getmetatable(L, name);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

/* Keys 1..n and nothing else? An empty table only when it was marked. */
static bool is_sequence(lua_State *L, int table) {
  if (has_metatable(L, table, ARRAY)) return true;
  lua_Unsigned keys = 0, length = lua_rawlen(L, table);
  if (length == 0) return false;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
    if (++keys > length) {
      lua_pop(L, 2);
      return false;
    }
  return keys == length;
}

static json_t *convert_sequence(converter *c, int table) {
  json_t *array = json_array();
  lua_Unsigned length = lua_rawlen(c->L, table);
  for (lua_Unsigned i = 1; i <= length; i++) {
    lua_rawgeti(c->L, table, (lua_Integer)i);
    json_t *item = convert(c, lua_gettop(c->L));
    lua_pop(c->L, 1);
    if (!item) {
      json_decref(array);
      return NULL;
    }
    json_array_append_new(array, item);
  }
  return array;
}

/* The key at index as text; false when a key of that type has no place in JSON. Converts no value in place, for
 * lua_next would lose its way. */
static bool key_text(lua_State *L, int index, pl_text *key) {
  pl_text_clear(key);
  if (lua_type(L, index) == LUA_TSTRING) {
    size_t length;
    const char *data = lua_tolstring(L, index, &length);
    pl_text_append_utf8(key, data, length);
    return memchr(data, 0, length) == NULL; /* jansson's keys end at a NUL */
  }
  if (lua_isinteger(L, index))
    pl_text_print(key, "%lld", (long long)lua_tointeger(L, index));
  else if (lua_type(L, index) == LUA_TNUMBER)
    pl_text_print(key, "%.14g", lua_tonumber(L, index));
  else
    return false;
  return true;
}

static json_t *convert_object(converter *c, int table) {
  json_t *object = json_object();
  pl_text key = {0};
  for (lua_pushnil(c->L); object && lua_next(c->L, table); lua_pop(c->L, 1)) {
    int value = lua_gettop(c->L);
    json_t *item = NULL;
    if (!key_text(c->L, value - 1, &key))
      refuse(c, "a table with a key that is neither a string without NUL nor a number");
    else
      item = convert(c, value);
    if (!item) {
      json_decref(object);
      object = NULL;
      lua_pop(c->L, 2);
      break;
    }
    json_object_set_new_nocheck(object, key.data, item);
  }
  pl_text_release(&key);
  return object ? pl_json_sorted(object) : NULL;
}

static json_t *convert_number(lua_State *L, int index) {
  if (lua_isinteger(L, index)) return json_integer(lua_tointeger(L, index));
  double number = lua_tonumber(L, index);
  return isfinite(number) ? json_real(number) : json_null();
}

static json_t *convert_table(converter *c, int table) {
  if (c->depth == DEPTH_MAX) return refuse(c, "a table that is nested too deeply or contains itself");
  c->depth++;
  json_t *result = is_sequence(c->L, table) ? convert_sequence(c, table) : convert_object(c, table);
  c->depth--;
  return result;
}

static json_t *convert(converter *c, int index) {
  lua_State *L = c->L;
  if (!lua_checkstack(L, 8)) return refuse(c, "so deep a table");
  int type = lua_type(L, index);
  if (type == LUA_TSTRING) {
    size_t length;
    const char *data = lua_tolstring(L, index, &length);
    return pl_json_string(data, length);
  }
  if (type == LUA_TNUMBER) return convert_number(L, index);
  if (type == LUA_TBOOLEAN) return json_boolean(lua_toboolean(L, index));
  if (type == LUA_TTABLE) return convert_table(c, index);
  if (type == LUA_TNIL || has_metatable(L, index, NULL_VALUE)) return json_null();
  char what[64];
  snprintf(what, sizeof what, "a %s", lua_typename(L, type));
  return refuse(c, what);
}

json_t *pl_lua_to_json(lua_State *L, int index, char problem[200]) {
  converter c = {.L = L, .problem = problem};
  return convert(&c, lua_absindex(L, index));
}

/* ---- JSON to Lua ---- */

static void push_null(lua_State *L) { lua_getfield(L, LUA_REGISTRYINDEX, NULL_VALUE " value"); }

static void push_array(lua_State *L, const json_t *array) {
  size_t size = json_array_size(array);
  lua_createtable(L, (int)size, 0);
  if (size == 0) luaL_setmetatable(L, ARRAY);
  for (size_t i = 0; i < size; i++) {
    pl_json_to_lua(L, json_array_get(array, i));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static void push_object(lua_State *L, const json_t *object) {
  lua_createtable(L, 0, (int)json_object_size(object));
  for (void *at = json_object_iter((json_t *)object); at; at = json_object_iter_next((json_t *)object, at)) {
    lua_pushlstring(L, json_object_iter_key(at), json_object_iter_key_len(at));
    pl_json_to_lua(L, json_object_iter_value(at));
    lua_rawset(L, -3);
  }
}

void pl_json_to_lua(lua_State *L, const json_t *value) {
  luaL_checkstack(L, 8, "JSON is nested too deeply");
  switch (json_typeof(value)) {
  case JSON_OBJECT:
    push_object(L, value);
    break;
  case JSON_ARRAY:
    push_array(L, value);
    break;
  case JSON_STRING:
    lua_pushlstring(L, json_string_value(value), json_string_length(value));
    break;
  case JSON_INTEGER:
    lua_pushinteger(L, json_integer_value(value));
    break;
  case JSON_REAL:
    lua_pushnumber(L, json_real_value(value));
    break;
  case JSON_TRUE:
  case JSON_FALSE:
    lua_pushboolean(L, json_is_true(value));
    break;
  case JSON_NULL:
    push_null(L);
    break;
  }
}

/* ---- what Lua calls ---- */

static int release_box(lua_State *L) {
  json_t **box = luaL_checkudata(L, 1, BOX);
  json_decref(*box);
  *box = NULL;
  return 0;
}

json_t **pl_json_box(lua_State *L) {
  json_t **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  if (luaL_newmetatable(L, BOX)) {
    lua_pushcfunction(L, release_box);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__gc");
    lua_setfield(L, -2, "__close");
  }
  lua_setmetatable(L, -2);
  return box;
}

/* json_encode(value [, indent]) -> text */
static int encode(lua_State *L) {
  luaL_checkany(L, 1);
  int indent = (int)luaL_optinteger(L, 2, 0);
  char problem[200];
  json_t **box = pl_json_box(L);
  *box = pl_lua_to_json(L, 1, problem);
  if (!*box) return luaL_argerror(L, 1, problem);
  pl_text text = {0};
  pl_json_write(*box, indent, &text);
  json_t *whole = json_stringn_nocheck(text.data, text.length); /* handed to Lua in something that cannot be lost */
  pl_text_release(&text);
  json_decref(*box);
  *box = whole;
  lua_pushlstring(L, json_string_value(whole), json_string_length(whole));
  return 1;
}

/* json_decode(text) -> value */
static int decode(lua_State *L) {
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length);
  json_t **box = pl_json_box(L);
  json_error_t error;
  *box = json_loadb(text, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
  if (!*box) return luaL_error(L, "invalid JSON at line %d, column %d: %s", error.line, error.column, error.text);
  pl_json_to_lua(L, *box);
  return 1;
}

/* json_array(table) -> the same table, which is an array even when it is empty */
static int mark_array(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getmetatable(L, 1) && !has_metatable(L, 1, ARRAY))
    return luaL_argerror(L, 1, "the table has a metatable of its own, and so cannot be marked as an array");
  lua_settop(L, 1);
  luaL_setmetatable(L, ARRAY);
  return 1;
}

static int null_text(lua_State *L) {
  lua_pushliteral(L, "null");
  return 1;
}

static void create_null(lua_State *L) {
  lua_newuserdatauv(L, 0, 0);
  luaL_newmetatable(L, NULL_VALUE);
  lua_pushcfunction(L, null_text);
  lua_setfield(L, -2, "__tostring");
  lua_setmetatable(L, -2);
  lua_setfield(L, LUA_REGISTRYINDEX, NULL_VALUE " value");
}

void pl_register_json(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"json_encode", encode}, {"json_decode", decode}, {"json_array", mark_array}, {NULL, NULL}};
  luaL_newmetatable(L, ARRAY);
  lua_pop(L, 1);
  create_null(L);
  luaL_setfuncs(L, functions, 0);
  push_null(L);
  lua_setfield(L, -2, "null");
}
