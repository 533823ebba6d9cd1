/* Copies through tiles in shared memory: the choice of the two axes, and the launch. */
#include "host/cuda/transpose.h"

#include "host/cuda/layout.h"

enum { SIDE = 16, THREADS = SIDE * SIDE, WORTHWHILE = 16, EDGE_MAX = 8 };

/* As in kernels/transpose.cu. */
typedef struct {
  void *out;
  const void *in;
  int64_t size[2], across[2], tiles_x, tiles_y;
  pl_axes shape;
  int64_t stride[2][PL_RANK_MAX];
} job;

/* At most 16 bytes at once. */
int pl_transpose_edge(pl_dtype out, pl_dtype in, bool many) {
  size_t widest = pl_dtype_size(out) > pl_dtype_size(in) ? pl_dtype_size(out) : pl_dtype_size(in);
  return widest == 8 ? 2 : widest <= 2 && many ? EDGE_MAX : 4;
}

void pl_transpose_prelude(const pl_transpose_variant *variant, pl_text *text) {
  bool raw = variant->work == PL_WORK_RAW;
  const char *value = pl_layout_raw(pl_dtype_size(variant->out));
  pl_text_print(text, "#define EDGE %d\n#define WHOLE_OUT %d\n#define WHOLE_IN %d\n", variant->edge, variant->whole_out,
                variant->whole_in);
  pl_text_print(text, "#define TYPE_OUT %s\n#define TYPE_IN %s\n#define RANK %d\ntypedef %s T;\n",
                raw ? value : pl_layout_type(variant->out), raw ? value : pl_layout_type(variant->in), variant->rank,
                pl_work_name(variant->work, pl_dtype_size(variant->out)));
}

int pl_transpose_axis(const pl_array *out, const pl_array *in) {
  int last = out->rank - 1;
  if (last < 1 || out->stride[last] != 1 || out->size[last] < WORTHWHILE) return -1;
  if (in->stride[last] == 0 || in->stride[last] == 1) return -1;
  for (int axis = 0; axis < last; axis++)
    if (in->stride[axis] == 1 && in->size[axis] >= WORTHWHILE) return axis;
  return -1;
}

static pl_status load(pl_cuda *cuda, const pl_transpose_variant *v, pl_cu_function *function) {
  uint64_t key = (uint64_t)PL_FAMILY_TRANSPOSE << 56 | (uint64_t)v->out << 24 | (uint64_t)v->in << 16 |
                 (uint64_t)v->work << 12 | (uint64_t)v->edge << 8 | (uint64_t)v->rank << 2 |
                 (uint64_t)v->whole_out << 1 | v->whole_in;
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_transpose_prelude(v, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "transpose.cu", prelude.data, "", "transpose", function);
  pl_text_release(&prelude);
  return status;
}

/* Whether vectors of n along the axis begin where such vectors may. */
static bool aligned(const pl_array *array, int axis, int n) {
  for (int i = 0; i < array->rank; i++)
    if (i != axis && array->stride[i] % n != 0) return false;
  return (uintptr_t)pl_array_data(array) % ((size_t)n * pl_dtype_size(array->dtype)) == 0;
}

pl_status pl_transpose_copy(pl_cuda *cuda, const pl_array *out, const pl_array *in, int axis, pl_work work) {
  int last = out->rank - 1;
  pl_array rest = {0};
  job j = {.out = pl_array_data(out),
           .in = pl_array_data(in),
           .size = {out->size[last], out->size[axis]},
           .across = {out->stride[axis], in->stride[last]}};
  for (int i = 0; i < last; i++) {
    if (i == axis) continue;
    rest.size[rest.rank] = out->size[i];
    j.stride[0][rest.rank] = out->stride[i];
    j.stride[1][rest.rank++] = in->stride[i];
  }
  j.shape = pl_axes_of(&rest, 1);
  pl_transpose_variant variant = {.out = out->dtype, .in = in->dtype, .work = work, .rank = rest.rank};
  enum { LARGE = SIDE * EDGE_MAX };
  bool large = j.size[0] >= LARGE && j.size[1] >= LARGE;
  int64_t blocks = pl_array_count(out) / (LARGE * LARGE);
  variant.edge = pl_transpose_edge(out->dtype, in->dtype, large && blocks >= 8 * cuda->multiprocessors);
  int n = variant.edge, tile = SIDE * n;
  variant.whole_out = aligned(out, last, n);
  variant.whole_in = aligned(in, axis, n);
  j.tiles_x = (j.size[0] + tile - 1) / tile;
  j.tiles_y = (j.size[1] + tile - 1) / tile;
  pl_cu_function function;
  PL_TRY(load(cuda, &variant, &function));
  return pl_cuda_launch(cuda, function, (uint64_t)(pl_array_count(&rest) * j.tiles_x * j.tiles_y), 1, THREADS, 0,
                        (void *[]){&j});
}
