/* Errors as text: what was raised, and where, without the program's own frames. */
#ifndef PL_BIND_TRACEBACK_H
#define PL_BIND_TRACEBACK_H

#include <lua.h>

/* Says that the Lua files below `folder` are the program's own. */
void pl_traceback_own(lua_State *L, const char *folder);

/* A message handler: turns any error value into "message\nstack traceback:\n\t...". */
int pl_traceback_handler(lua_State *L);

/* The line that parts message and traceback in what the handler makes; NULL when `text` holds none. */
const char *pl_traceback_find(const char *text);

#endif
