/* A fresh Lua state with the standard libraries and the way to the program's own modules. */
#ifndef PL_BIND_STATE_H
#define PL_BIND_STATE_H

#include "host/base/status.h"
#include <lua.h>

/* Standard libraries, package.path with HOME/lua first, perilune.core ready to be required, coroutines that can be
 * interrupted. Opens nothing else: the time from here to the first line of a script counts. */
pl_status pl_state_new(lua_State **state);

#endif
