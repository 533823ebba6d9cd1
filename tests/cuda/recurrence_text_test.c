/* Cuts the steps of recurrences as lua/perilune/rnn/steps.lua does for an H200, and compiles their kernels for every
 * cell of tests/recurrence/zoo.lua, every type and every source of the product, for every cell with its h clamped, and
 * for the LSTM with tf32: for all architectures that the program supports, for cells that are not built in every other
 * one in turn, and for those of the zoo that add no feature of their own one in turn. Cuts for many more sizes must be
 * such that C takes them. Needs NVRTC and no GPU; exits with 77 without NVRTC. */
#include "host/bind/cell.h"
#include "host/cuda/recurrence_plan.h"
#include "tests/cuda/texts.h"

static const int architectures[] = {80, 86, 89, 90, 100, 120};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };
static const char *const files[] = {"recurrence_forward.cu", "recurrence_backward.cu"};
enum { COMPILED, FAILED, SPILLED, CUT, INSIDE, COUNTS };
static int counts[COUNTS];

typedef struct {
  pl_dtype type, storage, product;
  int64_t batch, dim, heads;
} problem;

/* Between them: every type of storage and product, both sources of the product, and cuts of all kinds, but one that
 * spills: float32 in 16 warps of 2 x 2 tiles, backward (64 bytes and more, up to 272 seen). On one H200 it is the
 * quickest for 64 rows of 1 x 768 all the same. */
static const problem problems[] = {
    {PL_F32, PL_BF16, PL_BF16, 16, 64, 2},  {PL_F32, PL_F32, PL_F16, 64, 100, 2},
    {PL_F32, PL_F16, PL_F16, 3, 768, 2},    {PL_F32, PL_BF16, PL_BF16, 64, 256, 2},
    {PL_F32, PL_BF16, PL_BF16, 64, 768, 1}, {PL_F32, PL_BF16, PL_BF16, 1024, 64, 16},
    {PL_F32, PL_F32, PL_F32, 16, 64, 2},    {PL_F64, PL_F64, PL_F64, 16, 64, 2},
    {PL_F32, PL_F32, PL_F32, 1024, 64, 16},
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

/* Some plans spill a word or a few (4 to 28 bytes seen, the most on sm_100 and sm_120); more is a defect, but for cells
 * that have more gates than registers hold with their params and gradients (12 gates: 40 to 88 bytes seen). */
enum { SPILL_BYTES_MAX = 28, GATES_MANY = 9, SPILL_BYTES_MANY = 96 };

/* Cells of the zoo, from the first: those that are built in, and those between which every feature of cells is. */
enum { BUILT_IN = 4, FEATURED = 14 };

/* Whose kernels are compiled, for the architectures first, first + stride, ..., and how much they may spill. */
typedef struct {
  const char *name;
  int first, stride;
  long spill_bytes_max;
} subject;

static void compile_for(const subject *s, const char *file, const pl_text *before, int architecture) {
  pl_text source = {0}, cubin = {0}, log = {0};
  pl_text_print(&source, "%s", before->data);
  pl_status status = pl_kernel_source(file, &source);
  if (status == PL_OK) status = pl_nvrtc_compile(file, source.data, "--ptxas-options=-v", architecture, &cubin, &log);
  counts[COMPILED]++;
  if (status != PL_OK) {
    counts[FAILED]++;
    printf("%s, %s for sm_%d: %s\n", s->name, file, architecture, pl_message());
  } else if (texts_largest(log.data, " bytes spill stores") > s->spill_bytes_max)
    counts[SPILLED]++, printf("%s, %s for sm_%d spills registers:\n%s\n", s->name, file, architecture, log.data);
  pl_text_release(&source);
  pl_text_release(&cubin);
  pl_text_release(&log);
}

static void compile(const subject *s, const char *file, const pl_text *before) {
  for (int a = s->first; a < ARCHITECTURES; a += s->stride)
    if (share_mine()) compile_for(s, file, before, architectures[a]);
}

/* plan(i, clamped, batch, heads, head_dim, dtype, product) -> the zoo's cell i, compiled, with h clamped or as it is,
 * its name, and the cuts; nothing past the last cell */
static const char PLANNER[] =
    "local zoo, steps = require 'tests.recurrence.zoo', require 'perilune.rnn.steps'\n"
    "return function(i, clamped, batch, heads, head_dim, dtype, product)\n"
    "  if i > #zoo then return end\n"
    "  local cell, forward_clip = zoo[i].cell, clamped and 0.5 or nil\n"
    "  local found = steps.choose({ cell = cell, batch = batch, heads = heads, head_dim = head_dim, dtype = dtype,\n"
    "    product = product, forward_clip = forward_clip }, { multiprocessors = 132 })\n"
    "  return cell:compile { forward_clip = forward_clip }, zoo[i].name, found.arguments\n"
    "end\n";

/* Calls PLANNER's function, which lies at index 1; its results follow. False past the last cell. */
static bool plan(lua_State *L, int cell, bool clamped, const problem *p, pl_recurrence *q) {
  lua_settop(L, 1);
  lua_pushvalue(L, 1);
  lua_pushinteger(L, cell);
  lua_pushboolean(L, clamped);
  lua_pushinteger(L, p->batch);
  lua_pushinteger(L, p->heads);
  lua_pushinteger(L, p->dim);
  lua_pushstring(L, pl_dtype_name(p->storage));
  lua_pushstring(L, pl_dtype_name(p->product));
  if (lua_pcall(L, 7, 3, 0) != LUA_OK) {
    printf("the planner failed: %s\n", lua_tostring(L, -1));
    exit(1);
  }
  if (lua_isnil(L, 2)) return false;
  *q = (pl_recurrence){.cell = pl_check_cell(L, 2),
                       .batch = p->batch,
                       .steps = 4,
                       .heads = p->heads,
                       .dim = p->dim,
                       .type = p->type,
                       .storage = p->storage,
                       .product = p->product};
  pl_read_step_cuts(L, 4, q->step);
  return true;
}

static void shape_of(const char *name, const pl_recurrence *q, bool backward, pl_step_shape *shape) {
  if (pl_step_shape_of(q, backward, shape) == PL_OK) return;
  printf("%s, B=%lld N=%lld D=%lld: %s\n", name, (long long)q->batch, (long long)q->heads, (long long)q->dim,
         pl_message());
  exit(1);
}

static void compile_cell(const subject *s, const pl_recurrence *q) {
  for (int backward = 0; backward < 2; backward++) {
    pl_step_shape shape;
    pl_text text = {0};
    shape_of(s->name, q, backward, &shape);
    if (pl_step_text(q, &shape, &text) != PL_OK) {
      printf("%s: %s\n", s->name, pl_message());
      exit(1);
    }
    compile(s, files[backward], &text);
    pl_text_release(&text);
  }
}

/* With tf32 allowed the step's own product of float32 is another text; what is around it differs in nothing. */
static void compile_in_tf32(lua_State *L, int cell) {
  static const subject lstm = {"lstm", 0, 3, SPILL_BYTES_MAX}; /* for sm_80 and sm_90 alone */
  pl_recurrence q;
  pl_tf32_allow(true);
  for (int k = 0; k < PROBLEMS; k++)
    if (problems[k].product == PL_F32 && plan(L, cell, false, &problems[k], &q)) compile_cell(&lstm, &q);
  pl_tf32_allow(false);
}

static void compile_packing(void) {
  static const subject packing = {"packing", 0, 1, SPILL_BYTES_MAX};
  for (int i = 0; i < PROBLEMS; i++) {
    pl_recurrence q = {.type = problems[i].type, .storage = problems[i].storage, .product = problems[i].product};
    pl_text text = {0};
    if (pl_pack_text(&q, &text) != PL_OK) exit(1);
    compile(&packing, "recurrence_pack.cu", &text);
    pl_text_release(&text);
  }
}

/* Whether C takes what Lua plans: cuts for many sizes, few of them of use. */
static void take_cuts(lua_State *L, int cell) {
  static const int64_t sizes[] = {1, 17, 64, 200, 1024, 3000, 70000};
  enum { SIZES = sizeof sizes / sizeof *sizes };
  for (int i = 0; i < SIZES * SIZES * PROBLEMS; i++) {
    problem p = problems[i % PROBLEMS];
    p.batch = sizes[i / PROBLEMS % SIZES] * (i % 5 ? 1 : 100), p.dim = sizes[i / PROBLEMS / SIZES];
    p.heads = sizes[i * 5 % SIZES];
    pl_recurrence q;
    pl_step_shape shape;
    if (!share_mine() || !plan(L, cell, false, &p, &q)) continue;
    for (int backward = 0; backward < 2; backward++) {
      shape_of(lua_tostring(L, 3), &q, backward, &shape);
      counts[CUT]++;
      counts[INSIDE] += shape.product == PL_PRODUCT_INSIDE;
    }
  }
}

/* Of a cell by its number in the zoo; from one problem to the next the architectures take turns. */
static subject subject_of(const char *name, const pl_recurrence *q, int cell, int turn) {
  int stride = cell <= BUILT_IN ? 1 : cell <= FEATURED ? 2 : ARCHITECTURES;
  long spill = q->cell->gates < GATES_MANY ? SPILL_BYTES_MAX : SPILL_BYTES_MANY;
  return (subject){name, (cell + turn) % stride, stride, spill};
}

int main(void) {
  lua_State *L = texts_begin(PLANNER);
  pl_recurrence q;
  int cell = 0;
  compile_packing();
  while (plan(L, ++cell, true, &problems[0], &q)) {
    char name[64];
    snprintf(name, sizeof name, "%s", lua_tostring(L, 3));
    subject clamped = subject_of(name, &q, cell, 0);
    compile_cell(&clamped, &q);
    for (int k = 0; k < PROBLEMS && plan(L, cell, false, &problems[k], &q); k++) {
      subject s = subject_of(name, &q, cell, k);
      compile_cell(&s, &q);
    }
    if (strcmp(name, "lstm") == 0) compile_in_tf32(L, cell);
    take_cuts(L, cell);
  }
  lua_close(L);
  share_end(counts, COUNTS);
  printf("%d texts of %d cells compiled, %d failed, %d spill registers; %d cuts taken, %d with a product inside\n",
         counts[COMPILED], cell - 1, counts[FAILED], counts[SPILLED], counts[CUT], counts[INSIDE]);
  return counts[FAILED] > 0 || counts[SPILLED] > 0 || counts[CUT] == 0 || counts[INSIDE] == 0;
}
