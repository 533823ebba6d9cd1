/* Compiled cells and the recurrence as Lua sees them. */
#ifndef PL_BIND_CELL_H
#define PL_BIND_CELL_H

#include <lua.h>

/* Sets cell and recurrence in the table on top of the stack. */
void pl_register_cell(lua_State *L);

#endif
