/* Message handler of every protected call. */
#include "host/bind/traceback.h"

#include <lauxlib.h>
#include <string.h>

static const char marker[] = "\nstack traceback:\n";

const char *pl_traceback_find(const char *text) {
  const char *found = NULL; /* the last one: a message may quote another traceback */
  for (const char *at = text; (at = strstr(at, marker)) != NULL; at++) found = at;
  return found;
}

/* Pushes a string for the error value at 1. */
static const char *describe(lua_State *L) {
  if (luaL_callmeta(L, 1, "__tostring")) {
    if (lua_type(L, -1) == LUA_TSTRING) return lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  if (lua_type(L, 1) == LUA_TSTRING || lua_type(L, 1) == LUA_TNUMBER) {
    lua_pushvalue(L, 1);
    return lua_tostring(L, -1);
  }
  if (lua_isnil(L, 1)) return lua_pushliteral(L, "nil was raised as an error");
  return lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
}

int pl_traceback_handler(lua_State *L) {
  describe(L);
  luaL_traceback(L, L, NULL, 1);
  /* The frames of the C functions that the program itself called stand last; they tell the user nothing. */
  static const char own[] = "\n\t[C]: in ?";
  size_t length, tail = sizeof own - 1;
  const char *trace = lua_tolstring(L, -1, &length);
  while (length >= tail && memcmp(trace + length - tail, own, tail) == 0) length -= tail;
  lua_pushlstring(L, trace, length);
  lua_remove(L, -2);
  if (strchr(lua_tostring(L, -1), '\n') == NULL) { /* nothing but the heading is left */
    lua_pop(L, 1);
    return 1;
  }
  lua_pushliteral(L, "\n");
  lua_insert(L, -2);
  lua_concat(L, 3);
  return 1;
}
