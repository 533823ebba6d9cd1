/* Questions about code: the names that may stand at the cursor, and what is known of what stands there. The answers are
 * those of lua/perilune/code; no user code runs for them, and no hook of the user's either. */
#include "host/bind/evaluate.h"
#include "host/bind/display.h"
#include "host/bind/interrupt.h"
#include "host/bind/json.h"

#include <lauxlib.h>

typedef struct {
  pl_evaluate_part part;
  const char *code;
  size_t length, cursor;
  lua_Integer detail;
  json_t *answer;
  size_t start;
} question;

static void take_matches(lua_State *L, question *q) {
  char problem[200];
  lua_Integer count = luaL_len(L, 1);
  for (lua_Integer i = 1; i <= count; i++) {
    lua_rawgeti(L, 1, i);
    json_array_append_new(q->answer, pl_lua_to_json(L, -1, problem));
    lua_pop(L, 1);
  }
  q->start = (size_t)luaL_checkinteger(L, 2) - 1;
}

static int ask(lua_State *L) {
  question *q = lua_touserdata(L, 1);
  lua_settop(L, 0);
  pl_evaluate_push(L, q->part);
  lua_pushlstring(L, q->code, q->length);
  lua_pushinteger(L, (lua_Integer)q->cursor);
  lua_pushinteger(L, q->detail);
  lua_call(L, 3, 2);
  char problem[200];
  if (q->part == PL_PART_COMPLETE)
    take_matches(L, q);
  else if (!lua_isnil(L, 1))
    q->answer = pl_display_bundle(L, 1, problem);
  return 0;
}

/* An error can only be want of memory, or modules that the user's code has changed: then the answer stays empty. */
static void answer(lua_State *L, question *q) {
  lua_Hook hook = lua_gethook(L);
  int mask = lua_gethookmask(L), count = lua_gethookcount(L), top = lua_gettop(L);
  lua_sethook(L, NULL, 0, 0);
  lua_pushcfunction(L, ask);
  lua_pushlightuserdata(L, q);
  pl_interrupt_call_unwatched(L, 1, 0);
  lua_settop(L, top);
  lua_sethook(L, hook, mask, count);
}

json_t *pl_evaluate_complete(lua_State *L, const char *code, size_t length, size_t cursor, size_t *start) {
  if (cursor > length) cursor = length;
  question q = {PL_PART_COMPLETE, code, length, cursor, 0, json_array(), cursor};
  answer(L, &q);
  *start = q.start;
  return q.answer;
}

json_t *pl_evaluate_inspect(lua_State *L, const char *code, size_t length, size_t cursor, int detail) {
  if (cursor > length) cursor = length;
  question q = {PL_PART_INSPECT, code, length, cursor, detail, NULL, cursor};
  answer(L, &q);
  return q.answer;
}
