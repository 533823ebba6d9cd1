/* Handles, scopes, and errors. */
#include "host/bind/handle.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* "closed at" and where, shared by the handles that a scope dropped. */
typedef struct {
  int count;
  char text[];
} place;

typedef struct scope scope;
typedef struct handle {
  pl_tensor *tensor; /* NULL: not yet filled, or dropped */
  scope *owner;      /* NULL: no scope, the collector alone frees it */
  struct handle *previous, *next;
  place *dropped; /* set when a scope dropped it */
} handle;

struct scope {
  scope *outer;
  handle *first;
  lua_State *thread; /* the coroutine that opened it, kept alive as its user value */
  char opened[96];   /* the line that opened it */
  bool open;
};

static scope *innermost;

static const char SCOPE[] = "perilune.scope";

static void unlink_handle(handle *h) {
  if (!h->owner) return;
  if (h->previous)
    h->previous->next = h->next;
  else
    h->owner->first = h->next;
  if (h->next) h->next->previous = h->previous;
  h->owner = NULL;
  h->previous = h->next = NULL;
}

static void link_handle(handle *h, scope *owner) {
  h->owner = owner;
  h->previous = h->next = NULL;
  if (!owner) return;
  h->next = owner->first;
  if (h->next) h->next->previous = h;
  owner->first = h;
}

static void place_release(place *p) {
  if (p && --p->count == 0) free(p);
}

/* The first scope, from this one outward, that takes tensors now: one of a suspended or failed coroutine does not. */
static scope *active(scope *s) {
  while (s && lua_status(s->thread) != LUA_OK) s = s->outer;
  return s;
}

/* ---- handles ---- */

pl_tensor **pl_push_handle(lua_State *L) {
  handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  memset(h, 0, sizeof *h);
  luaL_setmetatable(L, PL_TENSOR);
  link_handle(h, active(innermost));
  return &h->tensor;
}

void pl_push_tensor(lua_State *L, pl_tensor *tensor) {
  if (tensor)
    *pl_push_handle(L) = tensor;
  else
    lua_pushnil(L);
}

static int collect_handle(lua_State *L) {
  handle *h = lua_touserdata(L, 1);
  unlink_handle(h);
  pl_tensor_release(h->tensor);
  place_release(h->dropped);
  memset(h, 0, sizeof *h);
  return 0;
}

bool pl_is_tensor(lua_State *L, int index) { return luaL_testudata(L, index, PL_TENSOR) != NULL; }

static const char *described(lua_State *L, int index) {
  if (lua_isnone(L, index)) return "nothing";
  if (lua_type(L, index) == LUA_TTABLE && luaL_getmetafield(L, index, "__name") == LUA_TSTRING)
    return lua_tostring(L, -1);
  return luaL_typename(L, index);
}

static handle *check_handle(lua_State *L, int index, const char *function, const char *argument) {
  handle *h = luaL_testudata(L, index, PL_TENSOR);
  if (!h) pl_error(L, "%s: %s: expected a tensor, got %s", function, argument, described(L, index));
  if (!h->tensor && h->dropped)
    pl_error(L, "%s: %s: this tensor was dropped when its scope %s (t:keep() moves one outward)", function, argument,
             h->dropped->text);
  if (!h->tensor) pl_error(L, "%s: %s: this tensor was never made", function, argument);
  return h;
}

pl_tensor *pl_check_tensor(lua_State *L, int index, const char *function, const char *argument) {
  return check_handle(L, index, function, argument)->tensor;
}

pl_tensor *pl_optional_tensor(lua_State *L, int index, const char *function, const char *argument) {
  return lua_isnoneornil(L, index) ? NULL : pl_check_tensor(L, index, function, argument);
}

/* ---- scopes ---- */

/* Writes "file:line" of the running Lua function; empty where there is none (a scope closed by an error). */
static void write_place(lua_State *L, char *text, size_t size) {
  luaL_where(L, 1);
  snprintf(text, size, "%s", lua_tostring(L, -1));
  size_t length = strlen(text);
  while (length > 0 && strchr(": ", text[length - 1])) text[--length] = 0;
  lua_pop(L, 1);
}

static int new_scope(lua_State *L) {
  scope *s = lua_newuserdatauv(L, sizeof *s, 1);
  *s = (scope){.outer = innermost, .thread = L, .open = true};
  write_place(L, s->opened, sizeof s->opened);
  lua_pushthread(L);
  lua_setiuservalue(L, -2, 1);
  luaL_setmetatable(L, SCOPE);
  innermost = s;
  return 1;
}

/* Takes an open scope out of the chain; the chain holds open ones only, so no `outer` dangles. */
static void leave(scope *s) {
  scope **link = &innermost;
  while (*link != s) link = &(*link)->outer;
  *link = s->outer;
  s->outer = NULL;
  s->open = false;
}

static int close_scope(lua_State *L) {
  scope *s = luaL_checkudata(L, 1, SCOPE);
  if (!s->open) return 0;
  leave(s);
  if (!s->first) return 0;
  char closed[96];
  write_place(L, closed, sizeof closed);
  place *p = pl_allocate(sizeof *p + sizeof closed + sizeof s->opened + 16);
  sprintf(p->text, closed[0] ? "closed at %s" : "closed (opened at %s)", closed[0] ? closed : s->opened);
  p->count = 1;
  while (s->first) {
    handle *h = s->first;
    unlink_handle(h);
    pl_tensor_release(h->tensor);
    h->tensor = NULL;
    place_release(h->dropped);
    h->dropped = p;
    p->count++;
  }
  place_release(p);
  return 0;
}

/* A scope that was never closed hands what it holds to the next one outside: nothing may vanish by surprise. */
static int collect_scope(lua_State *L) {
  scope *s = lua_touserdata(L, 1), *outer = s->outer;
  if (!s->open) return 0;
  leave(s);
  while (s->first) {
    handle *h = s->first;
    unlink_handle(h);
    link_handle(h, active(outer));
  }
  return 0;
}

static int keep(lua_State *L) {
  handle *h = check_handle(L, 1, "keep", "self");
  if (h->owner) {
    scope *outer = active(h->owner->outer);
    unlink_handle(h);
    link_handle(h, outer);
  }
  lua_settop(L, 1);
  return 1;
}

static int retain(lua_State *L) {
  unlink_handle(check_handle(L, 1, "retain", "tensor"));
  lua_settop(L, 1);
  return 1;
}

/* adopt(t) -> t, which from now on is dropped with the innermost scope, as if it had been made there */
static int adopt(lua_State *L) {
  handle *h = check_handle(L, 1, "adopt", "tensor");
  unlink_handle(h);
  link_handle(h, active(innermost));
  lua_settop(L, 1);
  return 1;
}

/* dropped(t) -> why a handle has no tensor any more, or nil */
static int dropped(lua_State *L) {
  handle *h = luaL_testudata(L, 1, PL_TENSOR);
  lua_pushstring(L, h && h->dropped ? h->dropped->text : NULL);
  return 1;
}

static int is_tensor(lua_State *L) {
  lua_pushboolean(L, pl_is_tensor(L, 1));
  return 1;
}

/* ---- errors and memory ---- */

int pl_error(lua_State *L, const char *format, ...) {
  lua_Debug frame;
  int level = 1;
  for (; lua_getstack(L, level, &frame); level++) {
    lua_getinfo(L, "Sl", &frame);
    if (frame.currentline > 0 && !strstr(frame.source, "/lua/perilune/")) break;
  }
  luaL_where(L, lua_getstack(L, level, &frame) ? level : 1);
  va_list arguments;
  va_start(arguments, format);
  lua_pushvfstring(L, format, arguments);
  va_end(arguments);
  lua_concat(L, 2);
  return lua_error(L);
}

static bool loss_raised;

bool pl_loss_raised(void) { return loss_raised; }

/* Messages from the devices do not know for which operation ("": none) they worked. */
static void raise_failure(lua_State *L, pl_status status, const char *operation) {
  if (status == PL_INTERRUPTED) pl_error(L, "interrupted");
  if (status == PL_LOST) loss_raised = true;
  bool said = strncmp(pl_message(), operation, strlen(operation)) == 0;
  pl_error(L, "%s%s%s", said ? "" : operation, said ? "" : ": ", pl_message());
}

void pl_raise_unless_ok(lua_State *L, pl_status status) {
  if (status != PL_OK) raise_failure(L, status, "");
}

/* Handles are small to Lua's collector whatever they hold, so garbage can pile up unseen. When live memory has doubled
 * since the last full collection, the next operation starts with one. */
static void collect_over_budget(lua_State *L) {
  enum { BUDGET_MIN = 256 << 20 };
  static size_t budget = BUDGET_MIN;
  size_t live = 0;
  pl_memory memory;
  for (int i = 0; i < pl_device_count(); i++) {
    pl_device_memory(pl_device_at(i), &memory);
    live += memory.live;
  }
  if (live <= budget) return;
  lua_gc(L, LUA_GCCOLLECT);
  live = 0;
  for (int i = 0; i < pl_device_count(); i++) {
    pl_device_memory(pl_device_at(i), &memory);
    live += memory.live;
  }
  budget = live * 2 > BUDGET_MIN ? live * 2 : BUDGET_MIN;
}

void pl_run(lua_State *L, const char *operation, pl_status (*work)(void *context), void *context) {
  collect_over_budget(L);
  pl_status status = work(context);
  if (status == PL_OUT_OF_MEMORY) {
    lua_gc(L, LUA_GCCOLLECT);
    status = work(context);
  }
  if (status != PL_OK) raise_failure(L, status, operation);
}

void pl_register_handle(lua_State *L) {
  static const luaL_Reg functions[] = {{"scope", new_scope},     {"retain", retain},   {"adopt", adopt},
                                       {"is_tensor", is_tensor}, {"dropped", dropped}, {0}};
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, PL_TENSOR);
  lua_pushcfunction(L, collect_handle);
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  lua_pushcfunction(L, keep);
  lua_setfield(L, -2, "keep");
  lua_setfield(L, LUA_REGISTRYINDEX, PL_METHODS);
  lua_pop(L, 1);
  luaL_newmetatable(L, SCOPE);
  static const luaL_Reg scope_functions[] = {{"__close", close_scope}, {"__gc", collect_scope}, {0}};
  luaL_setfuncs(L, scope_functions, 0);
  lua_newtable(L);
  lua_pushcfunction(L, close_scope);
  lua_setfield(L, -2, "close");
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
