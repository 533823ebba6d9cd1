/* What plans of fused recurrences come to, as Lua sees it. */
#ifndef PL_BIND_FUSED_H
#define PL_BIND_FUSED_H

#include <lua.h>

/* Sets fused_chip and fused_details in the table on top of the stack. */
void pl_register_fused(lua_State *L);

#endif
