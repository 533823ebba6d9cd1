/* Interrupt hook, signal handlers, and coroutine functions that know which coroutine runs. */
#include "host/bind/interrupt.h"
#include "host/base/status.h"
#include "host/bind/traceback.h"

#include <lauxlib.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static pthread_t owner;
static bool owned, ends_on_second;
static _Atomic(lua_State *) running; /* NULL while no protected call is open */
static lua_State *abandoned;         /* the coroutine that the hook has just left */

#define EVERYTHING (LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT)

/* In a coroutine that can yield, the hook leaves it at once: an error would be caught by each of its pcalls in turn,
 * and with deep recursion that takes minutes. The coroutine is then closed by `resume`. Lua allows such a yield only
 * from count and line events; one of them follows every call. */
static void stop(lua_State *L, lua_Debug *where) {
  if (!lua_isyieldable(L)) {
    lua_pushliteral(L, "interrupted");
    lua_error(L);
  }
  if (where->event != LUA_HOOKCOUNT && where->event != LUA_HOOKLINE) return;
  abandoned = L;
  lua_yield(L, 0);
}

static void unhook(lua_State *L) {
  if (lua_gethook(L) == stop) lua_sethook(L, NULL, 0, 0);
}

/* Only calls that are allowed in a signal handler; lua_sethook is one of them. */
static void on_signal(int number) {
  if (!pthread_equal(pthread_self(), owner)) {
    pthread_kill(owner, number);
    return;
  }
  lua_State *L = atomic_load(&running);
  if (!L) return;
  if (number == SIGINT && ends_on_second && pl_interrupt_pending()) {
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
    return;
  }
  pl_interrupt_set(1);
  lua_sethook(L, stop, EVERYTHING, 1);
}

void pl_interrupt_install(bool script) {
  owner = pthread_self();
  owned = true;
  ends_on_second = script;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal; /* no SA_RESTART: a blocking read ends, too */
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGINT);
  sigaddset(&action.sa_mask, SIGUSR1);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGUSR1, &action, NULL);
}

void pl_interrupt_request(void) {
  if (owned) pthread_kill(owner, SIGUSR1);
}

/* From now on signals reach L. A hook that a coroutine kept from an earlier interrupt, or inherited from the one that
 * made it, must not stop it now. */
static void enter(lua_State *L) {
  atomic_store(&running, L);
  if (pl_interrupt_pending())
    lua_sethook(L, stop, EVERYTHING, 1);
  else
    unhook(L);
}

int pl_interrupt_call(lua_State *L, int arguments, int results, bool *interrupted) {
  int function = lua_gettop(L) - arguments;
  lua_pushcfunction(L, pl_traceback_handler);
  lua_insert(L, function);
  lua_State *outer = atomic_load(&running);
  if (!outer) pl_interrupt_set(0);
  enter(L);
  int status = lua_pcall(L, arguments, results, function);
  if (interrupted) *interrupted = pl_interrupt_pending() != 0;
  atomic_store(&running, outer);
  if (!outer) {
    unhook(L);
    pl_interrupt_set(0);
  }
  lua_remove(L, function);
  return status;
}

/* ---- coroutines ---- */

static lua_State *check_coroutine(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co, 1, "coroutine");
  return co;
}

static int reset(lua_State *L, lua_State *co) {
  lua_State *outer = atomic_load(&running);
  if (outer) enter(co);
  int status = lua_resetthread(co);
  if (outer) enter(L);
  return status;
}

/* Moves `arguments` values to co and runs it; its results, or its error, come back onto L. Returns their count or -1.
 */
static int resume(lua_State *L, lua_State *co, int arguments) {
  if (!lua_checkstack(co, arguments)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, arguments);
  lua_State *outer = atomic_load(&running);
  if (outer) enter(co);
  int results;
  int status = lua_resume(co, L, arguments, &results);
  if (outer) enter(L);
  if (status == LUA_YIELD && abandoned == co) {
    abandoned = NULL;
    reset(L, co);
    lua_settop(co, 0);
    lua_pushliteral(L, "interrupted");
    return -1;
  }
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, results + 1)) {
    lua_pop(co, results);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, results);
  return results;
}

static int coroutine_resume(lua_State *L) {
  lua_State *co = check_coroutine(L);
  int results = resume(L, co, lua_gettop(L) - 1);
  lua_pushboolean(L, results >= 0);
  lua_insert(L, results < 0 ? -2 : -(results + 1));
  return results < 0 ? 2 : results + 1;
}

static int call_wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  int results = resume(L, co, lua_gettop(L));
  if (results >= 0) return results;
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) { /* it died of an error: run its pending closes, which may change it */
    status = reset(L, co);
    lua_xmove(co, L, 1);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int coroutine_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  unhook(co);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, call_wrapped, 1);
  return 1;
}

static int coroutine_close(lua_State *L) {
  lua_State *co = check_coroutine(L);
  lua_Debug frame;
  bool suspended = lua_status(co) == LUA_YIELD ||
                   (lua_status(co) == LUA_OK && co != L && !lua_getstack(co, 0, &frame)); /* not started, or ended */
  if (!suspended && lua_status(co) == LUA_OK)
    return luaL_error(L, "cannot close a %s coroutine", co == L ? "running" : "normal");
  if (reset(L, co) == LUA_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushboolean(L, 0);
  lua_xmove(co, L, 1);
  return 2;
}

/* ---- xpcall ---- */

/* upvalue: the user's message handler. Lua calls it with hooks off when the interrupt itself raised the error, and a
 * handler that loops could then never be stopped: it is passed over. */
static int call_handler(lua_State *L) {
  lua_settop(L, 1);
  if (pl_interrupt_pending()) return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

static int finish_xpcall(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

/* upvalue: Lua's own xpcall */
static int tracked_xpcall(lua_State *L) {
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, call_handler, 1);
  lua_replace(L, 2);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, finish_xpcall);
  return lua_gettop(L);
}

static const luaL_Reg tracked[] = {
    {"resume", coroutine_resume}, {"wrap", coroutine_wrap}, {"close", coroutine_close}, {NULL, NULL}};

void pl_interrupt_track(lua_State *L) {
  lua_getglobal(L, "coroutine");
  luaL_setfuncs(L, tracked, 0);
  lua_pop(L, 1);
  lua_getglobal(L, "xpcall");
  lua_pushcclosure(L, tracked_xpcall, 1);
  lua_setglobal(L, "xpcall");
}
