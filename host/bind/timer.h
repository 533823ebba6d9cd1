/* Timers on a device's own clock. */
#ifndef PL_BIND_TIMER_H
#define PL_BIND_TIMER_H

#include <lua.h>

/* Sets timer in the table on top of the stack. */
void pl_register_timer(lua_State *L);

#endif
