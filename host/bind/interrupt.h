/* Stopping Lua code from outside. Nothing is installed while code runs undisturbed; an interrupt sets, on the thread
 * that owns the state, a hook that raises "interrupted" at every instruction until the outermost call has ended, so
 * that no pcall in user code can swallow it. Out of its reach are C functions until they return (long ones of this
 * program look at pl_check_interrupt), finalizers, and a message handler of xpcall that never ends: Lua runs those
 * without hooks. */
#ifndef PL_BIND_INTERRUPT_H
#define PL_BIND_INTERRUPT_H

#include <lua.h>
#include <stdbool.h>

/* Takes over SIGINT and SIGUSR1 for the calling thread, which owns the state. In a script a second SIGINT that comes
 * before the first one took effect ends the process. */
void pl_interrupt_install(bool script);

/* Replaces resume, wrap and close of the table `coroutine` by versions that keep track of what runs, and xpcall by one
 * whose message handler an interrupt does not enter. */
void pl_interrupt_track(lua_State *L);

/* lua_pcall with a traceback as message handler, as the outermost call: from here on an interrupt is heard, and none
 * leaks out. On failure a string "message\nstack traceback:\n..." is on the stack; *interrupted (may be NULL) says
 * whether the user asked for it. */
int pl_interrupt_call(lua_State *L, int arguments, int results, bool *interrupted);

/* Asks the owning thread to stop what it runs; from any thread. */
void pl_interrupt_request(void);

#endif
