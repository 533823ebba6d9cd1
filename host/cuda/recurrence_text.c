/* How a step's product is cut for the tensor cores, and the generated text in front of the recurrence's kernels. */
#include "host/cuda/cell_text.h"
#include "host/cuda/nvrtc.h"
#include "host/cuda/recurrence_plan.h"

enum { WARPS = PL_STEP_THREADS / 32, SHARED_BYTES_MAX = 48 << 10, CHUNKS_MAX = 512 };

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static bool is_half(pl_dtype type) { return type == PL_F16 || type == PL_BF16; }

/* Bytes of the partial sums of a block: one for each warp. */
static int64_t shared_bytes(int rows, int columns) {
  return (int64_t)WARPS * rows * 16 * (columns | 1) * PL_TILE_UNITS * (int64_t)sizeof(float);
}

void pl_step_shape_choose(const pl_recurrence *q, bool backward, pl_step_shape *shape) {
  /* Past this much work in one step, the large tiles of cuBLAS win over one launch less. */
  static const int64_t INSIDE_BATCH_MAX = 128;
  int64_t recurrents = pl_cell_recurrents(q->cell), depth = backward ? recurrents * q->dim : q->dim;
  int64_t unit = is_half(q->product) ? PL_CHUNK : 1;
  *shape = (pl_step_shape){.batch = q->batch,
                           .steps = q->steps,
                           .heads = q->heads,
                           .dim = q->dim,
                           .recurrents = recurrents,
                           .row = divide_up(q->dim, unit) * unit,
                           .across = divide_up(recurrents * q->dim, unit) * unit,
                           .columns = backward ? 1 : (int)recurrents,
                           .chunks = (int)divide_up(depth, PL_CHUNK),
                           .rows = q->batch > 16 ? 2 : 1,
                           .tiles = (int)divide_up(q->dim, PL_TILE_UNITS)};
  if (shared_bytes(shape->rows, shape->columns) > SHARED_BYTES_MAX) shape->rows = 1;
  bool inside = is_half(q->product) && q->batch <= INSIDE_BATCH_MAX && shape->chunks <= CHUNKS_MAX &&
                shared_bytes(shape->rows, shape->columns) <= SHARED_BYTES_MAX && q->heads <= UINT16_MAX;
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
                PL_STATES_MAX, PL_PARAMS_MAX, PL_TILE_UNITS, PL_CHUNK);
  pl_text_print(text, "       PL_STEP_THREADS = %d, PL_PACK_PLAIN = %d, PL_PACK_FORWARD = %d };\n", PL_STEP_THREADS,
                PL_PACK_PLAIN, PL_PACK_FORWARD);
  pl_text_print(text, "typedef %s T;\n", names[q->type]);
  PL_TRY(pl_kernel_source("formulas.cuh", text));
  pl_text_print(text, "\ntypedef %s S;\ntypedef %s P;\n", names[q->storage], names[q->product]);
  pl_text_print(text, "#define PRODUCT_IS_BF16 %d\n#define STEP_PRODUCT %d\n", q->product == PL_BF16, product);
  pl_text_print(text, "%s\n", EXPANDED(PL_RECURRENCE_ARGUMENTS));
  return PL_OK;
}

pl_status pl_pack_text(const pl_recurrence *q, pl_text *text) { return print_head(q, PL_PRODUCT_NONE, text); }

pl_status pl_step_text(const pl_recurrence *q, const pl_step_shape *shape, pl_text *text) {
  PL_TRY(print_head(q, shape->product, text));
  if (shape->product == PL_PRODUCT_INSIDE)
    pl_text_print(text, "enum { COLUMNS = %d, CHUNKS = %d, ROWS = %d };\n", shape->columns, shape->chunks, shape->rows);
  pl_cell_text(q->cell, text);
  return PL_OK;
}
