/* How a step's product is cut for the tensor cores, and the generated text in front of the recurrence's kernels. */
#include "host/cuda/cell_text.h"
#include "host/cuda/nvrtc.h"
#include "host/cuda/recurrence_plan.h"

enum { SHARED_BYTES_MAX = 48 << 10, CHUNKS_MAX = 512 };

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Bytes of the partial sums of a block, one for each warp. */
static int64_t shared_bytes(const pl_step_shape *s) {
  return (int64_t)s->warps * s->rows * 16 * (s->columns | 1) * PL_TILE_UNITS * (int64_t)sizeof(float);
}

/* Bytes that all blocks of a step read of R and of what it is multiplied by. */
static double bytes_read(const pl_step_shape *s) {
  double batch_tiles = (double)divide_up(s->batch, 16 * s->rows),
         blocks = (double)(s->heads * s->tiles / s->unit_tiles);
  return batch_tiles * blocks * (s->columns * PL_TILE_UNITS + s->rows * 16) * s->chunks * PL_CHUNK_BYTES;
}

/* Of a block: measured on an H200. More warps pay where a sum is long; two tiles of units where one column would leave
 * most of what is read to the other operand. */
static void choose_block(pl_step_shape *shape, pl_dtype product) {
  bool single = product == PL_F32; /* three products for one */
  shape->warps = single ? (shape->chunks >= 32 ? 16 : 8) : shape->chunks >= 24 && shape->columns <= 2 ? 16 : 8;
  shape->rows = shape->batch > 16 ? 2 : 1;
  if (shared_bytes(shape) > SHARED_BYTES_MAX) shape->warps = 8;
  if (shared_bytes(shape) > SHARED_BYTES_MAX) shape->rows = 1;
  shape->unit_tiles = 1;
  if (shape->columns == 1 && shape->rows * 16 * 2 * PL_TILE_UNITS <= 32 * shape->warps) {
    shape->unit_tiles = shape->columns = 2;
    if (shared_bytes(shape) > SHARED_BYTES_MAX) shape->unit_tiles = shape->columns = 1;
  }
  shape->tiles = (int)divide_up(shape->dim, PL_TILE_UNITS * shape->unit_tiles) * shape->unit_tiles;
}

/* Whether the step's own kernel beats cuBLAS with a kernel behind it, as measured on an H200. */
static bool own_product_pays(const pl_step_shape *shape, pl_dtype product) {
  static const int64_t BATCH_MAX = 128;
  static const double BYTES_SINGLE = 70e6, BYTES_HALF_ONE_TILE = 55e6, BYTES_HALF = 32e6;
  double most = product == PL_F32 ? BYTES_SINGLE : shape->rows == 1 ? BYTES_HALF_ONE_TILE : BYTES_HALF;
  return shape->batch <= BATCH_MAX && bytes_read(shape) <= most;
}

void pl_step_shape_choose(const pl_recurrence *q, bool backward, pl_step_shape *shape) {
  int64_t recurrents = pl_cell_recurrents(q->cell), depth = backward ? recurrents * q->dim : q->dim;
  int64_t chunk = q->product == PL_F64 ? 1 : PL_CHUNK_BYTES / (int64_t)pl_dtype_size(q->product);
  *shape = (pl_step_shape){.batch = q->batch,
                           .steps = q->steps,
                           .heads = q->heads,
                           .dim = q->dim,
                           .recurrents = recurrents,
                           .row = divide_up(q->dim, chunk) * chunk,
                           .across = divide_up(recurrents * q->dim, chunk) * chunk,
                           .columns = backward ? 1 : (int)recurrents,
                           .chunks = (int)divide_up(depth, chunk)};
  choose_block(shape, q->product);
  bool can = q->product != PL_F64 && shape->chunks <= CHUNKS_MAX && shared_bytes(shape) <= SHARED_BYTES_MAX &&
             q->heads <= UINT16_MAX;
  bool inside = can && own_product_pays(shape, q->product);
  shape->product = recurrents == 0 ? PL_PRODUCT_NONE : inside ? PL_PRODUCT_INSIDE : PL_PRODUCT_BLAS;
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
