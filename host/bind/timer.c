/* pl.timer: how long a device works between two points of a script, by its own clock. On a GPU neither the script nor
 * the wait at the end is counted, other than as gaps in which the GPU has nothing to do. */
#include "host/bind/timer.h"

#include "host/bind/construct.h"
#include "host/bind/handle.h"

static const char TIMER[] = "perilune.timer";

typedef struct {
  pl_device *device;
  void *from, *to; /* marks of the device; NULL before their first use */
  bool marked;     /* `to` is set since start */
} timer;

static timer *check_timer(lua_State *L) { return luaL_checkudata(L, 1, TIMER); }

/* timer([device]) -> timer */
static int new_timer(lua_State *L) {
  pl_device *device = lua_isnoneornil(L, 1) ? pl_device_at(0) : pl_check_device(L, 1, "timer");
  timer *made = lua_newuserdatauv(L, sizeof *made, 0);
  *made = (timer){.device = device};
  luaL_setmetatable(L, TIMER);
  return 1;
}

/* timer:start() -> timer; does not wait */
static int start(lua_State *L) {
  timer *t = check_timer(L);
  pl_raise_unless_ok(L, t->device->mark(t->device, &t->from));
  t->marked = false;
  lua_settop(L, 1);
  return 1;
}

static timer *check_started(lua_State *L, const char *name) {
  timer *t = check_timer(L);
  if (!t->from) pl_error(L, "timer:%s: this timer was never started; call start first", name);
  return t;
}

/* timer:mark() -> timer; where stop measures to. Does not wait, so that the device need not stand still between two
 * measurements. */
static int mark(lua_State *L) {
  timer *t = check_started(L, "mark");
  pl_raise_unless_ok(L, t->device->mark(t->device, &t->to));
  t->marked = true;
  lua_settop(L, 1);
  return 1;
}

/* timer:stop() -> milliseconds from start to the last mark since then, or to now; waits for the device */
static int stop(lua_State *L) {
  timer *t = check_started(L, "stop");
  double ms;
  if (!t->marked) pl_raise_unless_ok(L, t->device->mark(t->device, &t->to));
  pl_raise_unless_ok(L, t->device->elapsed(t->device, t->from, t->to, &ms));
  lua_pushnumber(L, ms);
  return 1;
}

static int collect(lua_State *L) {
  timer *t = check_timer(L);
  t->device->unmark(t->device, t->from);
  t->device->unmark(t->device, t->to);
  t->from = t->to = NULL;
  return 0;
}

void pl_register_timer(lua_State *L) {
  static const luaL_Reg methods[] = {{"start", start}, {"mark", mark}, {"stop", stop}, {0}};
  luaL_newmetatable(L, TIMER);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, collect);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  lua_pushcfunction(L, new_timer);
  lua_setfield(L, -2, "timer");
}
