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
static atomic_bool awaited;
static _Atomic(const pl_running *) running; /* NULL while no protected call is open */
static lua_State *abandoned;                /* the coroutine that the hook has just left */
static pl_watch watch;                      /* the debugger's */
static bool unwatched;
static struct {
  lua_State *L;
  lua_Hook hook;
  int mask, count;
} displaced; /* the hook in whose place `attend` was put */

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

/* Lets the watch answer what it was asked, as soon as L executes anything. */
static void attend(lua_State *L, lua_Debug *where) {
  (void)L, (void)where;
  pl_interrupt_settle();
  watch.attend();
  pl_interrupt_settle();
}

/* Gives L the watch's hook where it wants one, and none otherwise. Hooks that code has set for itself stay, and come
 * back where `attend` was put in their place. */
static void settle(lua_State *L, bool wanted) {
  if (lua_gethook(L) == attend && displaced.L == L) lua_sethook(L, displaced.hook, displaced.mask, displaced.count);
  lua_Hook now = lua_gethook(L);
  if (now && now != stop && now != attend && now != watch.line) return;
  if (wanted && watch.lines && !unwatched)
    lua_sethook(L, watch.line, LUA_MASKLINE, 0);
  else if (now)
    lua_sethook(L, NULL, 0, 0);
}

/* Only calls that are allowed in a signal handler; lua_sethook is one of them. */
static void on_signal(int number) {
  if (!pthread_equal(pthread_self(), owner)) {
    pthread_kill(owner, number);
    return;
  }
  const pl_running *now = atomic_load(&running);
  if (!now) {
    if (atomic_load(&awaited)) pl_interrupt_set(1);
    return;
  }
  if (number == SIGINT && ends_on_second && pl_interrupt_pending()) {
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
    return;
  }
  pl_interrupt_set(1);
  lua_sethook(now->L, stop, EVERYTHING, 1);
}

/* A hook that code has set for itself waits until `attend` was called. */
static void on_attention(int number) {
  (void)number;
  const pl_running *now = atomic_load(&running);
  if (!now || !watch.attend || unwatched || pl_interrupt_pending() || lua_gethook(now->L) == attend) return;
  displaced.L = now->L;
  displaced.hook = lua_gethook(now->L);
  displaced.mask = lua_gethookmask(now->L);
  displaced.count = lua_gethookcount(now->L);
  lua_sethook(now->L, attend, EVERYTHING, 1);
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
  sigaddset(&action.sa_mask, SIGUSR2);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGUSR1, &action, NULL);
  action.sa_handler = on_attention;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR2, &action, NULL);
}

void pl_interrupt_request(void) {
  if (owned) pthread_kill(owner, SIGUSR1);
}

void pl_interrupt_await(bool on) {
  atomic_store(&awaited, on);
  if (!on) pl_interrupt_set(0);
}

/* From now on signals reach the state. A hook that a coroutine kept from an earlier time, or inherited from the one
 * that made it, must not stop it now. */
static void enter(const pl_running *now) {
  atomic_store(&running, now);
  settle(now->L, true);
  if (pl_interrupt_pending()) lua_sethook(now->L, stop, EVERYTHING, 1); /* last: a signal may come at any time */
}

/* ---- the watch ---- */

void pl_interrupt_watch(const pl_watch *new) { watch = *new; }

void pl_interrupt_attention(void) {
  if (owned && atomic_load(&running)) pthread_kill(owner, SIGUSR2);
}

const pl_running *pl_interrupt_running(void) { return atomic_load(&running); }

void pl_interrupt_settle(void) {
  const pl_running *now = atomic_load(&running);
  if (now) enter(now);
}

void pl_interrupt_want_lines(bool on) {
  watch.lines = on;
  pl_interrupt_settle();
}

void pl_interrupt_want_errors(bool on) { watch.errors = on; }

/* Tells the watch of an error, whose value is on top, while the stack still stands. */
static void tell(lua_State *L, bool caught) {
  if (watch.errors && !unwatched && !pl_interrupt_pending()) watch.error(L, caught);
}

static const char struck; /* its address is the registry's key of the message and traceback of this interrupt */

int pl_interrupt_handler(lua_State *L) {
  if (!pl_interrupt_pending()) return pl_traceback_handler(L);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &struck) == LUA_TSTRING) return 1;
  lua_pop(L, 1);
  pl_traceback_handler(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &struck);
  return 1;
}

static void forget_strike(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &struck) != LUA_TNIL) {
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &struck);
  }
  lua_pop(L, 1);
}

static int tell_uncaught(lua_State *L) {
  tell(L, false);
  return pl_interrupt_handler(L);
}

int pl_interrupt_call_unwatched(lua_State *L, int arguments, int results) {
  bool outer = unwatched;
  unwatched = true;
  int status = pl_interrupt_call(L, arguments, results, NULL);
  unwatched = outer;
  pl_interrupt_settle();
  return status;
}

/* ---- calls ---- */

int pl_interrupt_call(lua_State *L, int arguments, int results, bool *interrupted) {
  int function = lua_gettop(L) - arguments;
  lua_pushcfunction(L, tell_uncaught);
  lua_insert(L, function);
  const pl_running *outer = atomic_load(&running), now = {L, outer};
  if (!outer && !atomic_load(&awaited)) pl_interrupt_set(0);
  if (!outer) forget_strike(L);
  enter(&now);
  int status = lua_pcall(L, arguments, results, function);
  if (interrupted) *interrupted = pl_interrupt_pending() != 0;
  atomic_store(&running, outer);
  settle(L, false);
  if (outer)
    enter(outer);
  else
    pl_interrupt_await(false);
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
  (void)L;
  const pl_running *outer = atomic_load(&running), now = {co, outer};
  if (outer) enter(&now);
  int status = lua_resetthread(co);
  if (outer) enter(outer);
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
  const pl_running *outer = atomic_load(&running), now = {co, outer};
  if (outer) enter(&now);
  int results;
  int status = lua_resume(co, L, arguments, &results);
  if (outer && status != LUA_OK && status != LUA_YIELD) tell(co, true);
  if (outer) enter(outer);
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
  settle(co, false);
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

/* ---- pcall and xpcall ---- */

static int tell_caught(lua_State *L) {
  tell(L, true);
  return 1;
}

/* `below`: what lies below the results */
static int finish_pcall(lua_State *L, int status, lua_KContext below) {
  if (status == LUA_OK || status == LUA_YIELD) return lua_gettop(L) - (int)below;
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  return 2;
}

static int tracked_pcall(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, 1);
  lua_insert(L, 1);
  int handler = watch.errors;
  if (handler) {
    lua_pushcfunction(L, tell_caught);
    lua_insert(L, 1);
  }
  int status = lua_pcallk(L, lua_gettop(L) - handler - 2, LUA_MULTRET, handler, handler, finish_pcall);
  return finish_pcall(L, status, handler);
}

/* upvalue: the user's message handler. Lua calls it with hooks off when the interrupt itself raised the error, and a
 * handler that loops could then never be stopped: it is passed over. */
static int call_handler(lua_State *L) {
  lua_settop(L, 1);
  if (pl_interrupt_pending()) return 1;
  tell(L, true);
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
  lua_pushcfunction(L, tracked_pcall);
  lua_setglobal(L, "pcall");
}
