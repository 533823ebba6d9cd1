/* What is generated from the built-in cells for fused products of 16 bits, held to golden files; rewrites them instead
 * when the environment has PERILUNE_UPDATE. Needs no GPU. */
#include "host/base/file.h"
#include "host/bind/cell.h"
#include "host/bind/state.h"
#include "host/cpu/cpu.h"
#include "host/cuda/cell_text.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed;

static void hold(const char *name, const pl_cell *cell) {
  pl_text path = {0}, text = {0}, expected = {0};
  pl_text_print(&path, "%s/tests/golden/fused_%s.txt", PERILUNE_SOURCE, name);
  pl_cell_text_approximate(cell, &text);
  if (getenv("PERILUNE_UPDATE")) {
    FILE *file = fopen(path.data, "w");
    if (!file || fwrite(text.data, 1, text.length, file) != text.length || fclose(file) != 0) exit(1);
  }
  if (pl_file_read(path.data, &expected) != PL_OK) {
    failed++;
    printf("%s\n", pl_message());
  } else if (strcmp(expected.data, text.data) != 0) {
    failed++;
    printf("%s: the text is another now:\n%s\n", path.data, text.data);
  }
  pl_text_release(&path);
  pl_text_release(&text);
  pl_text_release(&expected);
}

int main(void) {
  static const char *const names[] = {"elman", "gru", "lstm", "slstm"};
  lua_State *L;
  pl_cpu_open();
  if (pl_state_new(&L) != PL_OK) {
    printf("%s\n", pl_message());
    return 1;
  }
  for (int i = 0; i < 4; i++) {
    lua_pushfstring(L, "return require 'perilune.cells'['%s']:compile()", names[i]);
    if (luaL_dostring(L, lua_tostring(L, -1)) != LUA_OK) {
      printf("%s: %s\n", names[i], lua_tostring(L, -1));
      return 1;
    }
    hold(names[i], pl_check_cell(L, -1));
    lua_settop(L, 0);
  }
  lua_close(L);
  return failed > 0;
}
