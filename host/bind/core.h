/* The C half of the Lua module: `require "perilune.core"`. */
#ifndef PL_BIND_CORE_H
#define PL_BIND_CORE_H

#include <lua.h>

/* Pushes the table of everything that C offers to Lua. Devices must be registered first. */
int pl_open_core(lua_State *L);

#endif
