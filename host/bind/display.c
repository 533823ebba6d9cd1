/* Display messages and questions to the user. */
#include "host/bind/display.h"
#include "host/base/base64.h"
#include "host/base/json.h"
#include "host/base/uuid.h"
#include "host/bind/json.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static const char frontend_key;

void pl_display_attach(lua_State *L, const pl_frontend *frontend) {
  lua_pushlightuserdata(L, (void *)frontend);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &frontend_key);
}

const pl_frontend *pl_display_frontend(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &frontend_key);
  const pl_frontend *frontend = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return frontend;
}

/* ---- base64 ---- */

static json_t *base64_string(const char *data, size_t length) {
  pl_text text = {0};
  pl_base64_append(&text, data, length);
  json_t *string = json_stringn_nocheck(text.data ? text.data : "", text.length);
  pl_text_release(&text);
  return string;
}

/* Whether the bytes are a file that JSON can hold only as base64. */
static bool is_binary(const char *data, size_t length) {
  static const char *const openings[] = {"\x89PNG", "\xFF\xD8\xFF", "GIF8", "%PDF", "RIFF"};
  for (size_t i = 0; i < sizeof openings / sizeof *openings; i++)
    if (length > 4 && memcmp(data, openings[i], strlen(openings[i])) == 0) return true;
  return false;
}

static bool starts_with(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

static json_t *bundle_value(lua_State *L, int index, const char *type, char problem[200]) {
  size_t length;
  bool binary =
      (starts_with(type, "image/") && !starts_with(type, "image/svg")) || starts_with(type, "application/pdf");
  if (lua_type(L, index) == LUA_TSTRING && binary) {
    const char *data = lua_tolstring(L, index, &length);
    if (is_binary(data, length)) return base64_string(data, length);
  }
  bool json = strstr(type, "json") != NULL;
  if (!json && lua_type(L, index) != LUA_TSTRING && lua_type(L, index) != LUA_TNUMBER) {
    snprintf(problem, 200, "%.60s needs a string, got a %s", type, luaL_typename(L, index));
    return NULL;
  }
  return pl_lua_to_json(L, index, problem);
}

json_t *pl_display_bundle(lua_State *L, int index, char problem[200]) {
  index = lua_absindex(L, index);
  if (lua_type(L, index) != LUA_TTABLE) {
    snprintf(problem, 200, "a table from MIME types to contents is expected, got %s", luaL_typename(L, index));
    return NULL;
  }
  json_t *bundle = json_object();
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    const char *type = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    json_t *value = NULL;
    if (!type)
      snprintf(problem, 200, "MIME types are strings, but one key is a %s", luaL_typename(L, -2));
    else
      value = bundle_value(L, lua_gettop(L), type, problem);
    if (!value || json_object_set_new(bundle, type, value) != 0) {
      if (value) snprintf(problem, 200, "a MIME type is no valid UTF-8");
      lua_pop(L, 2);
      json_decref(bundle);
      return NULL;
    }
  }
  return pl_json_sorted(bundle);
}

/* ---- what Lua calls ---- */

/* The field of the table at 2 as an object; an empty one when it is absent. */
static json_t *object_field(lua_State *L, const char *name, char problem[200]) {
  lua_pushstring(L, name);
  lua_rawget(L, 2);
  json_t *object = lua_isnil(L, -1) ? json_object() : pl_lua_to_json(L, -1, problem);
  lua_pop(L, 1);
  return object;
}

static json_t *display_content(lua_State *L, char problem[200]) {
  lua_pushliteral(L, "data");
  lua_rawget(L, 2);
  json_t *data = pl_display_bundle(L, -1, problem);
  lua_pop(L, 1);
  if (!data) return NULL;
  json_t *metadata = object_field(L, "metadata", problem);
  json_t *transient = metadata ? object_field(L, "transient", problem) : NULL;
  if (!transient) {
    json_decref(data);
    json_decref(metadata);
    return NULL;
  }
  return json_pack("{s:o, s:o, s:o}", "data", data, "metadata", metadata, "transient", transient);
}

/* publish(type, content) -> whether there is a front end that shows it */
static int publish(lua_State *L) {
  static const char *const types[] = {"display_data", "update_display_data", "clear_output", NULL};
  int type = luaL_checkoption(L, 1, NULL, types);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  const pl_frontend *frontend = pl_display_frontend(L);
  bool shown = frontend && frontend->display;
  if (shown) {
    char problem[200];
    json_t **box = pl_json_box(L);
    *box = type == 2 ? pl_lua_to_json(L, 2, problem) : display_content(L, problem);
    if (!*box) return luaL_argerror(L, 2, problem);
    frontend->display(frontend->context, types[type], *box);
    json_decref(*box);
    *box = NULL;
  }
  lua_pushboolean(L, shown);
  return 1;
}

/* payload(content) -> whether there is a front end that takes it */
static int payload(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  const pl_frontend *frontend = pl_display_frontend(L);
  bool taken = frontend && frontend->payload;
  if (taken) {
    char problem[200];
    json_t **box = pl_json_box(L);
    *box = pl_lua_to_json(L, 1, problem);
    if (!*box) return luaL_argerror(L, 1, problem);
    frontend->payload(frontend->context, *box);
    json_decref(*box);
    *box = NULL;
  }
  lua_pushboolean(L, taken);
  return 1;
}

/* message_id() -> the id of the message whose code runs; nil in a script, whose output belongs to none */
static int message_id(lua_State *L) {
  const pl_frontend *frontend = pl_display_frontend(L);
  lua_pushstring(L, frontend && frontend->message_id ? frontend->message_id(frontend->context) : NULL);
  return 1;
}

/* frontend() -> "kernel", "terminal" or "batch" */
static int frontend_kind(lua_State *L) {
  const pl_frontend *frontend = pl_display_frontend(L);
  lua_pushstring(L, frontend && frontend->display ? "kernel" : isatty(STDOUT_FILENO) ? "terminal" : "batch");
  return 1;
}

static pl_status ask_terminal(const char *prompt, bool password, pl_text *answer) {
  struct termios plain, hidden;
  bool hide = password && tcgetattr(STDIN_FILENO, &plain) == 0;
  fputs(prompt, stdout);
  fflush(stdout);
  if (hide) {
    hidden = plain;
    hidden.c_lflag &= (tcflag_t)~ECHO;
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
  }
  char *line = NULL;
  size_t room = 0;
  ssize_t length = getline(&line, &room, stdin);
  if (length < 0) clearerr(stdin); /* the end of input, or a signal: the next question may be answered again */
  if (hide) {
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &plain);
    fputc('\n', stdout);
  }
  if (length > 0 && line[length - 1] == '\n') length--;
  if (length >= 0) pl_text_append(answer, line, (size_t)length);
  free(line);
  PL_TRY(pl_check_interrupt());
  PL_REQUIRE(length >= 0, "standard input has ended");
  return PL_OK;
}

static int push_text(lua_State *L) {
  const pl_text *text = lua_touserdata(L, 1);
  lua_pushlstring(L, text->length ? text->data : "", text->length);
  return 1;
}

void pl_display_ask(lua_State *L, const char *prompt, bool password) {
  const pl_frontend *frontend = pl_display_frontend(L);
  pl_text answer = {0};
  pl_status status = frontend && frontend->input ? frontend->input(frontend->context, prompt, password, &answer)
                                                 : ask_terminal(prompt, password, &answer);
  lua_pushcfunction(L, push_text);
  lua_pushlightuserdata(L, &answer);
  int copied = lua_pcall(L, 1, 1, 0); /* copying may fail, and the answer must be released even then */
  pl_text_release(&answer);
  if (status == PL_INTERRUPTED) luaL_error(L, "interrupted");
  if (status != PL_OK) luaL_error(L, "cannot ask for input: %s", pl_message());
  if (copied != LUA_OK) lua_error(L);
}

/* input(prompt, password) -> the user's line */
static int input(lua_State *L) {
  pl_display_ask(L, luaL_optstring(L, 1, ""), lua_toboolean(L, 2));
  return 1;
}

/* base64(bytes) -> text */
static int base64(lua_State *L) {
  size_t length;
  const char *data = luaL_checklstring(L, 1, &length);
  json_t **box = pl_json_box(L);
  *box = base64_string(data, length);
  lua_pushlstring(L, json_string_value(*box), json_string_length(*box));
  return 1;
}

/* bundle(data) -> the same as messages have it: files in base64 */
static int bundle(lua_State *L) {
  char problem[200];
  json_t **box = pl_json_box(L);
  *box = pl_display_bundle(L, 1, problem);
  if (!*box) return luaL_argerror(L, 1, problem);
  pl_json_to_lua(L, *box);
  return 1;
}

static int uuid(lua_State *L) {
  char text[PL_UUID_BYTES];
  pl_uuid(text);
  lua_pushstring(L, text);
  return 1;
}

void pl_register_display(lua_State *L) {
  static const luaL_Reg functions[] = {{"publish", publish}, {"payload", payload},       {"frontend", frontend_kind},
                                       {"input", input},     {"base64", base64},         {"bundle", bundle},
                                       {"uuid", uuid},       {"message_id", message_id}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
