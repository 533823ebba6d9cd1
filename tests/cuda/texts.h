/* The frame of tests that compile what is generated from cells: Lua in several processes, and what ptxas says. */
#ifndef TESTS_CUDA_TEXTS_H
#define TESTS_CUDA_TEXTS_H

#include "host/bind/state.h"
#include "host/cpu/cpu.h"
#include "host/cuda/nvrtc.h"
#include "tests/check.h"
#include "tests/cuda/share.h"

#include <lauxlib.h>

/* Begins the sharing of jobs (tests/cuda/share.h) and returns, in each process, a Lua state with what `chunk` returns
 * on top of the stack; `chunk` may require modules of tests/. Ends the program as a skipped test without NVRTC. */
static inline lua_State *texts_begin(const char *chunk) {
  lua_State *L;
  if (pl_nvrtc_open() != PL_OK) exit(skipped());
  /* Without a place for them, thousands of cubins that nobody will run are not kept. */
  unsetenv("XDG_CACHE_HOME");
  unsetenv("HOME");
  pl_cpu_open();
  share_begin();
  if (pl_state_new(&L) != PL_OK ||
      luaL_dostring(L, "package.path = package.path .. ';" PERILUNE_SOURCE "/?.lua'") != LUA_OK ||
      luaL_dostring(L, chunk) != LUA_OK) {
    printf("cannot load the cells: %s\n", L ? lua_tostring(L, -1) : pl_message());
    exit(1);
  }
  return L;
}

/* The largest number in front of `words` in what ptxas says of the kernels of a text, NULL included. */
static inline long texts_largest(const char *log, const char *words) {
  long most = 0;
  for (const char *at = log; at && (at = strstr(at, words)); at += strlen(words)) {
    const char *number = at;
    while (number > log && number[-1] >= '0' && number[-1] <= '9') number--;
    long value = strtol(number, NULL, 10);
    if (value > most) most = value;
  }
  return most;
}

#endif
