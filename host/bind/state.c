/* Creation of Lua states. */
#include "host/bind/state.h"
#include "host/base/home.h"
#include "host/bind/core.h"
#include "host/bind/interrupt.h"
#include "host/bind/traceback.h"

#include <lauxlib.h>
#include <lualib.h>

static int open_everything(lua_State *L) {
  const char *home = lua_touserdata(L, 1);
  luaL_openlibs(L);
  pl_interrupt_track(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua;%s", home, home, lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_pushfstring(L, "%s/lua", home);
  pl_traceback_own(L, lua_tostring(L, -1));
  lua_pop(L, 1);
  lua_getfield(L, -2, "preload");
  lua_pushcfunction(L, pl_open_core);
  lua_setfield(L, -2, "perilune.core");
  lua_gc(L, LUA_GCGEN, 0, 0);
  return 0;
}

pl_status pl_state_new(lua_State **state) {
  pl_text home = {0};
  PL_TRY(pl_home_find(&home));
  lua_State *L = luaL_newstate();
  pl_status status = PL_OK;
  if (!L)
    status = PL_FAIL_MEMORY("no memory for a Lua state");
  else {
    lua_pushcfunction(L, open_everything);
    lua_pushlightuserdata(L, home.data);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
      status = PL_FAIL("cannot open Lua's libraries: %s", lua_tostring(L, -1));
      lua_close(L);
      L = NULL;
    }
  }
  pl_text_release(&home);
  *state = L;
  return status;
}
