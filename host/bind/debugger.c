/* Line hook, the stand-still, and the functions that lua/perilune/debugger is given. */
#include "host/bind/debugger.h"
#include "host/bind/display.h"
#include "host/bind/evaluate.h"
#include "host/bind/interrupt.h"
#include "host/bind/json.h"
#include "host/bind/traceback.h"

#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Lines of all sources share these marks, so that nearly every line without a breakpoint costs one look. */
enum { MARKS = 4096 };

static struct {
  lua_State *own; /* the coroutine that the debugger's code runs in; NULL: not opened */
  const pl_frontend *frontend;
  bool started, stopped, interrupts, raised, uncaught;
  bool marked; /* any line is */
  unsigned char marks[MARKS];
  json_int_t said; /* messages so far: seq of the last one */

  /* ---- of a step: it ends at the first line where at most `states` states run, the last one with at most `frames`
   * frames ---- */
  enum { NO_STEP, STEP_IN, STEP_OVER, STEP_OUT, PAUSE } step;
  int states, frames;

  const pl_running *where; /* what runs, top first, while Lua code decides or stands still; NULL otherwise */
} debugger;

static const char own_key, functions_key;

/* ---- calls to lua/perilune/debugger ---- */

/* Pushes a function of it onto the stack of its own coroutine. */
static void push_function(const char *name) {
  lua_State *D = debugger.own;
  lua_rawgetp(D, LUA_REGISTRYINDEX, &functions_key);
  lua_getfield(D, -1, name);
  lua_remove(D, -2);
}

/* Calls it with the arguments above it. A failure is the debugger's own, or an interrupt: it counts as nil. */
static void call_function(int arguments, int results) {
  lua_State *D = debugger.own;
  int top = lua_gettop(D) - arguments - 1;
  if (pl_interrupt_call_unwatched(D, arguments, results) == LUA_OK) return;
  lua_settop(D, top);
  for (int i = 0; i < results; i++) lua_pushnil(D);
}

static void want_lines(void) { pl_interrupt_want_lines(debugger.marked || debugger.step); }

/* What runs stands still, with its whole stack, until a request or an interrupt sets it going. */
static void stand_still(void) {
  debugger.stopped = true;
  debugger.step = NO_STEP;
  while (debugger.stopped && !pl_interrupt_pending()) debugger.frontend->attend(debugger.frontend->context, true);
  debugger.stopped = false;
  bool interrupted = pl_interrupt_pending();
  pl_interrupt_set(0); /* which must not end this call, but what stood still */
  push_function("resumed");
  call_function(0, 0);
  if (interrupted) pl_interrupt_set(1);
  want_lines();
}

/* ---- where it stops ---- */

static int count_states(void) {
  int count = 0;
  for (const pl_running *r = debugger.where; r; r = r->below) count++;
  return count;
}

static int count_frames(lua_State *L) {
  lua_Debug frame;
  int low = 0, high = 1; /* level `low` exists or is 0 */
  while (lua_getstack(L, high, &frame)) low = high, high *= 2;
  while (high - low > 1) {
    int middle = low + (high - low) / 2;
    if (lua_getstack(L, middle, &frame))
      low = middle;
    else
      high = middle;
  }
  return high;
}

static bool step_ends(lua_State *L) {
  lua_Debug frame;
  if (!debugger.step) return false;
  int states = count_states();
  return states < debugger.states || (states == debugger.states && !lua_getstack(L, debugger.frames, &frame));
}

/* The hook: Lua code says whether to stop. */
static void on_line(lua_State *L, lua_Debug *at) {
  debugger.where = pl_interrupt_running();
  bool marked = debugger.marks[(unsigned)at->currentline % MARKS] != 0, step = step_ends(L);
  if (marked || step) {
    lua_State *D = debugger.own;
    lua_getinfo(L, "S", at);
    push_function("line");
    lua_pushlstring(D, at->source, at->srclen);
    lua_pushinteger(D, at->currentline);
    lua_pushboolean(D, step);
    call_function(3, 1);
    bool stop = lua_toboolean(D, -1);
    lua_pop(D, 1);
    if (stop) stand_still();
  }
  debugger.where = NULL;
}

static void on_error(lua_State *L, bool caught) {
  if (!debugger.raised && (caught || !debugger.uncaught)) return;
  lua_State *D = debugger.own;
  if (!lua_checkstack(L, 1)) return;
  debugger.where = pl_interrupt_running();
  push_function("failed");
  lua_pushvalue(L, -1);
  lua_xmove(L, D, 1);
  lua_pushboolean(D, caught);
  call_function(2, 1);
  bool stop = lua_toboolean(D, -1);
  lua_pop(D, 1);
  if (stop) stand_still();
  debugger.where = NULL;
}

static void attend(void) { debugger.frontend->attend(debugger.frontend->context, false); }

/* ---- what lua/perilune/debugger is given ---- */

/* start(on): whether a front end debugs */
static int start(lua_State *L) {
  debugger.started = lua_toboolean(L, 1);
  return 0;
}

/* mark(lines): the lines of all breakpoints */
static int mark(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  memset(debugger.marks, 0, sizeof debugger.marks);
  lua_Integer count = luaL_len(L, 1);
  for (lua_Integer i = 1; i <= count; i++, lua_pop(L, 1)) {
    lua_rawgeti(L, 1, i);
    debugger.marks[(lua_Unsigned)luaL_checkinteger(L, -1) % MARKS] = 1;
  }
  debugger.marked = count > 0;
  want_lines();
  return 0;
}

/* catch(raised, uncaught): the errors to be told of */
static int catch (lua_State *L) {
  debugger.raised = lua_toboolean(L, 1);
  debugger.uncaught = lua_toboolean(L, 2);
  pl_interrupt_want_errors(debugger.raised || debugger.uncaught);
  return 0;
}

/* go(how): ends the stand-still: "on", or with a step "in", "over" or "out". "pause" stops what runs at its next line,
 * and what runs next where nothing does. */
static int go(lua_State *L) {
  static const char *const ways[] = {[NO_STEP] = "on", "in", "over", "out", "pause", NULL};
  int way = debugger.step = luaL_checkoption(L, 1, NULL, ways);
  bool bounded = way == STEP_OVER || way == STEP_OUT;
  debugger.states = bounded ? count_states() : INT_MAX;
  debugger.frames = bounded ? count_frames(debugger.where->L) - (way == STEP_OUT) : 0;
  debugger.stopped = false;
  want_lines();
  return 0;
}

/* states() -> the coroutines that run, top first; empty when nothing stands still */
static int states(lua_State *L) {
  lua_newtable(L);
  lua_State *last = NULL;
  for (const pl_running *r = debugger.where; r; last = r->L, r = r->below) {
    if (r->L == last || !lua_checkstack(r->L, 1)) continue; /* a call within a call is of one stack */
    lua_pushthread(r->L);
    lua_xmove(r->L, L, 1);
    lua_rawseti(L, -2, luaL_len(L, -2) + 1);
  }
  return 1;
}

/* tell(event, body) */
static int tell(lua_State *L) {
  char problem[200];
  json_t **body = pl_json_box(L), **event = pl_json_box(L);
  *body = pl_lua_to_json(L, 2, problem);
  if (!*body) return luaL_error(L, "debug event: %s", problem);
  *event = json_pack("{s:I, s:s, s:s, s:O}", "seq", ++debugger.said, "type", "event", "event", luaL_checkstring(L, 1),
                     "body", *body);
  debugger.frontend->debug_event(debugger.frontend->context, *event);
  return 0;
}

/* interrupt(): as the front end's own, once the request is answered */
static int interrupt(lua_State *L) {
  (void)L;
  debugger.interrupts = true;
  return 0;
}

/* load_cell(code, name) -> function | nil, message */
static int load_cell(lua_State *L) {
  size_t length;
  const char *code = luaL_checklstring(L, 1, &length), *name = luaL_checkstring(L, 2);
  if (pl_evaluate_load(L, code, length, name) == LUA_OK) return 1;
  lua_pushnil(L);
  lua_insert(L, -2);
  return 2;
}

/* bundle(value) -> what a cell that returns it would show, as a table; nil when that is nothing */
static int bundle(lua_State *L) {
  char problem[200];
  lua_settop(L, 1);
  pl_evaluate_push(L, PL_PART_BUNDLE);
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  if (lua_isnil(L, -1)) return 1;
  json_t **data = pl_json_box(L);
  *data = pl_display_bundle(L, 1, problem);
  if (!*data) return luaL_error(L, "%s", problem);
  pl_json_to_lua(L, *data);
  return 1;
}

/* absolute(path) -> the one path that a file has; nil when there is none */
static int absolute(lua_State *L) {
  char *found = realpath(luaL_checkstring(L, 1), NULL);
  lua_pushstring(L, found);
  free(found);
  return 1;
}

/* make_folder(path) -> true | nil, message; nobody else can read it */
static int make_folder(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  if (mkdir(path, S_IRWXU) == 0) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  lua_pushfstring(L, "cannot create '%s': %s", path, strerror(errno));
  return 2;
}

void pl_debugger_open(lua_State *L) {
  if (debugger.own) return;
  static const luaL_Reg given[] = {{"start", start},
                                   {"mark", mark},
                                   {"catch", catch},
                                   {"go", go},
                                   {"states", states},
                                   {"tell", tell},
                                   {"interrupt", interrupt},
                                   {"load_cell", load_cell},
                                   {"bundle", bundle},
                                   {"absolute", absolute},
                                   {"make_folder", make_folder},
                                   {NULL, NULL}};
  pl_evaluate_push(L, PL_PART_DEBUGGER);
  luaL_newlib(L, given);
  lua_call(L, 1, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &functions_key);
  debugger.frontend = pl_display_frontend(L);
  debugger.own = lua_newthread(L);
  lua_sethook(debugger.own, NULL, 0, 0);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &own_key);
  pl_interrupt_watch(&(pl_watch){.line = on_line, .error = on_error, .attend = attend});
}

void pl_debugger_close(void) {
  if (!debugger.own) return;
  push_function("close");
  call_function(0, 0);
  pl_interrupt_want_lines(false);
  pl_interrupt_want_errors(false);
  memset(&debugger, 0, sizeof debugger);
}

void pl_debugger_cell(lua_State *L, const char *name, const char *code, size_t length) {
  if (!debugger.started) return;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key);
  lua_getfield(L, -1, "cell");
  lua_pushstring(L, name);
  lua_pushlstring(L, code, length);
  lua_call(L, 2, 0);
  lua_pop(L, 1);
}

void pl_debugger_ended(void) {
  if (debugger.step == PAUSE || pl_interrupt_running()) return;
  debugger.step = NO_STEP;
  want_lines();
}

/* ---- requests ---- */

typedef struct {
  const char *command;
  const json_t *arguments;
  json_t *body;
} exchange;

/* answer(command, arguments) of the Lua half returns the response's body; what it raises is why there is none. */
static int run_request(lua_State *D) {
  exchange *e = lua_touserdata(D, 1);
  char problem[200];
  push_function("answer");
  lua_pushstring(D, e->command);
  if (json_is_object(e->arguments))
    pl_json_to_lua(D, e->arguments);
  else
    lua_newtable(D);
  lua_call(D, 2, 1);
  e->body = pl_lua_to_json(D, -1, problem);
  if (!e->body) return luaL_error(D, "%s", problem);
  return 0;
}

/* The debugger's code is loaded with the first request or the first cell, whatever comes first. */
static int load(lua_State *L) {
  pl_evaluate_load_parts(L);
  return 0;
}

static json_t *respond(const json_t *request, const char *command) {
  const json_t *seq = json_object_get(request, "seq");
  return json_pack("{s:I, s:s, s:I, s:s}", "seq", ++debugger.said, "type", "response", "request_seq",
                   json_integer_value(seq), "command", command);
}

static json_t *refuse(json_t *response, const char *message, size_t length) {
  json_object_set_new(response, "success", json_false());
  json_object_set_new(response, "message", pl_json_string(message, length));
  json_object_set_new(response, "body", json_object());
  return response;
}

json_t *pl_debugger_answer(lua_State *L, const json_t *request) {
  static const char no_command[] = "debug_request: content has no string `command`", no_memory[] = "no memory";
  exchange e = {.command = json_string_value(json_object_get(request, "command")),
                .arguments = json_object_get(request, "arguments")};
  json_t *response = respond(request, e.command ? e.command : "");
  if (!e.command) return refuse(response, no_command, sizeof no_command - 1);
  if (!debugger.own) {
    pl_outcome loaded;
    pl_evaluate_call(L, load, NULL, &loaded);
    pl_outcome_release(&loaded);
    if (!debugger.own) return refuse(response, no_memory, sizeof no_memory - 1);
  }
  lua_State *D = debugger.own;
  lua_pushcfunction(D, run_request);
  lua_pushlightuserdata(D, &e);
  int status = pl_interrupt_call_unwatched(D, 1, 0);
  if (debugger.interrupts) pl_interrupt_request();
  debugger.interrupts = false;
  if (status == LUA_OK) {
    json_object_set_new(response, "success", json_true());
    json_object_set_new(response, "body", e.body);
    return response;
  }
  json_decref(e.body); /* an interrupt may come when it is made already */
  const char *message = lua_tostring(D, -1), *trace = pl_traceback_find(message);
  refuse(response, message, trace ? (size_t)(trace - message) : strlen(message));
  lua_pop(D, 1);
  return response;
}
