/* One piece of code, from text to outcome, under one protected call. */
#include "host/bind/evaluate.h"
#include "host/bind/debugger.h"
#include "host/bind/display.h"
#include "host/bind/handle.h"
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

/* The traceback with its first line, the message, in red. */
static json_t *coloured_traceback(const pl_outcome *outcome) {
  static const char red[] = "\x1b[1;31m", plain[] = "\x1b[0m";
  const json_t *message = json_array_get(outcome->traceback, 0);
  json_t *lines = json_copy(outcome->traceback);
  pl_text coloured = {0};
  pl_text_append(&coloured, red, sizeof red - 1);
  pl_text_append(&coloured, json_string_value(message), json_string_length(message));
  pl_text_append(&coloured, plain, sizeof plain - 1);
  json_array_set_new(lines, 0, json_stringn_nocheck(coloured.data, coloured.length));
  pl_text_release(&coloured);
  return lines;
}

json_t *pl_outcome_error(const pl_outcome *outcome) {
  return json_pack("{s:O, s:O, s:o}", "ename", outcome->ename, "evalue", outcome->evalue, "traceback",
                   coloured_traceback(outcome));
}

static const char locals_key;

/* ---- variables that ended with their cell ---- */

/* Names of such variables, with that of their last cell: an object in a box of the state. */
static json_t *ended_locals(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &locals_key);
  json_t **box = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return *box;
}

typedef struct {
  json_t *names;
  const char *cell;
} declarations;

static void remember_local(void *context, const char *name, size_t length) {
  const declarations *d = context;
  pl_text text = {0};
  pl_text_append(&text, name, length);
  json_object_set_new(d->names, text.data, json_string(d->cell));
  pl_text_release(&text);
}

/* When Lua's message says that a global variable is nil which was local to an earlier cell, a line that says so. */
static void explain_nil(lua_State *L, pl_text *message) {
  static const char opening[] = "a nil value (global '";
  const char *found = strstr(message->data, opening);
  if (!found) return;
  found += strlen(opening);
  pl_text name = {0};
  pl_text_append(&name, found, strcspn(found, "'"));
  const char *cell = json_string_value(json_object_get(ended_locals(L), name.data));
  if (cell)
    pl_text_print(message,
                  "\n%s was a local variable of %s, which ended with it; assign to it without `local` to keep it",
                  name.data, strncmp(cell, "In [", 4) == 0 ? cell : "an earlier input");
  pl_text_release(&name);
}

/* ---- the parts that are written in Lua ---- */

/* By pl_evaluate_part; the places of the rows are the keys in the registry. */
static const struct {
  const char *module, *name;
} parts[] = {{"perilune.inspect", "bundle"},       {"perilune.code.complete", "at"}, {"perilune.code.help", "at"},
             {"perilune.code.source", "remember"}, {"perilune.magic", "rewrite"},    {"perilune.debugger", "open"}};

static const char require_key;

/* Loads a part, unless it is loaded. */
static void load_part(lua_State *L, pl_evaluate_part part) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &parts[part]) == LUA_TNIL) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &require_key);
    lua_pushstring(L, parts[part].module);
    lua_call(L, 1, 1);
    lua_getfield(L, -1, parts[part].name);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &parts[part]);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* What is here at the start shows that the program finds its files. The rest waits for the first code, so that a kernel
 * answers soon; not longer, because cells may give other values to the global names that lead to it. */
void pl_evaluate_open(lua_State *L) {
  lua_getglobal(L, "require");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &require_key);
  load_part(L, PL_PART_BUNDLE);
  *pl_json_box(L) = json_object();
  lua_rawsetp(L, LUA_REGISTRYINDEX, &locals_key);
}

void pl_evaluate_load_parts(lua_State *L) {
  const pl_frontend *frontend = pl_display_frontend(L);
  for (int i = 0; i < PL_PART_DEBUGGER; i++) load_part(L, (pl_evaluate_part)i);
  if (frontend && frontend->debug_event) pl_debugger_open(L);
}

void pl_evaluate_push(lua_State *L, pl_evaluate_part part) {
  load_part(L, part);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &parts[part]);
}

/* ---- the code ---- */

/* Compiles a cell after lua/perilune/magic has made Lua of its lines that are none. Pushes the function or the error
 * message and returns Lua's status. */
static int load_cell(lua_State *L, const char *code, size_t length, const char *name, pl_source *source) {
  pl_evaluate_push(L, PL_PART_REWRITE);
  lua_pushlstring(L, code, length);
  lua_pushstring(L, name);
  lua_call(L, 2, 2);
  const char *text = lua_tolstring(L, -2, &length);
  *source = (pl_source){0};
  if (!text) {
    lua_remove(L, -2);
    return LUA_ERRSYNTAX;
  }
  int status = pl_source_load(L, text, length, name, source);
  lua_insert(L, -3);
  lua_pop(L, 2);
  return status;
}

int pl_evaluate_load(lua_State *L, const char *code, size_t length, const char *name) {
  pl_source source;
  return load_cell(L, code, length, name, &source);
}

/* ---- the result ---- */

/* Turns all values on the stack into a bundle: lua/perilune/inspect.lua makes a table of them, or nil when there is
 * nothing to show. */
static void show(lua_State *L, job *j) {
  pl_evaluate_push(L, PL_PART_BUNDLE);
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  if (lua_isnil(L, -1)) return;
  char problem[200];
  j->outcome->data = pl_display_bundle(L, -1, problem);
  if (!j->outcome->data) luaL_error(L, "__mime: %s", problem);
  j->outcome->metadata = json_object();
}

/* Keeps the text of a cell whose functions somebody may ask for later. */
static void remember(lua_State *L, const job *j) {
  pl_evaluate_push(L, PL_PART_REMEMBER);
  lua_pushstring(L, j->name);
  lua_pushlstring(L, j->code, j->length);
  lua_call(L, 2, 0);
}

static int run(lua_State *L) {
  job *j = lua_touserdata(L, 1);
  pl_source source = {0};
  lua_settop(L, 0);
  pl_evaluate_load_parts(L);
  if (j->kind == PL_CELL) pl_debugger_cell(L, j->name, j->code, j->length);
  int status = j->kind == PL_CELL ? load_cell(L, j->code, j->length, j->name, &source)
                                  : pl_source_load_expression(L, j->code, j->length, j->name);
  if (status != LUA_OK) return lua_error(L);
  if (source.functions) remember(L, j);
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
  pl_text message = {0};
  pl_text_append(&message, text, trace ? (size_t)(trace - text) : length);
  explain_nil(L, &message);
  pl_outcome_release(outcome);
  outcome->ename = json_string(interrupted ? "Interrupted" : names[reached]);
  outcome->evalue = pl_json_string(message.data, message.length);
  /* Only while the user's own code ran do frames tell anything. */
  outcome->traceback = traceback_lines(message.data, message.length, reached == RUNNING ? trace : NULL);
  pl_text_release(&message);
}

/* Calls the function on top of the stack with `context`; *reached says how far it came. */
static void call(lua_State *L, void *context, const stage *reached, pl_outcome *outcome) {
  int top = lua_gettop(L) - 1;
  bool interrupted;
  lua_pushlightuserdata(L, context);
  outcome->ok = pl_interrupt_call(L, 1, 0, &interrupted) == LUA_OK;
  pl_debugger_ended();
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
  if (kind == PL_CELL && j.stage != COMPILING)
    pl_source_locals(code, length, remember_local, &(declarations){ended_locals(L), name});
}

/* ---- completeness ---- */

typedef struct {
  const char *code;
  size_t length;
  pl_completeness answer;
} question;

static int judge(lua_State *L) {
  question *q = lua_touserdata(L, 1);
  pl_source source;
  int status = load_cell(L, q->code, q->length, "code", &source);
  q->answer = status == LUA_OK ? PL_CODE_COMPLETE : source.incomplete ? PL_CODE_INCOMPLETE : PL_CODE_INVALID;
  return 0;
}

pl_completeness pl_evaluate_is_complete(lua_State *L, const char *code, size_t length) {
  question q = {.code = code, .length = length, .answer = PL_CODE_INVALID};
  int top = lua_gettop(L);
  lua_pushcfunction(L, judge);
  lua_pushlightuserdata(L, &q);
  pl_interrupt_call_unwatched(L, 1, 0); /* only memory can run out: then the code is not worth waiting for */
  lua_settop(L, top);
  return q.answer;
}

/* ---- code that may fail without its caller ---- */

/* attempt(f, ...) -> true and f's results, or false: the error was shown as that of a cell is. An interrupt goes on to
 * the caller; so does every error in a script. */
static int attempt(lua_State *L) {
  const pl_frontend *frontend = pl_display_frontend(L);
  luaL_checkany(L, 1);
  bool shows = frontend && frontend->display;
  lua_pushboolean(L, true);
  lua_insert(L, 1);
  lua_pushcfunction(L, pl_interrupt_handler);
  lua_insert(L, 1);
  int arguments = lua_gettop(L) - 3;
  if (!shows) {
    lua_call(L, arguments, LUA_MULTRET);
    return lua_gettop(L) - 1;
  }
  if (lua_pcall(L, arguments, LUA_MULTRET, 1) == LUA_OK) return lua_gettop(L) - 1;
  if (pl_interrupt_pending()) return lua_error(L);
  pl_outcome outcome = {0};
  fail(L, RUNNING, false, &outcome);
  json_t *content = pl_outcome_error(&outcome);
  frontend->display(frontend->context, "error", content);
  json_decref(content);
  pl_outcome_release(&outcome);
  lua_pushboolean(L, false);
  return 1;
}

void pl_register_evaluate(lua_State *L) {
  lua_pushcfunction(L, attempt);
  lua_setfield(L, -2, "attempt");
}
