/* Message handler of every protected call. */
#include "host/bind/traceback.h"

#include <lauxlib.h>
#include <stdbool.h>
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

static const char own_key[] = "perilune.own"; /* in the registry: how the names of the program's chunks begin */

void pl_traceback_own(lua_State *L, const char *folder) {
  lua_pushfstring(L, "@%s/", folder);
  lua_setfield(L, LUA_REGISTRYINDEX, own_key);
}

static bool is_own(lua_State *L, const char *source) {
  lua_getfield(L, LUA_REGISTRYINDEX, own_key);
  const char *own = lua_tostring(L, -1);
  bool is = own && strncmp(source, own, strlen(own)) == 0;
  lua_pop(L, 1);
  return is;
}

/* The frame with which the traceback of a message begins: the innermost one, but where the program's own code tells of
 * a mistake at the line that called it, that line. */
static int first_level(lua_State *L, const char *message) {
  lua_Debug frame;
  bool in_own = false;
  for (int level = 1; lua_getstack(L, level, &frame); level++) {
    lua_getinfo(L, "Sl", &frame);
    if (frame.currentline < 0) continue; /* a C function */
    if (!is_own(L, frame.source)) {
      const char *place = lua_pushfstring(L, "%s:%d:", frame.short_src, frame.currentline);
      bool is_named = strncmp(message, place, strlen(place)) == 0;
      lua_pop(L, 1);
      return in_own && is_named ? level : 1;
    }
    in_own = true;
  }
  return 1;
}

int pl_traceback_handler(lua_State *L) {
  const char *message = describe(L);
  luaL_traceback(L, L, NULL, first_level(L, message));
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
