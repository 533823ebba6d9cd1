/* The last expression of a cell, as Lua asks for it. */
#include "host/bind/expression.h"
#include "host/bind/source.h"

#include <lauxlib.h>

/* last_expression(code) -> the place of its first byte, false when the cell ends in another statement; whether a ';'
 * hides the result. nil and the message when the code is no cell: its syntax is wrong. */
static int last_expression(lua_State *L) {
  size_t length;
  const char *code = luaL_checklstring(L, 1, &length);
  pl_source source;
  if (pl_source_load(L, code, length, "cell", &source) != LUA_OK) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (source.result == PL_NO_RESULT)
    lua_pushboolean(L, 0);
  else
    lua_pushinteger(L, (lua_Integer)source.result + 1);
  lua_pushboolean(L, source.silent);
  return 2;
}

void pl_register_expression(lua_State *L) {
  lua_pushcfunction(L, last_expression);
  lua_setfield(L, -2, "last_expression");
}
