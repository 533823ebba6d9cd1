/* Compiles the kernels of the recurrence for every cell of tests/recurrence/zoo.lua (the four built-in ones and others
 * with params, constants and choices), every type and every source of the product, for every cell with its h clamped,
 * and for the LSTM with tf32, for all architectures that the program supports. Needs NVRTC and no GPU; exits with 77
 * without NVRTC. */
#include "host/cuda/recurrence_plan.h"
#include "tests/cuda/texts.h"

static const int architectures[] = {80, 86, 89, 90, 100, 120};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };
static const char *const files[] = {"recurrence_forward.cu", "recurrence_backward.cu"};
enum { COMPILED, FAILED, SPILLED, COUNTS };
static int counts[COUNTS];

/* Of a text with its sizes: all of the problem that generated text depends on. */
typedef struct {
  pl_dtype type, storage, product;
  int64_t batch, dim;
} problem;

/* Between them: every type of storage and product, both sources of the product, one and two tiles of rows. */
static const problem problems[] = {
    {PL_F32, PL_BF16, PL_BF16, 16, 64},  {PL_F32, PL_F32, PL_F16, 64, 100},    {PL_F32, PL_F16, PL_F16, 3, 768},
    {PL_F32, PL_BF16, PL_BF16, 64, 256}, {PL_F32, PL_BF16, PL_BF16, 1024, 64}, {PL_F32, PL_F32, PL_F32, 16, 64},
    {PL_F64, PL_F64, PL_F64, 16, 64},    {PL_F32, PL_F32, PL_F32, 1024, 64},
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

/* Some plans spill a word or a few (4 to 28 bytes seen, the most on sm_100 and sm_120); more is a defect. */
enum { SPILL_BYTES_MAX = 28 };

static void compile_for(const char *name, const char *file, const pl_text *before, int architecture) {
  pl_text source = {0}, cubin = {0}, log = {0};
  pl_text_print(&source, "%s", before->data);
  pl_status status = pl_kernel_source(file, &source);
  if (status == PL_OK) status = pl_nvrtc_compile(file, source.data, "--ptxas-options=-v", architecture, &cubin, &log);
  counts[COMPILED]++;
  if (status != PL_OK) {
    counts[FAILED]++;
    printf("%s, %s for sm_%d: %s\n", name, file, architecture, pl_message());
  } else if (texts_largest(log.data, " bytes spill stores") > SPILL_BYTES_MAX)
    counts[SPILLED]++, printf("%s, %s for sm_%d spills registers:\n%s\n", name, file, architecture, log.data);
  pl_text_release(&source);
  pl_text_release(&cubin);
  pl_text_release(&log);
}

static void compile(const char *name, const char *file, const pl_text *before) {
  for (int a = 0; a < ARCHITECTURES; a += pl_tf32_allowed() ? 3 : 1) /* tf32 for sm_80 and sm_90 alone */
    if (share_mine()) compile_for(name, file, before, architectures[a]);
}

static void compile_cell(const char *name, const pl_cell *cell, const problem *p) {
  for (int backward = 0; backward < 2; backward++) {
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
    compile(name, files[backward], &text);
    pl_text_release(&text);
  }
}

/* With tf32 allowed the step's own product of float32 is another text; what is around it differs in nothing. */
static void compile_in_tf32(const char *name, const pl_cell *cell) {
  pl_tf32_allow(true);
  for (int k = 0; k < PROBLEMS; k++)
    if (problems[k].product == PL_F32) compile_cell(name, cell, &problems[k]);
  pl_tf32_allow(false);
}

static void compile_packing(void) {
  for (int i = 0; i < PROBLEMS; i++) {
    pl_recurrence q = {.type = problems[i].type, .storage = problems[i].storage, .product = problems[i].product};
    pl_text text = {0};
    if (pl_pack_text(&q, &text) != PL_OK) exit(1);
    compile("packing", "recurrence_pack.cu", &text);
    pl_text_release(&text);
  }
}

/* The cell of the zoo's entry on top of the stack, with h clamped or as it is. */
static const pl_cell *cell_of(lua_State *L, bool clamped) {
  lua_getfield(L, -1, "cell");
  lua_getfield(L, -1, "compile");
  lua_insert(L, -2);
  lua_createtable(L, 0, 1);
  if (clamped) lua_pushnumber(L, 0.5), lua_setfield(L, -2, "forward_clip");
  lua_call(L, 2, 1);
  const pl_cell *cell = *(pl_cell **)luaL_checkudata(L, -1, "perilune.cell");
  lua_pop(L, 1); /* the zoo's cell keeps it */
  return cell;
}

int main(void) {
  lua_State *L = texts_begin("return (require 'tests.recurrence.zoo')");
  compile_packing();
  int cells = (int)luaL_len(L, -1);
  for (int i = 1; i <= cells; i++) {
    lua_geti(L, -1, i);
    lua_getfield(L, -1, "name");
    const char *name = lua_tostring(L, -1);
    lua_pop(L, 1); /* a field of the zoo's */
    for (int k = 0; k < PROBLEMS; k++) compile_cell(name, cell_of(L, false), &problems[k]);
    compile_cell(name, cell_of(L, true), &problems[0]);
    if (strcmp(name, "lstm") == 0) compile_in_tf32(name, cell_of(L, false));
    lua_pop(L, 1);
  }
  lua_close(L);
  share_end(counts, COUNTS);
  printf("%d texts of %d cells compiled, %d failed, %d spill registers\n", counts[COMPILED], cells, counts[FAILED],
         counts[SPILLED]);
  return counts[FAILED] > 0 || counts[SPILLED] > 0;
}
