/* One piece of code, from text to outcome, under one protected call. */
#include "host/bind/evaluate.h"
#include "host/bind/handle.h"
#include "host/bind/display.h"
#include "host/bind/interrupt.h"
#include "host/bind/json.h"
#include "host/bind/source.h"
#include "host/bind/system.h"
#include "host/bind/traceback.h"

#include <lauxlib.h>
#include <string.h>

/* How far an evaluation came; decides how an error is told. */
typedef enum { COMPILING, RUNNING, SHOWING } stage;

typedef struct {
  pl_evaluation kind;
  const char *code, *name;
  size_t length;
  stage stage;
  pl_outcome *outcome;
} job;

void pl_outcome_release(pl_outcome *outcome) {
  json_decref(outcome->data);
  json_decref(outcome->metadata);
  json_decref(outcome->ename);
  json_decref(outcome->evalue);
  json_decref(outcome->traceback);
  *outcome = (pl_outcome){0};
}

/* ---- the result ---- */

static const char bundle_key;

/* Kept aside, because cells may give other values to the global names that lead to it. */
void pl_evaluate_open(lua_State *L) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "perilune.inspect");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "bundle");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &bundle_key);
  lua_pop(L, 1);
}

/* Turns all values on the stack into a bundle: lua/perilune/inspect.lua makes a table of them, or nil when there is
 * nothing to show. */
static void show(lua_State *L, job *j) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &bundle_key);
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  if (lua_isnil(L, -1)) return;
  char problem[200];
  j->outcome->data = pl_display_bundle(L, -1, problem);
  if (!j->outcome->data) luaL_error(L, "__mime: %s", problem);
  j->outcome->metadata = json_object();
}

static int run(lua_State *L) {
  job *j = lua_touserdata(L, 1);
  pl_source source = {0};
  lua_settop(L, 0);
  int status = j->kind == PL_CELL ? pl_source_load(L, j->code, j->length, j->name, &source)
                                  : pl_source_load_expression(L, j->code, j->length, j->name);
  if (status != LUA_OK) return lua_error(L);
  j->stage = RUNNING;
  lua_call(L, 0, LUA_MULTRET);
  pl_raise_unless_ok(L, pl_system_settle()); /* before it is laid at the next cell's door */
  j->stage = SHOWING;
  if (j->kind == PL_EXPRESSION && lua_gettop(L) == 0) lua_pushnil(L);
  if (lua_gettop(L) > 0 && !source.silent) show(L, j);
  return 0;
}

/* ---- the error ---- */

/* The message, then the lines of the traceback (which may be NULL). */
static json_t *traceback_lines(const char *message, size_t length, const char *trace) {
  json_t *lines = json_array();
  json_array_append_new(lines, pl_json_string(message, length));
  while (trace) {
    const char *start = trace + 1, *end = strchr(start, '\n');
    json_array_append_new(lines, pl_json_string(start, end ? (size_t)(end - start) : strlen(start)));
    trace = end;
  }
  return lines;
}

static void fail(lua_State *L, stage reached, bool interrupted, pl_outcome *outcome) {
  static const char *const names[] = {"SyntaxError", "Error", "Error"};
  size_t length;
  const char *text = lua_tolstring(L, -1, &length);
  if (!text) text = "error without a message", length = strlen(text);
  const char *trace = pl_traceback_find(text);
  if (trace) length = (size_t)(trace - text);
  pl_outcome_release(outcome);
  outcome->ename = json_string(interrupted ? "Interrupted" : names[reached]);
  outcome->evalue = pl_json_string(text, length);
  /* Only while the user's own code ran do frames tell anything. */
  outcome->traceback = traceback_lines(text, length, reached == RUNNING ? trace : NULL);
}

/* Calls the function on top of the stack with `context`; *reached says how far it came. */
static void call(lua_State *L, void *context, const stage *reached, pl_outcome *outcome) {
  int top = lua_gettop(L) - 1;
  bool interrupted;
  lua_pushlightuserdata(L, context);
  outcome->ok = pl_interrupt_call(L, 1, 0, &interrupted) == LUA_OK;
  if (!outcome->ok) fail(L, *reached, interrupted, outcome);
  lua_settop(L, top);
}

void pl_evaluate_call(lua_State *L, lua_CFunction function, void *context, pl_outcome *outcome) {
  static const stage running = RUNNING;
  *outcome = (pl_outcome){0};
  lua_pushcfunction(L, function);
  call(L, context, &running, outcome);
}

void pl_evaluate(lua_State *L, pl_evaluation kind, const char *code, size_t length, const char *name,
                 pl_outcome *outcome) {
  job j = {.kind = kind, .code = code, .length = length, .name = name, .outcome = outcome};
  *outcome = (pl_outcome){0};
  lua_pushcfunction(L, run);
  call(L, &j, &j.stage, outcome);
}

pl_completeness pl_evaluate_is_complete(lua_State *L, const char *code, size_t length) {
  pl_source source;
  int status = pl_source_load(L, code, length, "code", &source);
  lua_pop(L, 1);
  return status == LUA_OK ? PL_CODE_COMPLETE : source.incomplete ? PL_CODE_INCOMPLETE : PL_CODE_INVALID;
}
