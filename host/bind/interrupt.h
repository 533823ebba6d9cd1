/* Stopping Lua code from outside. Nothing is installed while code runs undisturbed; an interrupt sets, on the thread
 * that owns the state, a hook that raises "interrupted" at every instruction until the outermost call has ended, so
 * that no pcall in user code can swallow it. Out of its reach are C functions until they return (long ones of this
 * program look at pl_check_interrupt), finalizers, and a message handler of xpcall that never ends: Lua runs those
 * without hooks. */
#ifndef PL_BIND_INTERRUPT_H
#define PL_BIND_INTERRUPT_H

#include <lua.h>
#include <stdbool.h>

/* Takes over SIGINT, SIGUSR1 and SIGUSR2 for the calling thread, which owns the state. In a script a second SIGINT that
 * comes before the first one took effect ends the process. */
void pl_interrupt_install(bool script);

/* Replaces resume, wrap and close of the table `coroutine` by versions that keep track of what runs, xpcall by one
 * whose message handler an interrupt does not enter, and it and pcall by ones that tell the watch of errors. */
void pl_interrupt_track(lua_State *L);

/* lua_pcall with a traceback as message handler, as the outermost call: from here on an interrupt is heard, and none
 * leaks out. On failure a string "message\nstack traceback:\n..." is on the stack; *interrupted (may be NULL) says
 * whether the user asked for it. */
int pl_interrupt_call(lua_State *L, int arguments, int results, bool *interrupted);

/* pl_traceback_handler, but for an interrupt always the traceback of the place where it first struck: it strikes what
 * is closed on the way out as well. */
int pl_interrupt_handler(lua_State *L);

/* Asks the owning thread to stop what it runs; from any thread. */
void pl_interrupt_request(void);
/* While it is awaited, an interrupt that comes between calls ends the next one, which is on its way: the user may
 * already have seen that it is. Otherwise it is too late, and nothing happens. */
void pl_interrupt_await(bool on);

/* ---- one that watches what runs: the debugger ---- */

/* A state that runs; below it those that wait for it to return. */
typedef struct pl_running {
  lua_State *L;
  const struct pl_running *below;
} pl_running;
/* NULL while nothing runs. */
const pl_running *pl_interrupt_running(void);

typedef struct {
  bool lines, errors; /* what it wants to be told of; changed by the functions below */
  lua_Hook line;      /* each new line, in states for which code has set no hook of its own */
  /* An error, its value on top of L, before the stack is left; `caught`: by a pcall, xpcall or coroutine.resume. */
  void (*error)(lua_State *L, bool caught);
  void (*attend)(void); /* called between two instructions after pl_interrupt_attention */
} pl_watch;

/* Names the watch. Nothing is hooked until it wants something. */
void pl_interrupt_watch(const pl_watch *watch);
void pl_interrupt_want_lines(bool on);
void pl_interrupt_want_errors(bool on);
/* From any thread. C functions that take long delay it; whoever waits for it should ask again. */
void pl_interrupt_attention(void);
/* pl_interrupt_call of code that is not watched: what the watch itself does meanwhile. */
int pl_interrupt_call_unwatched(lua_State *L, int arguments, int results);
/* Gives what runs the hook that is due after a change. */
void pl_interrupt_settle(void);

#endif
