/* What a cut of the steps comes to, and the generated text in front of the recurrence's kernels. */
#include "host/cuda/cell_text.h"
#include "host/cuda/nvrtc.h"
#include "host/cuda/recurrence_plan.h"

enum { WARPS_MAX = 32, SHARED_BYTES_MAX = 48 << 10, CHUNKS_MAX = 512 };

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* What lua/perilune/rnn/steps.lua keeps to. */
static pl_status check_inside(const pl_recurrence *q, const pl_step_shape *s, const char *way) {
  PL_REQUIRE(q->product != PL_F64, "rnn: %s.product: expected blas for float64, got inside", way);
  PL_REQUIRE(s->warps >= 1 && s->warps <= WARPS_MAX, "rnn: %s.warps: expected 1 to %d, got %d", way, WARPS_MAX,
             s->warps);
  int tiles = s->warps * 32 / (16 * PL_TILE_UNITS); /* whose elements have a thread each */
  PL_REQUIRE(s->unit_tiles >= 1 && s->unit_tiles <= tiles, "rnn: %s.unit_tiles: expected 1 to %d with %d warps, got %d",
             way, tiles, s->warps, s->unit_tiles);
  PL_REQUIRE(s->rows >= 1 && s->rows <= tiles / s->unit_tiles,
             "rnn: %s.rows: expected 1 to %d with %d warps and unit_tiles %d, got %d", way, tiles / s->unit_tiles,
             s->warps, s->unit_tiles, s->rows);
  int64_t sums = (int64_t)s->warps * s->rows * 16 * (s->columns | 1) * PL_TILE_UNITS * (int64_t)sizeof(float);
  PL_REQUIRE(sums <= SHARED_BYTES_MAX,
             "rnn: %s: warps %d, rows %d, unit_tiles %d: the sums of a block take %lld bytes of shared memory, "
             "expected at most %d",
             way, s->warps, s->rows, s->unit_tiles, (long long)sums, SHARED_BYTES_MAX);
  PL_REQUIRE(s->chunks <= CHUNKS_MAX, "rnn: %s.product: inside adds up at most %d chunks of %d bytes, got %d", way,
             CHUNKS_MAX, PL_CHUNK_BYTES, s->chunks);
  PL_REQUIRE(q->heads <= UINT16_MAX, "rnn: %s.product: inside takes at most %d heads, got %lld", way, UINT16_MAX,
             (long long)q->heads);
  int64_t row_blocks = divide_up(q->batch, 16 * (int64_t)s->rows);
  PL_REQUIRE(row_blocks <= UINT16_MAX, "rnn: %s.rows: at most %d blocks share the batch, got %lld", way, UINT16_MAX,
             (long long)row_blocks);
  return PL_OK;
}

pl_status pl_step_shape_of(const pl_recurrence *q, bool backward, pl_step_shape *shape) {
  const pl_step_cut *cut = &q->step[backward];
  const char *way = backward ? "backward" : "forward";
  int64_t recurrents = pl_cell_recurrents(q->cell), depth = backward ? recurrents * q->dim : q->dim;
  int64_t chunk = q->product == PL_F64 ? 1 : PL_CHUNK_BYTES / (int64_t)pl_dtype_size(q->product);
  PL_REQUIRE(cut->rows != 0, "rnn: %s: on a GPU, expected a fused plan or how the steps are cut, got neither", way);
  PL_REQUIRE(recurrents == 0 ? cut->product == PL_PRODUCT_NONE
                             : cut->product == PL_PRODUCT_INSIDE || cut->product == PL_PRODUCT_BLAS,
             "rnn: %s.product: expected %s, got %d", way,
             recurrents == 0 ? "0 (none: no gate is recurrent)" : "1 (inside) or 2 (blas)", (int)cut->product);
  *shape = (pl_step_shape){.batch = q->batch,
                           .steps = q->steps,
                           .heads = q->heads,
                           .dim = q->dim,
                           .recurrents = recurrents,
                           .row = divide_up(q->dim, chunk) * chunk,
                           .across = divide_up(recurrents * q->dim, chunk) * chunk,
                           .product = cut->product};
  if (cut->product != PL_PRODUCT_INSIDE) return PL_OK;
  shape->warps = cut->warps;
  shape->rows = cut->rows;
  shape->unit_tiles = cut->unit_tiles;
  shape->chunks = (int)divide_up(depth, chunk);
  shape->columns = (int)((backward ? 1 : recurrents) * cut->unit_tiles);
  PL_TRY(check_inside(q, shape, way));
  shape->tiles = (int)divide_up(q->dim, PL_TILE_UNITS * cut->unit_tiles) * cut->unit_tiles;
  return PL_OK;
}

/* Types and arguments. */
static pl_status print_head(const pl_recurrence *q, int product, pl_text *text) {
#define QUOTED(...)   #__VA_ARGS__
#define EXPANDED(...) QUOTED(__VA_ARGS__)
  static const char *const names[PL_DTYPES] = {
      [PL_F16] = "f16", [PL_BF16] = "bf16", [PL_F32] = "float", [PL_F64] = "double"};
  pl_text_print(text, "enum { PL_F16 = %d, PL_BF16 = %d, PL_F32 = %d, PL_F64 = %d };\n", PL_F16, PL_BF16, PL_F32,
                PL_F64);
  pl_text_print(text, "enum { PL_STATES_MAX = %d, PL_PARAMS_MAX = %d, PL_TILE_UNITS = %d, PL_CHUNK = %d,\n",
                PL_STATES_MAX, PL_PARAMS_MAX, PL_TILE_UNITS, PL_CHUNK_BYTES / (int)pl_dtype_size(q->product));
  pl_text_print(text, "       PL_STEP_THREADS = %d, PL_SUM_UNITS = %d, PL_PACK_PLAIN = %d, PL_PACK_FORWARD = %d };\n",
                PL_STEP_THREADS, PL_SUM_UNITS, PL_PACK_PLAIN, PL_PACK_FORWARD);
  pl_text_print(text, "typedef %s T;\n", names[q->type]);
  PL_TRY(pl_kernel_source("cell.cuh", text));
  pl_text_print(text, "\ntypedef %s S;\ntypedef %s P;\n", names[q->storage], names[q->product]);
  pl_text_print(text, "#define PRODUCT_IS_BF16 %d\n#define PRODUCT_BITS %d\n#define STEP_PRODUCT %d\n",
                q->product == PL_BF16, 8 * (int)pl_dtype_size(q->product), product);
  pl_text_print(text, "%s\n", EXPANDED(PL_RECURRENCE_ARGUMENTS));
  return PL_OK;
}

pl_status pl_pack_text(const pl_recurrence *q, pl_text *text) { return print_head(q, PL_PRODUCT_NONE, text); }

pl_status pl_step_text(const pl_recurrence *q, const pl_step_shape *shape, pl_text *text) {
  PL_TRY(print_head(q, shape->product, text));
  int threads = shape->product == PL_PRODUCT_INSIDE ? 32 * shape->warps : PL_STEP_THREADS;
  pl_text_print(text, "enum { STEP_THREADS = %d };\n", threads);
  if (shape->product == PL_PRODUCT_INSIDE)
    pl_text_print(text, "enum { COLUMNS = %d, CHUNKS = %d, ROWS = %d, UNIT_TILES = %d, TF32_ALLOWED = %d };\n",
                  shape->columns, shape->chunks, shape->rows, shape->unit_tiles, pl_tf32_allowed());
  pl_cell_text(q->cell, text);
  return PL_OK;
}
