/* Compiles the kernels of the recurrence for every cell of tests/recurrence/zoo.lua, every type and every source of the
 * product, for all architectures that the program supports. Needs NVRTC and no GPU; exits with 77 without NVRTC. */
#include "host/bind/state.h"
#include "host/cpu/cpu.h"
#include "host/cuda/nvrtc.h"
#include "host/cuda/recurrence_plan.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKIPPED = 77 };
static const int architectures[] = {80, 86, 89, 90, 100, 120};
static const char *const files[] = {"recurrence_forward.cu", "recurrence_backward.cu"};
static int compiled, failed, spilled;

/* Of a text with its sizes: all of the problem that generated text depends on. */
typedef struct {
  pl_dtype type, storage, product;
  int64_t batch, dim;
} problem;

/* Between them: every type of storage and product, both sources of the product, one and two tiles of rows. */
static const problem problems[] = {
    {PL_F32, PL_BF16, PL_BF16, 16, 64},  {PL_F32, PL_F32, PL_F16, 64, 100},    {PL_F32, PL_F16, PL_F16, 3, 768},
    {PL_F32, PL_BF16, PL_BF16, 64, 256}, {PL_F32, PL_BF16, PL_BF16, 1024, 64}, {PL_F32, PL_F32, PL_F32, 16, 64},
    {PL_F64, PL_F64, PL_F64, 16, 64},
};

/* Some plans spill a word or a few (4 to 20 bytes seen, on sm_90, sm_100 and sm_120); more is a defect. */
enum { SPILL_BYTES_MAX = 20 };

/* Whether any of the kernels that ptxas tells of in `log` spills more than that. */
static bool spills(const char *log) {
  static const char words[] = " bytes spill stores";
  for (const char *at = log; (at = strstr(at, words)); at += sizeof words - 1) {
    const char *number = at;
    while (number > log && number[-1] >= '0' && number[-1] <= '9') number--;
    if (strtol(number, NULL, 10) > SPILL_BYTES_MAX) return true;
  }
  return false;
}

static void compile(const char *name, const char *file, const pl_text *before, int architecture) {
  pl_text source = {0}, cubin = {0}, log = {0};
  pl_text_print(&source, "%s", before->data);
  pl_status status = pl_kernel_source(file, &source);
  if (status == PL_OK) status = pl_nvrtc_compile(file, source.data, "--ptxas-options=-v", architecture, &cubin, &log);
  compiled++;
  if (status != PL_OK) {
    failed++;
    printf("%s, %s for sm_%d: %s\n", name, file, architecture, pl_message());
  } else if (log.data && spills(log.data))
    spilled++, printf("%s, %s for sm_%d spills registers:\n%s\n", name, file, architecture, log.data);
  pl_text_release(&source);
  pl_text_release(&cubin);
  pl_text_release(&log);
}

/* Each problem for one architecture, in turn, and the first for all of them, so that the whole stays short. */
static void compile_cell(const char *name, const pl_cell *cell, int turn) {
  const int architecture_count = sizeof architectures / sizeof *architectures;
  for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
    for (int backward = 0; backward < 2; backward++) {
      const problem *p = &problems[i];
      pl_recurrence q = {.cell = cell,
                         .batch = p->batch,
                         .steps = 4,
                         .heads = 2,
                         .dim = p->dim,
                         .type = p->type,
                         .storage = p->storage,
                         .product = p->product};
      pl_step_shape shape;
      pl_text text = {0};
      pl_step_shape_choose(&q, backward, &shape);
      if (pl_step_text(&q, &shape, &text) != PL_OK) {
        printf("%s: %s\n", name, pl_message());
        exit(1);
      }
      for (int a = 0; a < architecture_count; a++)
        if (i == 0 || a == (turn + (int)i) % architecture_count)
          compile(name, files[backward], &text, architectures[a]);
      pl_text_release(&text);
    }
}

static void compile_packing(void) {
  for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
    for (size_t a = 0; a < sizeof architectures / sizeof *architectures; a++) {
      pl_recurrence q = {.type = problems[i].type, .storage = problems[i].storage, .product = problems[i].product};
      pl_text text = {0};
      if (pl_pack_text(&q, &text) != PL_OK) exit(1);
      compile("packing", "recurrence_pack.cu", &text, architectures[a]);
      pl_text_release(&text);
    }
}

int main(void) {
  if (pl_nvrtc_open() != PL_OK) {
    printf("skipped: %s\n", pl_message());
    return SKIPPED;
  }
  /* Without a place for them, thousands of cubins that nobody will run are not kept. */
  unsetenv("XDG_CACHE_HOME");
  unsetenv("HOME");
  lua_State *L;
  pl_cpu_open();
  if (pl_state_new(&L) != PL_OK || luaL_dostring(L, "package.path = package.path .. ';" PERILUNE_SOURCE "/?.lua'\n"
                                                    "return (require 'tests.recurrence.zoo')") != LUA_OK) {
    printf("cannot load the cells: %s\n", L ? lua_tostring(L, -1) : pl_message());
    return 1;
  }
  compile_packing();
  int count = (int)luaL_len(L, -1);
  for (int i = 1; i <= count; i++) {
    lua_geti(L, -1, i);
    lua_getfield(L, -1, "cell");
    lua_getfield(L, -2, "name");
    lua_getfield(L, -2, "compile");
    lua_pushvalue(L, -3);
    lua_call(L, 1, 1);
    compile_cell(lua_tostring(L, -2), *(pl_cell **)luaL_checkudata(L, -1, "perilune.cell"), i - 1);
    lua_pop(L, 4);
  }
  lua_close(L);
  printf("%d texts of %d cells compiled, %d failed, %d spill registers\n", compiled, count, failed, spilled);
  return failed > 0 || spilled > 0;
}
