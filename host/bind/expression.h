/* Where a cell has its result, for what is written in Lua. */
#ifndef PL_BIND_EXPRESSION_H
#define PL_BIND_EXPRESSION_H

#include <lua.h>

/* Sets last_expression in the table on top of the stack. */
void pl_register_expression(lua_State *L);

#endif
