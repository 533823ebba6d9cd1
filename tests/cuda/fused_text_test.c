/* Plans fused recurrences of the four built-in cells and six of tests/recurrence/zoo.lua for one chip of each
 * architecture, and compiles their kernels: what fits must compile, keep to the chip's memory and, in bfloat16, spill
 * no register; what is refused must be large. Every day a sample that has every pair of architecture and size;
 * everything with PERILUNE_FULL set, or all of one chip when it holds that one's name. Needs NVRTC and no GPU; exits
 * with 77 without NVRTC. */
#include "host/bind/cell.h"
#include "host/cuda/cuda.h"
#include "host/cuda/fused_plan.h"
#include "tests/cuda/texts.h"

enum { CELLS = 10 };
/* What becomes of a case; WRONG is counted besides. Where a cell has no recurrent weights there is nothing to pack. */
enum { COMPILED, CUT_AGAIN, REFUSED, NOTHING_TO_PACK, WRONG, COUNTS };
static int counts[COUNTS];

/* One chip of each architecture: its name, and what lua/perilune/rnn/chips.lua says of it. */
static struct {
  const char *name;
  pl_fused_chip chip;
} chips[] = {{.name = "A100"}, {.name = "RTX 3090"}, {.name = "RTX 4090"},
             {.name = "H200"}, {.name = "B200"},     {.name = "RTX 5090"}};
static const int sizes[] = {16, 32, 64, 128, 256, 512, 768, 1024, 2048};
static const struct {
  pl_dtype storage, product;
} types[] = {{PL_BF16, PL_BF16}, {PL_F32, PL_F32}, {PL_F16, PL_F16}, {PL_F32, PL_BF16}};
static const int batches[] = {16, 1, 64};

/* The kernels of one plan. */
static const struct {
  const char *name, *file;
  bool backward, remember;
} kernels[] = {
    {"training", "fused_forward.cu", false, true},       {"backward", "fused_backward.cu", true, false},
    {"inference", "fused_forward.cu", false, false},     {"pack", "fused_pack.cu", false, false},
    {"pack for backward", "fused_pack.cu", true, false},
};

#define COUNT(list) (int)(sizeof(list) / sizeof *(list))

/* A case by its places in the lists above. */
typedef struct {
  int chip, size, cell, type, batch, kernel;
} place;

/* plan(cell, chip's name, batch, head_dim, dtype, product) -> compiled cell, name, plan or nil, why not */
static const char PLANNER[] =
    "local zoo, fused = require 'tests.recurrence.zoo', require 'perilune.rnn.fused'\n"
    "local named = require 'perilune.rnn.chips'.named\n"
    "local cells = {}\n"
    "for _, i in ipairs { 1, 2, 3, 4, 5, 6, 7, 8, 10, 11 } do cells[#cells + 1] = zoo[i].cell end\n"
    "return function(i, chip, batch, head_dim, dtype, product)\n"
    "  local found, why_not = fused.choose(\n"
    "    { cell = cells[i], batch = batch, heads = 2, head_dim = head_dim, dtype = dtype, product = product },\n"
    "    named(chip))\n"
    "  return cells[i]:compile(), cells[i].name, found and found.arguments, why_not\n"
    "end\n";

static void print_case(const place *c, const char *cell, const pl_fused_plan *p) {
  printf("%s of %s, D=%d, B=%d, %s products of %s on %s", kernels[c->kernel].name, cell, sizes[c->size],
         batches[c->batch], pl_dtype_name(types[c->type].product), pl_dtype_name(types[c->type].storage),
         chips[c->chip].name);
  if (p)
    printf(" (scope %d, %d blocks, rows %d, groups %d, splits %d)", (int)p->scope, p->blocks, p->rows, p->groups,
           p->splits);
}

/* Whether what ptxas says of a kernel keeps to the plan; prints what does not. */
static bool keeps(const place *c, const char *cell, const pl_recurrence *q, const pl_fused_shape *shape,
                  const char *log) {
  const pl_fused_chip *chip = &chips[c->chip].chip;
  bool main = strcmp(kernels[c->kernel].file, "fused_pack.cu") != 0;
  long registers = texts_largest(log, " registers"), spilled = texts_largest(log, " bytes spill stores");
  long held = texts_largest(log, " bytes smem") + (main ? (long)shape->map.total : 0);
  bool exact = q->storage == PL_BF16 && q->product == PL_BF16;
  bool fits = (!main || registers * shape->threads * q->plan.resident <= 65536) && held <= chip->shared_bytes;
  if (fits && (!exact || spilled == 0)) return true;
  print_case(c, cell, &q->plan);
  printf(": %ld bytes spilled; %ld registers of %d threads, %d of %d fragments of R in registers, %ld bytes shared\n",
         spilled, registers, shape->threads, shape->in_registers, shape->fragments, held);
  return false;
}

static pl_status compile_shape(const place *c, const pl_recurrence *q, const pl_fused_variant *variant,
                               const pl_fused_shape *shape, pl_text *log) {
  pl_text source = {0}, cubin = {0};
  pl_status status = pl_fused_text(q, variant, shape, &source);
  if (status == PL_OK) status = pl_kernel_source(kernels[c->kernel].file, &source);
  if (status == PL_OK)
    status = pl_nvrtc_compile(kernels[c->kernel].file, source.data, "--ptxas-options=-v",
                              chips[c->chip].chip.architecture, &cubin, log);
  pl_text_release(&source);
  pl_text_release(&cubin);
  return status;
}

static pl_status compile(const place *c, const pl_recurrence *q, pl_fused_shape *shape, pl_text *log) {
  bool backward = kernels[c->kernel].backward, recurrent = pl_cell_recurrents(q->cell) > 0;
  pl_fused_variant variant = {.backward = backward,
                              .own_instructions = chips[c->chip].chip.architecture >= 90,
                              .lengths = c->kernel % 2 == c->size % 2,
                              .remember = kernels[c->kernel].remember,
                              .states_out = backward                      ? 0
                                            : kernels[c->kernel].remember ? q->cell->states
                                                                          : 1};
  if (backward) {
    variant.given = c->size % 2 ? q->cell->states : 1;
    variant.want_input = variant.want_initial = true;
    variant.want_recurrent = variant.through = recurrent;
    variant.clip = recurrent && c->cell % 3 == 0;
  }
  PL_TRY(pl_fused_shape_of(q, &variant, shape));
  PL_TRY(compile_shape(c, q, &variant, shape, log));
  /* As host/cuda/fused.c goes on. */
  bool main = strcmp(kernels[c->kernel].file, "fused_pack.cu") != 0;
  size_t shared_bytes = (size_t)chips[c->chip].chip.shared_bytes;
  long local_bytes = texts_largest(log->data, " bytes stack frame"), least = local_bytes;
  pl_fused_shape best = *shape;
  for (int cut = 0;
       main && cut < PL_FUSED_CUTS_MAX && pl_fused_cut_registers(q, &variant, (int)local_bytes, shared_bytes, shape);
       cut++) {
    counts[CUT_AGAIN]++;
    pl_text_release(log);
    PL_TRY(compile_shape(c, q, &variant, shape, log));
    local_bytes = texts_largest(log->data, " bytes stack frame");
    if (local_bytes < least) best = *shape, least = local_bytes;
  }
  if (local_bytes > least) {
    *shape = best;
    pl_text_release(log);
    PL_TRY(compile_shape(c, q, &variant, shape, log));
  }
  return PL_OK;
}

/* R of two heads at least half as large as all shared memory of the chip: what is smaller has no reason to be refused.
 */
static bool is_large(const place *c, const pl_cell *cell) {
  const pl_fused_chip *chip = &chips[c->chip].chip;
  int64_t size = sizes[c->size];
  int64_t bytes = pl_cell_recurrents(cell) * size * size * (int64_t)pl_dtype_size(types[c->type].product);
  return 2 * bytes >= chip->multiprocessors * chip->shared_bytes || pl_cell_recurrents(cell) == 0;
}

/* The function PLANNER returned is on top of the stack. */
static void try_case(lua_State *L, const place *c) {
  int top = lua_gettop(L);
  lua_pushvalue(L, top);
  lua_pushinteger(L, c->cell + 1);
  lua_pushstring(L, chips[c->chip].name);
  lua_pushinteger(L, batches[c->batch]);
  lua_pushinteger(L, sizes[c->size]);
  lua_pushstring(L, pl_dtype_name(types[c->type].storage));
  lua_pushstring(L, pl_dtype_name(types[c->type].product));
  if (lua_pcall(L, 6, 4, 0) != LUA_OK) {
    printf("the planner failed: %s\n", lua_tostring(L, -1));
    exit(1);
  }
  pl_recurrence q = {.cell = pl_check_cell(L, top + 1),
                     .batch = batches[c->batch],
                     .steps = 4,
                     .heads = 2,
                     .dim = sizes[c->size],
                     .type = PL_F32,
                     .storage = types[c->type].storage,
                     .product = types[c->type].product};
  const char *name = lua_tostring(L, top + 2);
  bool packs_nothing = pl_cell_recurrents(q.cell) == 0 && strcmp(kernels[c->kernel].file, "fused_pack.cu") == 0;
  if (lua_isnil(L, top + 3)) {
    counts[REFUSED]++;
    if (!is_large(c, q.cell)) {
      counts[WRONG]++;
      print_case(c, name, NULL);
      printf(" was refused: it %s\n", lua_tostring(L, top + 4));
    }
  } else if (packs_nothing) {
    counts[NOTHING_TO_PACK]++;
  } else {
    pl_fused_shape shape;
    pl_text log = {0};
    pl_read_fused_plan(L, top + 3, &q.plan);
    counts[COMPILED]++;
    if (compile(c, &q, &shape, &log) != PL_OK) {
      counts[WRONG]++;
      print_case(c, name, &q.plan);
      printf(": %s\n", pl_message());
    } else if (!keeps(c, name, &q, &shape, log.data))
      counts[WRONG]++;
    pl_text_release(&log);
  }
  lua_settop(L, top);
  fflush(stdout);
}

static void read_chips(lua_State *L) {
  for (int i = 0; i < COUNT(chips); i++) {
    if (luaL_loadstring(L, "return require 'perilune.rnn.chips'.named(...)") != LUA_OK) exit(1);
    lua_pushstring(L, chips[i].name);
    lua_call(L, 1, 1);
    chips[i].chip = pl_read_fused_chip(L, lua_gettop(L));
    lua_pop(L, 1);
  }
}

/* Case `number` of everything; false past the last. */
static bool full_case(int number, place *c) {
  int *const field[] = {&c->kernel, &c->batch, &c->type, &c->cell, &c->size, &c->chip};
  const int count[] = {COUNT(kernels), COUNT(batches), COUNT(types), CELLS, COUNT(sizes), COUNT(chips)};
  for (int i = 0; i < COUNT(count); i++) {
    *field[i] = number % count[i];
    number /= count[i];
  }
  return number == 0;
}

/* Of everything, on all chips or the one whose name PERILUNE_FULL holds, what is tried: bfloat16 with all batches,
 * other types and packing with one. */
static bool is_wanted(const place *c) {
  const char *full = getenv("PERILUNE_FULL");
  for (int i = 0; full && i < COUNT(chips); i++)
    if (strcmp(full, chips[i].name) == 0 && i != c->chip) return false;
  return !full || c->batch == 0 || (c->type == 0 && strcmp(kernels[c->kernel].file, "fused_pack.cu") != 0);
}

/* Of the sample: every pair of chip and size, everything else in turn. */
static bool sample_case(int number, place *c) {
  static const int type[] = {0, 0, 1, 0, 0, 2, 0, 3}, kernel[] = {0, 1, 0, 1, 2, 1, 3, 0, 1, 4};
  if (number >= COUNT(chips) * COUNT(sizes)) return false;
  c->chip = number % COUNT(chips);
  c->size = number / COUNT(chips);
  c->cell = (number * 3 + number / COUNT(chips)) % CELLS;
  c->type = type[number % COUNT(type)];
  c->kernel = kernel[(number + number / 10) % COUNT(kernel)];
  c->batch = (number + number / COUNT(chips)) % COUNT(batches);
  return true;
}

int main(void) {
  bool (*next)(int number, place *c) = getenv("PERILUNE_FULL") ? full_case : sample_case;
  place c;
  pl_cuda_open();
  lua_State *L = texts_begin(PLANNER);
  read_chips(L);
  for (int number = 0; next(number, &c); number++)
    if (is_wanted(&c) && share_mine()) try_case(L, &c);
  lua_close(L);
  share_end(counts, COUNTS);
  printf("%d kernels compiled, %d of them again since they spilled, %d plans refused, %d wrong\n", counts[COMPILED],
         counts[CUT_AGAIN], counts[REFUSED], counts[WRONG]);
  bool every_case = counts[COMPILED] + counts[REFUSED] + counts[NOTHING_TO_PACK] == share_jobs;
  return counts[WRONG] > 0 || counts[COMPILED] == 0 || !every_case;
}
