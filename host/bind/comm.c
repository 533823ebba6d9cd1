/* Comm messages from Lua to the front end and back. */
#include "host/bind/comm.h"
#include "host/bind/display.h"
#include "host/bind/evaluate.h"
#include "host/bind/handle.h"
#include "host/bind/json.h"
#include "host/bind/system.h"

#include <string.h>

/* Where the registry keeps what comm.lua attached; nothing while no code has required it. */
static const char receiver_key, open_key;
/* And a set of the targets that front ends asked for when there were none, which tells a later module who is there. */
static const char refused_key;

/* ---- to the front end ---- */

/* Pushes memory of Lua's that holds the strings of the array at `index`, which keeps them alive; raises when it holds
 * anything else. */
static const pl_text *check_buffers(lua_State *L, int index, size_t *count) {
  *count = 0;
  if (lua_isnoneornil(L, index)) return NULL;
  if (!lua_istable(L, index))
    pl_error(L, "comm: buffers: expected an array of strings, got %s", luaL_typename(L, index));
  *count = lua_rawlen(L, index);
  pl_text *buffers = lua_newuserdatauv(L, *count * sizeof *buffers, 0);
  for (size_t i = 0; i < *count; i++) {
    if (lua_rawgeti(L, index, (lua_Integer)i + 1) != LUA_TSTRING)
      pl_error(L, "comm: buffers[%d]: expected a string, got %s", (int)i + 1, luaL_typename(L, -1));
    size_t length;
    const char *data = lua_tolstring(L, -1, &length);
    buffers[i] = (pl_text){.data = (char *)data, .length = length};
    lua_pop(L, 1);
  }
  return buffers;
}

/* Pushes a box with the object of the table at `index`; empty for nil. */
static json_t *check_object(lua_State *L, int index, const char *name) {
  char problem[200];
  json_t **box = pl_json_box(L);
  if (!lua_isnoneornil(L, index) && !lua_istable(L, index))
    pl_error(L, "comm: %s: expected a table, got %s", name, luaL_typename(L, index));
  *box = lua_isnoneornil(L, index) ? json_object() : pl_lua_to_json(L, index, problem);
  if (!*box) pl_error(L, "comm: %s: %s", name, problem);
  if (!json_is_object(*box)) pl_error(L, "comm: %s: expected a table with names as keys, got a sequence", name);
  return *box;
}

/* comm_send(type, id, target | nil, data, buffers, metadata): `target` only with "comm_open" */
static int send(lua_State *L) {
  const pl_frontend *frontend = pl_display_frontend(L);
  lua_settop(L, 6);
  pl_comm_message message = {.type = luaL_checkstring(L, 1)};
  message.buffers = check_buffers(L, 5, &message.buffer_count);
  message.metadata = check_object(L, 6, "metadata");
  json_t *data = check_object(L, 4, "data"), **content = pl_json_box(L);
  size_t id_length, target_length;
  const char *id = luaL_checklstring(L, 2, &id_length), *target = luaL_optlstring(L, 3, NULL, &target_length);
  *content = json_pack("{s:o, s:O}", "comm_id", pl_json_string(id, id_length), "data", data);
  if (target) json_object_set_new(*content, "target_name", pl_json_string(target, target_length));
  message.content = *content;
  if (frontend && frontend->comm) frontend->comm(frontend->context, &message);
  return 0;
}

/* comm_attach(receive, open): receive(type, id, target, data, buffers, metadata) takes the messages that arrive; the
 * keys of `open` are the ids of open comms, the field `target` of its values their targets' names. */
static int attach(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &open_key);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &receiver_key);
  return 0;
}

/* ---- from the front end ---- */

static void push_string(lua_State *L, const json_t *string) {
  lua_pushlstring(L, json_string_value(string), json_string_length(string));
}

/* What is missing is an empty table. */
static void push_value(lua_State *L, const json_t *value) {
  if (value)
    pl_json_to_lua(L, value);
  else
    lua_newtable(L);
}

static void send_close(lua_State *L, json_t *id) {
  const pl_frontend *frontend = pl_display_frontend(L);
  if (!frontend || !frontend->comm) return;
  json_t *content = json_pack("{s:O, s:{}}", "comm_id", id, "data");
  frontend->comm(frontend->context, &(pl_comm_message){.type = "comm_close", .content = content});
  json_decref(content);
}

/* Pushes the set; front ends may be there before any code asks for the module. */
static void push_refused(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &refused_key) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &refused_key);
}

static void refuse(lua_State *L, json_t *id, const json_t *target) {
  push_refused(L);
  if (json_is_string(target)) {
    push_string(L, target);
    lua_pushboolean(L, true);
    lua_rawset(L, -3);
  }
  lua_pop(L, 1);
  send_close(L, id);
}

static bool is_open_message(const pl_comm_message *m) { return strcmp(m->type, "comm_open") == 0; }

static int receive(lua_State *L) {
  const pl_comm_message *m = lua_touserdata(L, 1);
  json_t *id = json_object_get(m->content, "comm_id"), *target = json_object_get(m->content, "target_name");
  bool opens = is_open_message(m);
  if (!json_is_string(id)) return 0; /* nobody to answer */
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &receiver_key) == LUA_TNIL || (opens && !json_is_string(target))) {
    if (opens) refuse(L, id, target);
    return 0;
  }
  lua_pushstring(L, m->type);
  push_string(L, id);
  if (opens)
    push_string(L, target);
  else
    lua_pushnil(L);
  push_value(L, json_object_get(m->content, "data"));
  lua_createtable(L, (int)m->buffer_count, 0);
  for (size_t i = 0; i < m->buffer_count; i++) {
    lua_pushlstring(L, m->buffers[i].length ? m->buffers[i].data : "", m->buffers[i].length);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  push_value(L, m->metadata);
  lua_call(L, 6, 0);
  pl_raise_unless_ok(L, pl_system_settle()); /* before it is laid at a cell's door */
  return 0;
}

static int forget(lua_State *L) {
  const json_t *id = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &open_key) != LUA_TTABLE) return 0;
  push_string(L, id);
  lua_pushnil(L);
  lua_rawset(L, -3);
  return 0;
}

void pl_comm_receive(lua_State *L, const pl_comm_message *message, pl_outcome *outcome) {
  pl_evaluate_call(L, receive, (void *)message, outcome);
  json_t *id = json_object_get(message->content, "comm_id");
  if (outcome->ok || !is_open_message(message) || !json_is_string(id)) return;
  pl_outcome forgotten; /* not by the handler itself, which an interrupt may have ended */
  pl_evaluate_call(L, forget, id, &forgotten);
  pl_outcome_release(&forgotten);
  send_close(L, id);
}

typedef struct {
  const char *target;
  json_t *comms;
} listing;

static int list(lua_State *L) {
  listing *l = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &open_key) != LUA_TTABLE) return 0;
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 2)) {
    lua_pushliteral(L, "target");
    lua_rawget(L, -2);
    size_t id_length, target_length;
    const char *id = lua_tolstring(L, -3, &id_length), *target = lua_tolstring(L, -1, &target_length);
    if (!target || (l->target && strcmp(l->target, target) != 0)) continue; /* NULL: user code took the name away */
    json_t *entry = json_pack("{s:o}", "target_name", pl_json_string(target, target_length));
    json_object_setn_new_nocheck(l->comms, id, id_length, entry);
  }
  return 0;
}

json_t *pl_comm_list(lua_State *L, const char *target) {
  listing l = {.target = target, .comms = json_object()};
  pl_outcome outcome;
  pl_evaluate_call(L, list, &l, &outcome);
  pl_outcome_release(&outcome);
  return l.comms;
}

void pl_register_comm(lua_State *L) {
  static const luaL_Reg functions[] = {{"comm_send", send}, {"comm_attach", attach}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  push_refused(L);
  lua_setfield(L, -2, "comm_refused");
}
