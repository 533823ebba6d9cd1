/* Command line of scripts: -e, -l, -i, -v, -W, -, SCRIPT; and of commands that are written in Lua. */
#include "host/bind/script.h"
#include "host/bind/distributed.h"
#include "host/bind/interrupt.h"
#include "host/bind/repl.h"
#include "host/bind/state.h"
#include "host/bind/system.h"
#include "host/bind/traceback.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const *pl_script_commands;

/* What the command line asks for. script is the index of the script in argv, argc when there is none; module, where it
 * is not NULL, is the command to run in place of all that. */
typedef struct {
  const char *module;
  int argc, script;
  char **argv;
  bool interactive, version, code;
} request;

static int complain(const char *message) {
  fprintf(stderr, "perilune: %s\n", message);
  return 1;
}

/* True for -e and -l, which are followed by a value in the same or the next word. */
static bool takes_value(const char *option) { return option[1] == 'e' || option[1] == 'l'; }

static bool read_options(request *r) {
  for (r->script = 1; r->script < r->argc; r->script++) {
    const char *word = r->argv[r->script];
    if (word[0] != '-' || word[1] == 0) return true;
    if (strcmp(word, "--") == 0) {
      r->script++;
      return true;
    }
    if (takes_value(word)) {
      r->code |= word[1] == 'e';
      if (word[2] == 0 && ++r->script >= r->argc) {
        fprintf(stderr, "perilune: %s needs a value; see perilune --help\n", word);
        return false;
      }
    } else if (strcmp(word, "-i") == 0)
      r->interactive = true;
    else if (strcmp(word, "-v") == 0)
      r->version = true;
    else if (strcmp(word, "-W") != 0) {
      fprintf(stderr, "perilune: unknown option '%s'; see perilune --help\n", word);
      return false;
    }
  }
  return true;
}

static void set_arguments(lua_State *L, const request *r) {
  int zero = r->script < r->argc ? r->script : 0; /* without a script, arg[0] is the program */
  lua_createtable(L, r->argc - zero, zero + 1);
  for (int i = 0; i < r->argc; i++) {
    lua_pushstring(L, r->argv[i]);
    lua_rawseti(L, -2, i - zero);
  }
  lua_setglobal(L, "arg");
}

/* Calls the chunk on the stack; reports its error. */
static bool call(lua_State *L, int load_status, int arguments) {
  int status = load_status;
  if (status == LUA_OK) status = pl_interrupt_call(L, arguments, 0, NULL);
  if (status == LUA_OK) return true;
  const char *message = lua_tostring(L, -1);
  if (!message) message = "error without a message";
  pl_distributed_failed(message);
  complain(message);
  lua_pop(L, 1);
  return false;
}

/* Leaves what the module is on the stack. */
static bool require_module(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  return pl_interrupt_call(L, 1, 1, NULL) == LUA_OK || call(L, LUA_ERRRUN, 0);
}

static bool load_module(lua_State *L, const char *name) {
  if (!require_module(L, name)) return false;
  lua_setglobal(L, name);
  return true;
}

/* Carries out -e, -l and -W in their order. */
static bool run_options(lua_State *L, const request *r) {
  for (int i = 1; i < r->script && strcmp(r->argv[i], "--") != 0; i++) {
    const char *word = r->argv[i];
    if (strcmp(word, "-W") == 0) lua_warning(L, "@on", 0);
    if (!takes_value(word)) continue;
    const char *value = word[2] ? word + 2 : r->argv[++i];
    bool ok = word[1] == 'e' ? call(L, luaL_loadbuffer(L, value, strlen(value), "=(command line)"), 0)
                             : load_module(L, value);
    if (!ok) return false;
  }
  return true;
}

static void explain_missing(const char *name) {
  fprintf(stderr, "perilune: there is no file '%s'", name);
  if (!strpbrk(name, "./")) {
    fprintf(stderr, ", and no such command; the commands are");
    for (const char *const *command = pl_script_commands; command && *command; command++)
      fprintf(stderr, "%s %s", command == pl_script_commands ? "" : ",", *command);
  }
  fputc('\n', stderr);
}

static bool run_script(lua_State *L, const request *r) {
  const char *name = r->argv[r->script];
  bool standard_input = strcmp(name, "-") == 0 && strcmp(r->argv[r->script - 1], "--") != 0;
  if (!standard_input && access(name, F_OK) != 0) {
    explain_missing(name);
    return false;
  }
  int status = luaL_loadfile(L, standard_input ? NULL : name);
  int arguments = r->argc - r->script - 1;
  if (status == LUA_OK) {
    luaL_checkstack(L, arguments + 8, "too many arguments to script");
    for (int i = 0; i < arguments; i++) lua_pushstring(L, r->argv[r->script + 1 + i]);
  }
  return call(L, status, arguments);
}

/* upvalue: where the status goes. A call, so that an interrupt is heard meanwhile. */
static int wait_for_devices(lua_State *L) {
  *(pl_status *)lua_touserdata(L, lua_upvalueindex(1)) = pl_system_settle();
  return 0;
}

static bool settle(lua_State *L) {
  pl_status status = PL_OK;
  lua_pushlightuserdata(L, &status);
  lua_pushcclosure(L, wait_for_devices, 1);
  if (!call(L, LUA_OK, 0)) return false;
  if (status != PL_OK) complain(status == PL_INTERRUPTED ? "interrupted" : pl_message());
  return status == PL_OK;
}

/* Options, script, prompt. */
static bool run_line(lua_State *L, const request *r) {
  bool script = r->script < r->argc;
  if (r->version) printf("Perilune %s, %s\n", PERILUNE_VERSION, LUA_RELEASE);
  bool ok = run_options(L, r) && (!script || run_script(L, r)) && settle(L);
  bool nothing = !script && !r->code && !r->version;
  if (ok && (r->interactive || (nothing && isatty(STDIN_FILENO)))) return pl_repl_run(L) == PL_OK;
  return ok && (!nothing || call(L, luaL_loadfile(L, NULL), 0));
}

static bool run_command(lua_State *L, const char *module) {
  return require_module(L, module) && call(L, LUA_OK, 0) && settle(L);
}

/* The protected call round everything: argument 1 is the request; returns whether all went well. */
static int run(lua_State *L) {
  const request *r = lua_touserdata(L, 1);
  lua_settop(L, 0);
  set_arguments(L, r);
  lua_pushboolean(L, r->module ? run_command(L, r->module) : run_line(L, r));
  return 1;
}

static int run_in_state(request *r) {
  lua_State *L;
  if (pl_state_new(&L) != PL_OK) return complain(pl_message());
  pl_interrupt_install(true);
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, r);
  bool ok = false;
  if (lua_pcall(L, 1, 1, 0) == LUA_OK)
    ok = lua_toboolean(L, -1);
  else
    complain(lua_tostring(L, -1) ? lua_tostring(L, -1) : "error without a message");
  lua_close(L);
  return ok ? 0 : 1;
}

int pl_script_main(int argc, char **argv) {
  request r = {.argc = argc, .argv = argv};
  return read_options(&r) ? run_in_state(&r) : 1;
}

int pl_script_command(const char *module, int argc, char **argv) {
  request r = {.module = module, .argc = argc, .argv = argv};
  return run_in_state(&r);
}
