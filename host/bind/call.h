/* Operations of the tables as Lua functions: arguments are read by the signature, results become handles. */
#ifndef PL_BIND_CALL_H
#define PL_BIND_CALL_H

#include <lua.h>

/* Sets every elementwise operation and every row of pl_operations in the table on top of the stack, and as methods. */
void pl_register_calls(lua_State *L);

#endif
