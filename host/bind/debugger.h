/* The debugger's half in C: where lines and errors stop, how long what runs stands still, and calls to
 * lua/perilune/debugger, which speaks the Debug Adapter Protocol. One per process. Its own code runs in a coroutine of
 * its own, with its own hooks: there no breakpoint counts, and an interrupt ends it. */
#ifndef PL_BIND_DEBUGGER_H
#define PL_BIND_DEBUGGER_H

#include <jansson.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

/* Loads lua/perilune/debugger, unless it is loaded, for the front end of the state. May raise. */
void pl_debugger_open(lua_State *L);
/* Removes what it has written. */
void pl_debugger_close(void);

/* A new response to a request, whatever that is. */
json_t *pl_debugger_answer(lua_State *L, const json_t *request);

/* Tells it that a cell begins to run as the chunk `name`; may raise for want of memory. */
void pl_debugger_cell(lua_State *L, const char *name, const char *code, size_t length);
/* The code that ran has ended, and with it a step. */
void pl_debugger_ended(void);

#endif
