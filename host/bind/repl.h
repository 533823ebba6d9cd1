/* The interactive prompt. */
#ifndef PL_BIND_REPL_H
#define PL_BIND_REPL_H

#include "host/base/status.h"
#include <lua.h>

/* Reads, evaluates and prints until the end of input. In a terminal with line editing, history and completion; from a
 * pipe line by line, as lua5.4 -i does. May raise when memory ends. */
pl_status pl_repl_run(lua_State *L);

#endif
