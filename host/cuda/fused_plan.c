/* Sizes of the blocks of a fused recurrence, and the text that tells its kernels. */
#include "host/cuda/fused_plan.h"

#include "host/cuda/cell_text.h"
#include "host/cuda/nvrtc.h"

enum {
  LANES = 32,
  TILE_BYTES = 32,
  PADDING = 16,
  HEADER = 128,
  ALIGNMENT = 128,
  REGISTERS = 65536,
  REGISTERS_MAX = 255
};

bool pl_fused_clustered(const pl_fused_plan *p) {
  return p->scope == PL_SCOPE_CLUSTER || (p->scope == PL_SCOPE_GRID && p->clustered);
}

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

static unsigned set_of(const bool *has, int count) {
  unsigned set = 0;
  for (int i = 0; i < count; i++) set |= (unsigned)has[i] << i;
  return set;
}

static int count_of(unsigned set) {
  int count = 0;
  for (; set; set &= set - 1) count++;
  return count;
}

static size_t take(size_t *used, int64_t bytes) {
  size_t at = *used;
  *used += (size_t)divide_up(bytes, ALIGNMENT) * ALIGNMENT;
  return at;
}

/* ---- the shared memory of a block ---- */

static void map_forward(const pl_recurrence *q, const pl_fused_variant *v, pl_fused_shape *s) {
  const pl_fused_plan *p = &q->plan;
  int64_t multiplied = (int64_t)pl_dtype_size(q->product), stored = (int64_t)pl_dtype_size(q->storage);
  int64_t extras = v->states_out > 1 ? v->states_out - 1 : 0, items = p->groups * s->columns;
  size_t used = HEADER;
  s->map.h = take(&used, p->scope == PL_SCOPE_GRID ? 0 : 2 * p->rows * (s->padded * multiplied + PADDING));
  s->map.own = p->scope == PL_SCOPE_BLOCK ? s->map.h : take(&used, 2 * p->rows * (s->units * multiplied + PADDING));
  s->map.extra = take(&used, 2 * extras * p->rows * (s->units * stored + PADDING));
  s->map.ring = take(&used, (int64_t)p->ring * pl_cell_inputs(q->cell) * p->rows * s->units * stored);
  s->map.sums = take(&used, p->splits > 1 ? s->warps * items * pl_cell_recurrents(q->cell) * LANES * 4 : 0);
  s->map.weights = take(&used, (int64_t)s->warps * (s->fragments - s->in_registers) * LANES * 16);
  s->map.total = used;
}

/* Gates whose gradient of the input needs a place of its own in shared memory. */
static unsigned others_of(const pl_recurrence *q, const pl_fused_variant *v) {
  unsigned input = set_of(q->cell->has_input, q->cell->gates), fed = set_of(q->cell->has_recurrent, q->cell->gates);
  return v->want_input ? input & ~(q->storage == q->product ? fed : 0) : 0;
}

static void map_backward(const pl_recurrence *q, const pl_fused_variant *v, pl_fused_shape *s) {
  const pl_fused_plan *p = &q->plan;
  int64_t stored = (int64_t)pl_dtype_size(q->storage);
  int64_t others = count_of(others_of(q, v)), items = p->groups * s->columns;
  size_t used = HEADER;
  s->map.gates = take(&used, 2 * p->rows * ((int64_t)s->depth * TILE_BYTES + PADDING));
  s->map.others = take(&used, 2 * others * p->rows * (s->units * stored + PADDING));
  s->map.records = take(&used, (int64_t)p->ring * s->records * s->record_words * LANES * 4);
  s->map.ring = take(&used, (int64_t)p->ring * v->given * p->rows * s->units * stored);
  int64_t row_tiles = divide_up(p->rows, 8);
  s->map.slots = take(&used, pl_fused_clustered(p) ? 2 * p->parts * row_tiles * (s->units / 8) * LANES * 8 : 0);
  s->map.sums = take(&used, p->scope == PL_SCOPE_GRID && !p->clustered ? s->warps * items * LANES * 4 : 0);
  s->map.weights = take(&used, (int64_t)s->warps * (s->fragments - s->in_registers) * LANES * 16);
  s->map.total = used;
}

static void map_shared(const pl_recurrence *q, const pl_fused_variant *v, pl_fused_shape *s) {
  if (v->backward)
    map_backward(q, v, s);
  else
    map_forward(q, v, s);
}

/* ---- the shape ---- */

static pl_status check_plan(const pl_recurrence *q) {
  const pl_fused_plan *p = &q->plan;
  PL_REQUIRE(q->type == PL_F32, "plan: a fused recurrence computes in float32, got %s", pl_dtype_name(q->type));
  PL_REQUIRE(q->dim % 8 == 0, "plan: head_dim: expected a multiple of 8, got %lld", (long long)q->dim);
  bool grid = p->scope == PL_SCOPE_GRID, cluster = p->scope == PL_SCOPE_CLUSTER;
  PL_REQUIRE(p->rows == 4 || p->rows == 8 || (grid && p->rows == 16),
             "plan: rows: expected 4, 8 or, in the grid scope, 16, got %d", p->rows);
  PL_REQUIRE(grid || cluster || p->blocks == 1, "plan: blocks: expected 1 in the block scope, got %d", p->blocks);
  PL_REQUIRE(!cluster || p->blocks == 2 || p->blocks == 4 || p->blocks == 8 || p->blocks == 16,
             "plan: blocks: expected 2, 4, 8 or 16 in a cluster, got %d", p->blocks);
  PL_REQUIRE(!grid || (p->blocks >= 2 && p->blocks % 2 == 0),
             "plan: blocks: expected an even number in the grid scope, got %d", p->blocks);
  PL_REQUIRE(p->parts >= 1 && p->blocks % p->parts == 0 && (grid || p->parts == p->blocks),
             "plan: parts: expected a divisor of %d blocks, in the other scopes all of them, got %d", p->blocks,
             p->parts);
  PL_REQUIRE(!grid || (p->parts > 1 && p->parts % 2 == 0),
             "plan: parts: expected an even number in the grid scope, got %d", p->parts);
  PL_REQUIRE(p->groups >= 1 && p->groups <= 8, "plan: groups: expected 1 to 8, got %d", p->groups);
  PL_REQUIRE(p->splits >= 1 && (grid || p->groups * (p->rows / 4) % p->splits == 0),
             "plan: splits: expected a divisor of groups %d times %d columns, got %d", p->groups, p->rows / 4,
             p->splits);
  PL_REQUIRE(!grid || p->splits > 1, "plan: splits: expected at least 2 in the grid scope, got %d", p->splits);
  for (int way = 0; way < 2; way++) {
    PL_REQUIRE(p->writers[way] >= 0 && p->writers[way] <= 8, "plan: writers: expected 0 to 8, got %d", p->writers[way]);
    PL_REQUIRE(p->registers[way] >= -1 && p->registers[way] <= 64, "plan: registers: expected -1 to 64, got %d",
               p->registers[way]);
  }
  PL_REQUIRE(p->ring == 4 || p->ring == 8, "plan: ring: expected 4 or 8, got %d", p->ring);
  PL_REQUIRE(p->resident >= 1 && p->resident <= 4, "plan: resident: expected 1 to 4, got %d", p->resident);
  PL_REQUIRE(grid || cluster || (p->groups == 2 && p->splits == 1),
             "plan: in one block, a team is a warp of 2 groups of units; got %d warps and %d groups", p->splits,
             p->groups);
  return PL_OK;
}

/* Words of the gradients of the gates that R feeds, of one row. */
static int recurrents_words(const pl_recurrence *q, const pl_fused_shape *s) {
  return pl_cell_recurrents(q->cell) * s->units * (int)pl_dtype_size(q->product) / 4;
}

/* Registers of a thread beside the fragments of R, about: what the compiler was seen to need for the cells of
 * tests/recurrence/zoo.lua. Where that is too few, the kernel is compiled again with less of R in them. */
static int other_registers(const pl_recurrence *q, const pl_fused_variant *v, const pl_fused_shape *s) {
  const pl_cell *cell = q->cell;
  const pl_fused_plan *p = &q->plan;
  int row_tiles = (int)divide_up(p->rows, 8);
  int sums = row_tiles * 4 * s->tiles * (s->tiles >= 4 ? 1 : s->tiles >= 2 ? 2 : 4), values = s->record_words;
  if (v->backward)
    values += s->elements * (3 * cell->states + 2 + cell->gates);
  else
    values += s->elements * (cell->gates + cell->states + 2);
  if (pl_dtype_size(q->storage) == 4) values += s->elements * (v->backward ? v->given : pl_cell_inputs(cell));
  bool narrow = pl_dtype_size(q->product) == 2;
  if (p->scope == PL_SCOPE_GRID && !v->backward) values += 4 * s->depth * row_tiles + 8;
  if (p->scope == PL_SCOPE_GRID && !v->backward && narrow)
    values += 6 + s->depth * s->depth * row_tiles / 8 + (row_tiles - 1) * 3 * p->groups;
  if (p->scope == PL_SCOPE_GRID && v->backward) values += (row_tiles - 1) * 8;
  int gathered = p->blocks / p->parts * recurrents_words(q, s) * p->rows / (s->warps * LANES * 2);
  if (p->scope == PL_SCOPE_GRID && v->backward && narrow) values += 4 + gathered * s->depth / 16;
  if (p->scope == PL_SCOPE_GRID && v->backward)
    values += 4 * p->groups * row_tiles * (int)divide_up(p->parts, s->warps) + 8;
  if (p->scope == PL_SCOPE_GRID) values += (s->depth >= 16 ? 16 : 8) + 2 * p->groups;
  return 44 + sums + values + (q->product == PL_F32 ? 64 : 0);
}

/* What one thread can have: warps are spread over the four parts of a multiprocessor. */
static int even_share(int64_t warps) {
  enum { PARTS = 4 };
  int64_t each = REGISTERS / PARTS / LANES / divide_up(warps, PARTS) / 8 * 8;
  return each > REGISTERS_MAX ? REGISTERS_MAX : (int)each;
}

/* From sm_90 on, four warps that move data can leave registers to those that multiply; 0: they do not, since all have
 * enough, or warps are not in fours. */
static int more_registers(const pl_recurrence *q, const pl_fused_variant *v, const pl_fused_shape *s) {
  enum { FOUR = 4 };
  int64_t warps = s->threads / LANES;
  if (q->plan.writers[v->backward] != FOUR || s->warps % FOUR || q->plan.resident != 1 || warps <= 2 * FOUR) return 0;
  int64_t all = even_share(warps) * warps; /* what the block has from its start; waiting for more never ends */
  int64_t each = (all - FOUR * PL_FUSED_WRITER_REGISTERS) / s->warps / 8 * 8;
  if (each > REGISTERS_MAX / 8 * 8) each = REGISTERS_MAX / 8 * 8;
  return each > even_share(warps) ? (int)each : 0;
}

static void place_fragments(const pl_recurrence *q, const pl_fused_variant *v, pl_fused_shape *s) {
  int each = s->more_registers ? s->more_registers : even_share((int64_t)s->threads / LANES * q->plan.resident);
  int room = (each - other_registers(q, v, s)) / 4, asked = q->plan.registers[v->backward];
  if (asked >= 0) room = asked;
  s->in_registers = room < 0 ? 0 : room < s->fragments ? room : s->fragments;
}

/* What the blocks of a group send each other in two steps, as kernels/exchange.cuh lays it out. */
static int64_t slots_bytes(const pl_recurrence *q, const pl_fused_variant *v, const pl_fused_shape *s) {
  const pl_fused_plan *p = &q->plan;
  int64_t row_tiles = divide_up(p->rows, 8), lines = p->rows < 8 ? p->rows : 8;
  if (!v->backward) return 2 * s->padded * (int64_t)pl_dtype_size(q->product) / TILE_BYTES * row_tiles * lines * 64;
  int64_t words = s->units * (int64_t)pl_dtype_size(q->product) / 4, gates = pl_cell_recurrents(q->cell);
  int64_t gathered = p->blocks > p->parts ? p->blocks * gates * words / 2 * p->rows * 16 : 0;
  bool paired = q->product == PL_BF16 && p->groups % 2 == 0 && p->parts * s->units / 8 / s->warps % 2 == 0;
  int64_t pieces = (paired ? p->groups / 2 : p->groups) * row_tiles;
  int64_t added = p->clustered ? 0 : p->blocks * pieces * p->parts * LANES * 16;
  return 2 * (gathered + added);
}

pl_status pl_fused_shape_of(const pl_recurrence *q, const pl_fused_variant *v, pl_fused_shape *s) {
  const pl_fused_plan *p = &q->plan;
  const pl_cell *cell = q->cell;
  PL_TRY(check_plan(q));
  int stored = (int)pl_dtype_size(q->storage), multiplied = (int)pl_dtype_size(q->product);
  bool grid = p->scope == PL_SCOPE_GRID;
  int recurrents = pl_cell_recurrents(cell), per_team = 8 * p->groups;
  int unit = grid ? per_team * p->blocks : 16 * p->blocks;
  *s = (pl_fused_shape){.padded = (int)divide_up(q->dim, unit) * unit, .columns = p->rows / 4};
  s->units = s->padded / p->blocks;
  PL_REQUIRE(s->units % per_team == 0, "plan: groups: %d units of a block do not divide into teams of %d", s->units,
             per_team);
  s->warps = s->units / per_team * p->splits;
  s->threads = (s->warps + p->writers[v->backward]) * LANES;
  PL_REQUIRE(s->threads <= 1024, "plan: %d threads in a block; at most 1024 are there", s->threads);
  PL_REQUIRE(s->warps / p->splits < 16 || p->splits == 1, "plan: %d teams of warps; at most 15 can meet",
             s->warps / p->splits);
  PL_REQUIRE(!grid || s->warps == p->splits,
             "plan: groups: in the grid scope a block's %d units are one team's, got %d", s->units, per_team);
  int along = s->padded * multiplied / TILE_BYTES;
  PL_REQUIRE(s->padded * multiplied % TILE_BYTES == 0 && along % p->splits == 0,
             "plan: splits: %d warps cannot share sums over %d tiles", p->splits, along);
  int items = p->groups * s->columns;
  s->elements = (int)divide_up(items, p->splits);
  s->records = s->warps / p->splits * (items > p->splits ? p->splits : items);
  if (p->splits == 1) s->records = s->warps;
  if (!v->backward) {
    s->tiles = (recurrents * p->groups + 1) / 2;
    s->depth = recurrents ? along / p->splits : 0;
  } else {
    int eights = p->parts * s->units / 8;
    PL_REQUIRE(eights % s->warps == 0, "plan: parts: %d warps cannot share %d times 8 units backward", s->warps,
               eights);
    s->tiles = recurrents ? (eights / s->warps + 1) / 2 : 0;
    s->depth = (int)divide_up(recurrents * s->units * (p->blocks / p->parts) * multiplied, TILE_BYTES);
  }
  s->fragments = s->tiles * s->depth;
  int saved = cell->saves + count_of(pl_cell_kept(cell));
  s->record_words = (saved * s->elements * stored + 3) / 4;
  s->total_parts = p->splits > 1 ? s->columns : 1;
  s->batch_tiles = divide_up(q->batch, p->rows);
  s->blocks = s->batch_tiles * q->heads * p->blocks;
  unsigned fed = set_of(cell->has_recurrent, cell->gates), input = set_of(cell->has_input, cell->gates);
  s->extra = v->want_recurrent ? fed & ~(v->want_input && q->storage == q->product ? input : 0) : 0;
  s->more_registers = v->own_instructions ? more_registers(q, v, s) : 0;
  place_fragments(q, v, s);
  s->slots_bytes = grid ? slots_bytes(q, v, s) : 0;
  map_shared(q, v, s);
  return PL_OK;
}

bool pl_fused_cut_registers(const pl_recurrence *q, const pl_fused_variant *v, int local_bytes, size_t shared_bytes,
                            pl_fused_shape *s) {
  if (local_bytes == 0 || q->plan.registers[v->backward] >= 0) return false;
  pl_fused_shape less = *s;
  int step = 1 + s->in_registers / 8; /* what spills says little of how many: few attempts, and not too much */
  less.in_registers = step < s->in_registers ? s->in_registers - step : 0;
  for (; less.in_registers < s->in_registers; less.in_registers++) {
    map_shared(q, v, &less);
    if (less.map.total * (size_t)q->plan.resident > shared_bytes) continue;
    *s = less;
    return true;
  }
  return false;
}

pl_status pl_fused_shape_check(const pl_recurrence *q, const pl_fused_shape *s, const pl_fused_limits *limits) {
  PL_REQUIRE(!pl_fused_clustered(&q->plan) || limits->architecture >= 90,
             "plan: scope: clusters of blocks are there from sm_90 on, and this is sm_%d", limits->architecture);
  PL_REQUIRE(s->map.total * (size_t)q->plan.resident <= limits->shared_bytes,
             "plan: %d blocks of a multiprocessor need %zu bytes of shared memory; %zu are there", q->plan.resident,
             s->map.total * (size_t)q->plan.resident, limits->shared_bytes);
  PL_REQUIRE(q->plan.scope != PL_SCOPE_GRID || q->plan.blocks <= limits->multiprocessors * q->plan.resident,
             "plan: blocks: %d blocks must run at once; %d multiprocessors are there", q->plan.blocks,
             limits->multiprocessors);
  PL_REQUIRE(s->blocks <= INT32_MAX, "plan: %lld blocks are more than a launch takes", (long long)s->blocks);
  return PL_OK;
}

/* ---- the text ---- */

static void print_map(const pl_fused_shape *s, pl_text *text) {
  const pl_fused_map *m = &s->map;
  pl_text_print(text, "enum { AT_H = %zu, AT_OWN = %zu, AT_EXTRA = %zu, AT_RING = %zu, AT_SUMS = %zu,\n", m->h, m->own,
                m->extra, m->ring, m->sums);
  pl_text_print(text, "       AT_WEIGHTS = %zu, AT_GATES = %zu, AT_OTHERS = %zu, AT_RECORDS = %zu, AT_SLOTS = %zu };\n",
                m->weights, m->gates, m->others, m->records, m->slots);
}

static int product_of(const pl_recurrence *q) {
  enum { F16, BF16, TF32, F32 };
  return q->product == PL_F16 ? F16 : q->product == PL_BF16 ? BF16 : pl_tf32_allowed() ? TF32 : F32;
}

pl_status pl_fused_text(const pl_recurrence *q, const pl_fused_variant *v, const pl_fused_shape *s, pl_text *text) {
#define QUOTED(...)   #__VA_ARGS__
#define EXPANDED(...) QUOTED(__VA_ARGS__)
  static const char *const names[PL_DTYPES] = {[PL_F16] = "f16", [PL_BF16] = "bf16", [PL_F32] = "float"};
  const pl_fused_plan *p = &q->plan;
  pl_text_print(text, "enum { PL_F16 = %d, PL_BF16 = %d, PL_F32 = %d, PL_F64 = %d };\n", PL_F16, PL_BF16, PL_F32,
                PL_F64);
  pl_text_print(text, "enum { PL_STATES_MAX = %d, PL_PARAMS_MAX = %d };\n", PL_STATES_MAX, PL_PARAMS_MAX);
  pl_text_print(text, "#define PRODUCT_F16 0\n#define PRODUCT_BF16 1\n#define PRODUCT_TF32 2\n#define PRODUCT_F32 3\n");
  pl_text_print(text, "#define PRODUCT %d\n#define SCOPE_BLOCK 0\n#define SCOPE_CLUSTER 1\n#define SCOPE_GRID 2\n",
                product_of(q));
  pl_text_print(text,
                "#define SCOPE %d\n#define BLOCKS %d\n#define PARTS %d\n#define GATHERS %d\n#define CLUSTERED %d\n",
                p->scope, p->blocks, p->parts, p->blocks / p->parts, pl_fused_clustered(p));
  pl_text_print(text, "#define MORE_REGISTERS %d\n#define WRITER_REGISTERS %d\n", s->more_registers,
                PL_FUSED_WRITER_REGISTERS);
  pl_text_print(text, "typedef float T;\n");
  PL_TRY(pl_kernel_source("fused_base.cuh", text));
  pl_text_print(text, "\ntypedef %s S;\ntypedef %s P;\n", names[q->storage], names[q->product]);
  pl_text_print(text, "%s\n%s\n", EXPANDED(PL_RECURRENCE_ARGUMENTS), EXPANDED(PL_FUSED_ARGUMENTS));
  if (pl_dtype_size(q->product) == 2 && pl_dtype_size(q->storage) == 2)
    pl_cell_text_approximate(q->cell, text);
  else
    pl_cell_text(q->cell, text);
  pl_text_print(text, "enum { KEPT_COUNT = %d, LAYOUT_BACKWARD = %d, SAME_TYPES = %d, LENGTHS = %d,\n",
                count_of(pl_cell_kept(q->cell)), v->backward, q->storage == q->product, v->lengths);
  pl_text_print(text, "       DIM = %lld, PADDED = %d, UNITS = %d, ROWS = %d, GROUPS = %d, SPLITS = %d,\n",
                (long long)q->dim, s->padded, s->units, p->rows, p->groups, p->splits);
  pl_text_print(text, "       WARPS = %d, WRITERS = %d, RING = %d, IN_REGISTERS = %d, BLOCKS_PER_PROCESSOR = %d,\n",
                s->warps, p->writers[v->backward], p->ring, s->in_registers, p->resident);
  if (v->backward)
    pl_text_print(text,
                  "       GIVEN = %d, WANT_INPUT = %d, EXTRA = %u, TO_INITIAL = %d, THROUGH = %d, CLIP = %d,\n"
                  "       OTHERS = %d, EXTRAS = %d, TOTAL_PARTS = %d };\n",
                  v->given, v->want_input, s->extra, v->want_initial, v->through, v->clip, count_of(others_of(q, v)),
                  count_of(s->extra), s->total_parts);
  else
    pl_text_print(text, "       REMEMBER = %d, STATES_OUT = %d };\n", v->remember, v->states_out);
  print_map(s, text);
  return PL_OK;
}
