/* pl.cuda_graph: what a function asks of a GPU, recorded, and done again and again by one call. */
#include "host/bind/recording.h"

#include "host/bind/construct.h"
#include "host/bind/handle.h"
#include "host/device/recording.h"

static const char GRAPH[] = "perilune.cuda_graph";

/* Its user value is the function: what that refers to must not be collected, since replays read and write it. */
typedef struct {
  pl_replay *recording; /* NULL before it is made */
} graph;

/* cuda_graph(device, f) -> graph: calls f, whose operations on that GPU are not done but recorded. */
static int new_graph(lua_State *L) {
  pl_device *device = pl_check_device(L, 1, "cuda_graph");
  if (!lua_isfunction(L, 2)) return pl_error(L, "cuda_graph: f: expected a function, got %s", luaL_typename(L, 2));
  lua_settop(L, 2);
  graph *made = lua_newuserdatauv(L, sizeof *made, 1);
  *made = (graph){0};
  luaL_setmetatable(L, GRAPH);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 3, 1);
  pl_raise_unless_ok(L, pl_replay_record(device));
  lua_pushvalue(L, 2);
  bool good = lua_pcall(L, 0, 0, 0) == LUA_OK;
  pl_status status = pl_replay_end(device, good, &made->recording);
  if (!good) return lua_error(L);
  pl_raise_unless_ok(L, status);
  return 1;
}

/* graph:replay() -> graph; does not wait */
static int replay(lua_State *L) {
  const graph *g = luaL_checkudata(L, 1, GRAPH);
  if (!g->recording) return pl_error(L, "cuda_graph:replay: it is closed");
  pl_raise_unless_ok(L, pl_replay_run(g->recording));
  lua_settop(L, 1);
  return 1;
}

static int collect(lua_State *L) {
  graph *g = luaL_checkudata(L, 1, GRAPH);
  pl_replay_release(g->recording);
  g->recording = NULL;
  lua_pushnil(L);
  lua_setiuservalue(L, 1, 1);
  return 0;
}

void pl_register_recording(lua_State *L) {
  static const luaL_Reg methods[] = {{"replay", replay}, {"close", collect}, {0}};
  luaL_newmetatable(L, GRAPH);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, collect);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, collect);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
  lua_pushcfunction(L, new_graph);
  lua_setfield(L, -2, "cuda_graph");
}
