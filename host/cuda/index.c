/* Gather and scatter along an axis by 1-based indices. */
#include "host/cuda/index.h"

#include "host/cuda/layout.h"
#include "host/cuda/primitives.h"

enum { THREADS = 256, TILE = 1024, DIGITS = 256, DIGIT_BITS = 8 };

/* ---- text ---- */

void pl_gather_prelude(const pl_gather_variant *variant, pl_text *text) {
  pl_text_print(text, "#define VALUE %s\n#define TYPE_INDEX %s\n#define RANK %d\n#define V %d\ntypedef %s INDEX;\n",
                pl_layout_raw(variant->bytes), pl_layout_type(variant->index), variant->rank, variant->vector,
                variant->small ? "int" : "long long");
}

void pl_scatter_prelude(const pl_scatter_variant *variant, pl_text *text) {
  bool half = pl_dtype_size(variant->type) == 2;
  pl_text_print(text, "#define TYPE %s\n#define STORED %s\n#define TYPE_INDEX %s\n#define RANK %d\n#define V %d\n",
                pl_layout_type(half ? PL_F32 : variant->type), pl_layout_type(variant->type),
                pl_layout_type(variant->index), variant->rank, variant->vector);
}

static pl_status load_gather(pl_cuda *cuda, const pl_gather_variant *v, pl_cu_function *function) {
  uint64_t key = (uint64_t)PL_FAMILY_INDEX << 56 | (uint64_t)v->bytes << 32 | (uint64_t)v->index << 24 |
                 (uint64_t)v->rank << 16 | (uint64_t)v->vector << 8 | v->small;
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_gather_prelude(v, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "gather.cu", prelude.data, "", "gather", function);
  pl_text_release(&prelude);
  return status;
}

/* Kernels of kernels/scatter.cu. */
typedef enum { LINES, COUNT, SCAN, MOVE, STARTS, PIECES, JOIN } scatter_step;
static const char *const step_name[] = {"scatter_lines", "sort_count",     "sort_scan",   "sort_move",
                                        "run_starts",    "scatter_pieces", "scatter_join"};

static pl_status load_scatter(pl_cuda *cuda, const pl_scatter_variant *v, scatter_step which,
                              pl_cu_function *function) {
  uint64_t key = (uint64_t)PL_FAMILY_INDEX << 56 | (uint64_t)1 << 48 | (uint64_t)which << 32 |
                 (uint64_t)v->index << 24 | (uint64_t)v->rank << 16 | (uint64_t)v->type << 8 | (uint64_t)v->vector;
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_scatter_prelude(v, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "scatter.cu", prelude.data, "", step_name[which], function);
  pl_text_release(&prelude);
  return status;
}

/* ---- shared ---- */

/* `index` itself, or a packed copy, so that a position in it is a place in memory, too. */
static pl_status packed_index(pl_device *device, const pl_array *index, pl_array *packed, pl_buffer **owned) {
  *packed = *index;
  *owned = NULL;
  if (pl_array_contiguous(index)) return PL_OK;
  PL_TRY(pl_buffer_new(device, (size_t)pl_array_count(index) * pl_dtype_size(index->dtype), owned));
  packed->buffer = *owned;
  packed->offset = 0;
  pl_array_pack(packed);
  return pl_cuda_copy(device, packed, index);
}

/* The index as a view of `shape`: its own strides, or along `dim` alone when it picks whole slices. */
static pl_array spread_index(const pl_array *index, const pl_array *shape, int dim) {
  pl_array view = *index;
  bool slices = index->rank == 1 && shape->rank != 1;
  view.rank = shape->rank;
  for (int axis = 0; axis < shape->rank; axis++) {
    view.size[axis] = shape->size[axis];
    view.stride[axis] = !slices ? index->stride[axis] : axis == dim ? index->stride[0] : 0;
  }
  return view;
}

/* ---- gather ---- */

/* As in kernels/gather.cu. */
typedef struct {
  void *out;
  const void *in, *index;
  int64_t count;
  pl_axes shape;
  int64_t stride[3][PL_RANK_MAX], step, limit;
  pl_complaints complaint;
} gather_job;

static int vector_of(const pl_array view[3]) {
  int last = view[0].rank - 1, vector = 16 / (int)pl_dtype_size(view[0].dtype);
  if (last < 0 || view[2].stride[last] != 0 || view[1].stride[last] != 1) return 1;
  for (; vector > 1; vector /= 2)
    if (view[0].size[last] % vector == 0 && pl_layout_dense(&view[0], vector) && pl_layout_dense(&view[1], vector))
      break;
  return vector;
}

static pl_status gather(pl_cuda *cuda, const pl_array *out, const pl_array *in, int dim, const pl_array *index) {
  pl_array view[3] = {*out, *in, spread_index(index, out, dim)};
  int64_t step = in->stride[dim];
  for (int axis = 0; axis < out->rank; axis++) view[1].size[axis] = out->size[axis];
  view[1].stride[dim] = 0;
  pl_arrays_merge((pl_array *[]){&view[0], &view[1], &view[2]}, 3);
  int rank = view[0].rank, vector = vector_of(view);
  if (vector > 1 && step % vector != 0) vector = 1;
  pl_gather_variant variant = {.bytes = pl_dtype_size(out->dtype),
                               .index = index->dtype,
                               .rank = rank,
                               .vector = vector,
                               .small = pl_layout_small(out) && pl_layout_small(in) && pl_layout_small(index)};
  gather_job job = {.out = pl_array_data(out),
                    .in = pl_array_data(in),
                    .index = pl_array_data(index),
                    .count = pl_array_count(out) / vector,
                    .shape = pl_axes_of(&view[0], rank > 0 ? vector : 1),
                    .step = step,
                    .limit = in->size[dim],
                    .complaint = pl_complaints_of(cuda)};
  for (int i = 0; i < 3; i++)
    for (int axis = 0; axis < rank; axis++)
      job.stride[i][axis] = view[i].stride[axis] * (axis == rank - 1 ? vector : 1);
  pl_cu_function function;
  PL_TRY(load_gather(cuda, &variant, &function));
  enum { EACH = 4 * THREADS };
  return pl_cuda_launch(cuda, function, (uint64_t)(job.count + EACH - 1) / EACH, 1, THREADS, 0, (void *[]){&job});
}

pl_status pl_cuda_gather(pl_device *device, const pl_array *out, const pl_array *in, int dim, const pl_array *index) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  if (pl_array_count(out) == 0) return PL_OK;
  PL_REQUIRE(in->size[dim] > 0, "index: value at position 1 is outside 1..0: the indexed dimension is empty");
  pl_array packed;
  pl_buffer *owned;
  pl_status status = packed_index(device, index, &packed, &owned);
  if (status == PL_OK) status = gather(cuda, out, in, dim, &packed);
  pl_buffer_release(owned);
  return status;
}

/* ---- scatter ---- */

/* As in kernels/scatter.cu. */
typedef struct {
  void *out;
  const void *in, *index;
  int64_t lines, length;
  pl_axes shape;
  int64_t stride[3][PL_RANK_MAX], step[3], limit;
  pl_complaints complaint;
} line_job;

typedef struct {
  const void *index;
  int64_t step, limit;
  const uint32_t *key_in, *position_in;
  uint32_t *key_out, *position_out, *counts;
  uint32_t count, tiles, shift;
  pl_complaints complaint;
} sort_job;

typedef struct {
  const uint32_t *key;
  uint32_t *start;
  uint32_t count;
} start_job;

typedef struct {
  void *out;
  const void *in;
  const uint32_t *key, *position, *start;
  void *partial;
  uint32_t *longer;
  int64_t count, lines, piece;
  pl_axes shape;
  int64_t stride[2][PL_RANK_MAX], step[2], limit;
} run_job;

/* The array without axis `dim`, of the given sizes. */
static pl_array without(const pl_array *array, const pl_array *sizes, int dim) {
  pl_array view = *array;
  view.rank = 0;
  for (int axis = 0; axis < array->rank; axis++) {
    if (axis == dim) continue;
    view.size[view.rank] = sizes->size[axis];
    view.stride[view.rank++] = array->stride[axis];
  }
  return view;
}

static pl_status scatter_lines(pl_cuda *cuda, const pl_array *out, int dim, const pl_array *index, const pl_array *in) {
  pl_array view[3] = {without(out, in, dim), without(in, in, dim), without(index, in, dim)};
  pl_arrays_merge((pl_array *[]){&view[0], &view[1], &view[2]}, 3);
  pl_scatter_variant variant = {.type = out->dtype, .index = index->dtype, .rank = view[0].rank, .vector = 1};
  line_job job = {.out = pl_array_data(out),
                  .in = pl_array_data(in),
                  .index = pl_array_data(index),
                  .lines = pl_array_count(&view[1]),
                  .length = in->size[dim],
                  .shape = pl_axes_of(&view[0], 1),
                  .step = {out->stride[dim], in->stride[dim], index->stride[dim]},
                  .limit = out->size[dim],
                  .complaint = pl_complaints_of(cuda)};
  for (int i = 0; i < 3; i++)
    for (int axis = 0; axis < view[0].rank; axis++) job.stride[i][axis] = view[i].stride[axis];
  pl_cu_function function;
  PL_TRY(load_scatter(cuda, &variant, LINES, &function));
  return pl_cuda_launch(cuda, function, (uint64_t)(job.lines + THREADS - 1) / THREADS, 1, THREADS, 0, (void *[]){&job});
}

/* Sorts positions by index into work[0..count) keys and work[count..2 count) positions; work holds four times count
 * and the tiles' counts. Equal indices keep their order. *sorted: where keys and then positions lie. */
static pl_status sort(pl_cuda *cuda, const pl_scatter_variant *variant, const pl_array *index, int64_t limit,
                      uint32_t *work, const uint32_t **sorted) {
  int64_t count = index->size[0];
  sort_job job = {.index = pl_array_data(index),
                  .step = index->stride[0],
                  .limit = limit,
                  .count = (uint32_t)count,
                  .tiles = (uint32_t)((count + TILE - 1) / TILE),
                  .counts = work + 4 * count,
                  .complaint = pl_complaints_of(cuda)};
  pl_cu_function function[MOVE + 1];
  for (int which = COUNT; which <= MOVE; which++)
    PL_TRY(load_scatter(cuda, variant, (scatter_step)which, &function[which]));
  for (int pass = 0; pass == 0 || limit >> (pass * DIGIT_BITS) > 0; pass++) {
    uint32_t *to = work + (pass % 2 ? 2 * count : 0);
    job.key_out = to, job.position_out = to + count;
    job.shift = (uint32_t)pass * DIGIT_BITS;
    PL_TRY(pl_cuda_launch(cuda, function[COUNT], job.tiles, 1, 32, 0, (void *[]){&job}));
    PL_TRY(pl_cuda_launch(cuda, function[SCAN], 1, 1, 1024, 0, (void *[]){&job}));
    PL_TRY(pl_cuda_launch(cuda, function[MOVE], job.tiles, 1, 32, 0, (void *[]){&job}));
    job.index = NULL;
    job.key_in = to, job.position_in = to + count;
    *sorted = to;
  }
  return PL_OK;
}

/* Positions of a run that one thread adds up: short runs stay whole, long ones have about as many pieces as positions
 * in a piece. */
static int64_t piece_of(int64_t count) {
  int64_t piece = 256;
  while (piece * piece < count) piece *= 2;
  return piece;
}

static pl_status find_starts(pl_cuda *cuda, const pl_scatter_variant *variant, const run_job *runs, uint32_t *start) {
  start_job job = {runs->key, start, (uint32_t)runs->count};
  pl_cu_function function;
  PL_TRY(load_scatter(cuda, variant, STARTS, &function));
  return pl_cuda_launch(cuda, function, (uint64_t)(runs->count + THREADS - 1) / THREADS, 1, THREADS, 0,
                        (void *[]){&job});
}

static pl_status add_runs(pl_cuda *cuda, const pl_scatter_variant *variant, run_job *job) {
  int64_t cells = (job->count + job->piece - 1) / job->piece;
  size_t sum_bytes = pl_dtype_size(variant->type) == 8 ? 8 : 4;
  size_t partial_bytes = (size_t)(2 * cells * job->lines * variant->vector) * sum_bytes;
  pl_buffer *room;
  PL_TRY(pl_buffer_new(&cuda->device, partial_bytes + (size_t)cells * sizeof(uint32_t), &room));
  job->partial = room->data;
  job->longer = (uint32_t *)((char *)room->data + partial_bytes);
  pl_cu_function pieces, join;
  pl_status status = load_scatter(cuda, variant, PIECES, &pieces);
  if (status == PL_OK) status = load_scatter(cuda, variant, JOIN, &join);
  if (status == PL_OK)
    status = PL_CUDA(
        pl_cu.MemsetD8Async((pl_cu_pointer)(uintptr_t)job->longer, 0, (size_t)cells * sizeof(uint32_t), cuda->stream));
  if (status == PL_OK)
    status = pl_cuda_launch(cuda, pieces, (uint64_t)(job->count * job->lines + THREADS - 1) / THREADS, 1, THREADS, 0,
                            (void *[]){job});
  if (status == PL_OK && cells > 1)
    status = pl_cuda_launch(cuda, join, (uint64_t)(cells * job->lines + THREADS - 1) / THREADS, 1, THREADS, 0,
                            (void *[]){job});
  pl_buffer_release(room);
  return status;
}

/* The most neighbours of a slice that 16 bytes hold, in both arrays, wherever along the axis. */
static int slice_vector(const pl_array view[2], const int64_t step[2]) {
  int last = view[0].rank - 1, vector = 16 / (int)pl_dtype_size(view[0].dtype);
  for (; last >= 0 && vector > 1; vector /= 2)
    if (view[0].size[last] % vector == 0 && step[0] % vector == 0 && step[1] % vector == 0 &&
        pl_layout_dense(&view[0], vector) && pl_layout_dense(&view[1], vector))
      return vector;
  return 1;
}

static pl_status scatter_slices(pl_cuda *cuda, const pl_array *out, int dim, const pl_array *index,
                                const pl_array *in) {
  int64_t count = in->size[dim], limit = out->size[dim], tiles = (count + TILE - 1) / TILE;
  PL_REQUIRE(count < INT32_MAX && limit < INT32_MAX, "scatter_add: more than 2^31 slices are not supported");
  pl_buffer *work;
  size_t sorting = (size_t)(4 * count + DIGITS * tiles);
  PL_TRY(pl_buffer_new(&cuda->device, (sorting + (size_t)count) * sizeof(uint32_t), &work));
  uint32_t *start = (uint32_t *)work->data + sorting;
  pl_array view[2] = {without(out, in, dim), without(in, in, dim)};
  pl_arrays_merge((pl_array *[]){&view[0], &view[1]}, 2);
  int64_t step[2] = {out->stride[dim], in->stride[dim]};
  pl_scatter_variant variant = {
      .type = out->dtype, .index = index->dtype, .rank = view[0].rank, .vector = slice_vector(view, step)};
  const uint32_t *sorted = NULL;
  pl_status status = sort(cuda, &variant, index, limit, work->data, &sorted);
  run_job job = {.out = pl_array_data(out),
                 .in = pl_array_data(in),
                 .key = sorted,
                 .position = sorted ? sorted + count : NULL,
                 .start = start,
                 .count = count,
                 .lines = pl_array_count(&view[1]) / variant.vector,
                 .piece = piece_of(count),
                 .shape = pl_axes_of(&view[0], variant.vector),
                 .step = {step[0], step[1]},
                 .limit = limit};
  for (int i = 0, last = view[0].rank - 1; i < 2; i++)
    for (int axis = 0; axis <= last; axis++)
      job.stride[i][axis] = view[i].stride[axis] * (axis == last ? variant.vector : 1);
  if (status == PL_OK) status = find_starts(cuda, &variant, &job, start);
  if (status == PL_OK) status = add_runs(cuda, &variant, &job);
  pl_buffer_release(work);
  return status;
}

pl_status pl_cuda_scatter(pl_device *device, const pl_array *out, int dim, const pl_array *index, const pl_array *in) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_REQUIRE(out->dtype == PL_F32 || out->dtype == PL_F64 || out->dtype == PL_I64 ||
                 (pl_dtype_is_float(out->dtype) && index->rank == 1),
             "scatter: %s takes whole slices only", pl_dtype_name(out->dtype));
  if (pl_array_count(in) == 0) return PL_OK;
  pl_array packed;
  pl_buffer *owned;
  pl_status status = packed_index(device, index, &packed, &owned);
  if (status == PL_OK) status = (index->rank == 1 ? scatter_slices : scatter_lines)(cuda, out, dim, &packed, in);
  pl_buffer_release(owned);
  return status;
}
