/* Names that may stand at the cursor: globals, fields, methods, reserved words. Reads tables raw, so that no user code
 * runs for a Tab. */
#include "host/bind/evaluate.h"
#include "host/bind/handle.h"
#include "host/bind/source.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MATCHES_MAX = 1000, INDEX_DEPTH_MAX = 8 };

typedef struct {
  lua_State *L;
  const char *prefix;
  size_t prefix_length;
  bool methods;  /* after ':' only functions count */
  json_t *found; /* object used as a set */
} search;

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

static void offer(search *s, const char *name, size_t length) {
  if (length < s->prefix_length || memcmp(name, s->prefix, s->prefix_length) != 0) return;
  if (length == 0 || isdigit((unsigned char)name[0])) return;
  for (size_t i = 0; i < length; i++)
    if (!is_word(name[i])) return;
  if (s->prefix_length == 0 && name[0] == '_') return; /* metamethods and the like, unless they are asked for */
  if (json_object_size(s->found) < MATCHES_MAX) json_object_setn_new_nocheck(s->found, name, length, json_true());
}

/* Replaces the value on top by the table in which Lua would look next: its metatable's __index, or, where that is one
 * of the program's own C functions, the table of methods in the registry. Pops it and returns false when there is none.
 */
static bool to_next_table(lua_State *L) {
  if (!lua_getmetatable(L, -1)) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushliteral(L, "__index");
  lua_rawget(L, -2);
  luaL_getmetatable(L, PL_TENSOR);
  bool tensor = lua_rawequal(L, -1, -3);
  lua_pop(L, 1);
  if (tensor) {
    lua_pop(L, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, PL_METHODS);
  }
  lua_replace(L, -3);
  lua_pop(L, 1);
  if (lua_istable(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

static void offer_keys(search *s) {
  lua_State *L = s->L;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || (s->methods && !lua_isfunction(L, -1))) continue;
    size_t length;
    const char *name = lua_tolstring(L, -2, &length);
    offer(s, name, length);
  }
}

/* Offers the list __names of the metatable of the value on top: what its __index function would find. */
static void offer_names(search *s) {
  lua_State *L = s->L;
  if (s->methods || !lua_getmetatable(L, -1)) return;
  lua_pushliteral(L, "__names");
  lua_rawget(L, -2);
  if (lua_istable(L, -1))
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      size_t length;
      const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
      if (name) offer(s, name, length);
    }
  lua_pop(L, 2);
}

/* Offers the fields of the value on top of the stack and pops it. */
static void offer_fields(search *s) {
  int depth = 0;
  do {
    offer_names(s);
    if (lua_istable(s->L, -1)) offer_keys(s);
  } while (to_next_table(s->L) && ++depth < INDEX_DEPTH_MAX);
  if (depth == INDEX_DEPTH_MAX) lua_pop(s->L, 1);
}

/* Replaces the value on top by its field; nil when it has none. */
static void step_into(lua_State *L, const char *name, size_t length) {
  int depth = 0;
  do {
    if (!lua_istable(L, -1)) continue;
    lua_pushlstring(L, name, length);
    lua_rawget(L, -2);
    if (!lua_isnil(L, -1)) {
      lua_remove(L, -2);
      return;
    }
    lua_pop(L, 1);
  } while (to_next_table(L) && ++depth < INDEX_DEPTH_MAX);
  if (depth == INDEX_DEPTH_MAX) lua_pop(L, 1);
  lua_pushnil(L);
}

/* Where the chain of names "a.b:" that ends at `end` begins. */
static size_t chain_start(const char *code, size_t end) {
  while (end > 0 && (is_word(code[end - 1]) || code[end - 1] == '.' || code[end - 1] == ':')) end--;
  return end;
}

/* Pushes the value that the chain code[at, end) names; `end` lies after a '.' or ':'. */
static void push_chain(lua_State *L, const char *code, size_t at, size_t end) {
  lua_pushglobaltable(L);
  while (at < end) {
    size_t word = at;
    while (word < end && is_word(code[word])) word++;
    if (word == at) { /* "f()." or "..": what stands before is not known without running it */
      lua_pop(L, 1);
      lua_pushnil(L);
      return;
    }
    step_into(L, code + at, word - at);
    at = word + 1;
  }
}

static void offer_keywords(search *s) {
  for (const char *const *word = pl_source_keywords; *word; word++) offer(s, *word, strlen(*word));
}

/* Names that the code itself uses: locals above all. */
static void offer_words(search *s, const char *code, size_t length, size_t skip) {
  for (size_t i = 0; i < length;) {
    size_t end = i;
    while (end < length && is_word(code[end])) end++;
    bool field = i > 0 && (code[i - 1] == '.' || code[i - 1] == ':');
    if (end > i && i != skip && !field) offer(s, code + i, end - i);
    i = end > i ? end : i + 1;
  }
}

typedef struct {
  search search;
  const char *code;
  size_t length, cursor, start;
} request;

static int collect(lua_State *L) {
  request *r = lua_touserdata(L, 1);
  search *s = &r->search;
  bool field = r->start > 0 && (r->code[r->start - 1] == '.' || r->code[r->start - 1] == ':');
  s->methods = field && r->code[r->start - 1] == ':';
  if (field) {
    push_chain(L, r->code, chain_start(r->code, r->start), r->start);
    offer_fields(s);
    return 0;
  }
  lua_pushglobaltable(L);
  offer_fields(s);
  offer_keywords(s);
  offer_words(s, r->code, r->length, r->start);
  return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static json_t *sorted(json_t *set) {
  size_t count = json_object_size(set), i = 0;
  const char **names = pl_allocate(count * sizeof *names);
  for (void *at = json_object_iter(set); at; at = json_object_iter_next(set, at)) names[i++] = json_object_iter_key(at);
  qsort(names, count, sizeof *names, by_name);
  json_t *array = json_array();
  for (i = 0; i < count; i++) json_array_append_new(array, json_string(names[i]));
  free(names);
  return array;
}

json_t *pl_evaluate_complete(lua_State *L, const char *code, size_t length, size_t cursor, size_t *start) {
  if (cursor > length) cursor = length;
  size_t at = cursor;
  while (at > 0 && is_word(code[at - 1])) at--;
  request r = {.search = {.L = L, .prefix = code + at, .prefix_length = cursor - at, .found = json_object()},
               .code = code,
               .length = length,
               .cursor = cursor,
               .start = at};
  int top = lua_gettop(L);
  lua_pushcfunction(L, collect);
  lua_pushlightuserdata(L, &r);
  lua_pcall(L, 1, 0, 0); /* only memory can run out: then fewer names are offered */
  lua_settop(L, top);
  json_t *matches = sorted(r.search.found);
  json_decref(r.search.found);
  *start = at;
  return matches;
}
