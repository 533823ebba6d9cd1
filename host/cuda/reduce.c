/* Sums, extrema and their positions: how to walk the array, in one launch or in two. */
#include "host/cuda/reduce.h"

#include "host/cuda/layout.h"
#include "host/cuda/primitives.h"

/* As in kernels/reduce.cu. */
typedef struct {
  const void *in;
  const int64_t *in_position;
  void *out;
  int64_t *out_position;
  double factor;
  int64_t kept, reduced, slice;
  pl_axes kept_shape, reduced_shape;
  int64_t kept_stride[2][PL_RANK_MAX], reduced_stride[1][PL_RANK_MAX];
} job;

enum { THREADS = 256, VECTOR_MAX = 8, COLUMN_THREADS = 32, SLICE_MIN = 64 };

static bool wants_position(pl_reduction kind) { return kind == PL_ARGMAX || kind == PL_ARGMIN; }

static bool squares(pl_reduction kind) { return kind == PL_EUCLIDEAN || kind == PL_DEVIATIONS; }

/* Values that a partial result consists of, as kernels/reduce.cu keeps them. */
static size_t parts_of(pl_reduction kind) { return kind == PL_DEVIATIONS ? 3 : 1; }

void pl_reduce_prelude(const pl_reduce_variant *variant, pl_text *text) {
  static const char *const kinds[] = {
      [PL_SUM] = "SUM",         [PL_MAX] = "LARGEST",         [PL_MIN] = "SMALLEST",          [PL_ARGMAX] = "LARGEST",
      [PL_ARGMIN] = "SMALLEST", [PL_EUCLIDEAN] = "EUCLIDEAN", [PL_DEVIATIONS] = "DEVIATIONS",
  };
  pl_text_print(text, "#define KIND %s\n#define POSITION %d\ntypedef %s ACC;\ntypedef %s INDEX;\n",
                kinds[variant->kind], wants_position(variant->kind), pl_work_name(variant->work, 0),
                variant->small ? "int" : "long long");
  pl_text_print(text, "#define TYPE_IN %s\n#define TYPE_OUT %s\n", pl_layout_type(variant->in),
                pl_layout_type(variant->out));
  pl_text_print(text,
                "#define KEPT %d\n#define REDUCED %d\n#define V %d\n#define W %d\n#define LANES %d\n"
                "#define PARTIAL_IN %d\n#define FINISH %d\n",
                variant->kept, variant->reduced, variant->vector, variant->width ? variant->width : THREADS,
                variant->lanes ? variant->lanes : COLUMN_THREADS, variant->partial_in, !variant->partial_out);
}

const char *pl_reduce_name(const pl_reduce_variant *variant) { return variant->width ? "rows" : "columns"; }

static uint64_t key_of(const pl_reduce_variant *variant) {
  uint64_t key = PL_FAMILY_REDUCE;
  key = key << 8 | (uint64_t)variant->kind;
  key = key << 4 | (uint64_t)variant->work;
  key = key << 4 | (uint64_t)(variant->width ? __builtin_ctz((unsigned)variant->width) + 1 : 0);
  key = key << 8 | (uint64_t)variant->in << 4 | variant->out;
  key = key << 8 | (uint64_t)variant->kept << 4 | (uint64_t)variant->reduced;
  key = key << 8 | (uint64_t)variant->vector << 3 |
        (uint64_t)(variant->lanes ? __builtin_ctz((unsigned)variant->lanes) : 0);
  key = key << 16 | (uint64_t)variant->small << 2 | (uint64_t)variant->partial_in << 1 | variant->partial_out;
  return key;
}

/* The axes of `in` that stay, with out's beside them, and those that are reduced. */
static void arrange(const pl_array *out, const pl_array *in, pl_array kept[2], pl_array *reduced) {
  kept[0] = *in, kept[1] = *out, *reduced = *in;
  kept[0].rank = reduced->rank = 0;
  for (int axis = 0; axis < in->rank; axis++) {
    bool reduce = out->size[axis] == 1 && in->size[axis] != 1;
    pl_array *to = reduce ? reduced : &kept[0];
    if (!reduce) {
      kept[1].size[to->rank] = in->size[axis];
      kept[1].stride[to->rank] = out->stride[axis];
    }
    to->size[to->rank] = in->size[axis];
    to->stride[to->rank++] = in->stride[axis];
  }
  kept[1].rank = kept[0].rank;
  pl_arrays_merge((pl_array *[]){&kept[0], &kept[1]}, 2);
  pl_arrays_merge((pl_array *[]){reduced}, 1);
}

static int64_t last_stride(const pl_array *axes) { return axes->rank ? axes->stride[axes->rank - 1] : 0; }

/* Vectors along the last axis of `along`, with every other stride of either group aligned. */
static int vector_of(const pl_array *along, const pl_array *other) {
  int vector = 16 / (int)pl_dtype_size(along->dtype);
  if (vector > VECTOR_MAX) vector = VECTOR_MAX;
  if (last_stride(along) != 1) return 1;
  for (; vector > 1; vector /= 2) {
    bool fits = along->size[along->rank - 1] % vector == 0 && pl_layout_dense(along, vector);
    for (int i = 0; i < other->rank; i++) fits = fits && other->stride[i] % vector == 0;
    if (fits) break;
  }
  return vector;
}

/* Kept places that a block takes. */
static int64_t places_of(const pl_reduce_variant *variant) {
  return variant->width ? THREADS / variant->width : variant->lanes * variant->vector;
}

static pl_status launch(pl_cuda *cuda, const pl_reduce_variant *variant, job *j, int64_t slices) {
  uint64_t key = key_of(variant);
  pl_cu_function function = pl_cuda_kernel_found(cuda, key);
  if (!function) {
    pl_text prelude = {0};
    pl_reduce_prelude(variant, &prelude);
    pl_status status =
        pl_cuda_kernel_load(cuda, key, "reduce.cu", prelude.data, "", pl_reduce_name(variant), &function);
    pl_text_release(&prelude);
    PL_TRY(status);
  }
  int64_t each = places_of(variant);
  return pl_cuda_launch(cuda, function, (uint64_t)((j->kept + each - 1) / each), (unsigned)slices, THREADS, 0,
                        (void *[]){j});
}

static void set_strides(job *j, const pl_array kept[2], const pl_array *reduced) {
  j->kept_shape = pl_axes_of(&kept[0], 1);
  j->reduced_shape = pl_axes_of(reduced, 1);
  for (int i = 0; i < PL_RANK_MAX; i++) {
    j->kept_stride[0][i] = kept[0].stride[i];
    j->kept_stride[1][i] = kept[1].stride[i];
    j->reduced_stride[0][i] = reduced->stride[i];
  }
}

/* How many slices of the reduced range give every multiprocessor something to do. */
static int64_t slices_of(const pl_cuda *cuda, const pl_reduce_variant *variant, const job *j) {
  int64_t each = places_of(variant);
  int64_t blocks = (j->kept + each - 1) / each, wanted = 8 * (int64_t)cuda->multiprocessors;
  int64_t slices = blocks ? (wanted + blocks - 1) / blocks : 1;
  int64_t least = variant->width == THREADS ? (int64_t)THREADS * variant->vector * 4
                  : variant->width          ? SLICE_MIN
                                            : 8 * THREADS / variant->lanes;
  int64_t most = j->reduced / least;
  if (slices > most) slices = most;
  if (slices < 1 || blocks * 2 > wanted) slices = 1;
  return slices > 1024 ? 1024 : slices;
}

/* The partial results [slices, kept] come together in out. */
static pl_status finish(pl_cuda *cuda, const pl_reduce_variant *first, const job *made, int64_t slices,
                        const pl_array kept[2], void *values, int64_t *positions) {
  static const pl_dtype of_work[] = {PL_F32, PL_F64, PL_I64};
  pl_reduce_variant variant = *first;
  job j = *made;
  pl_array partial[2] = {kept[1], kept[1]};
  pl_array slice_axis = {.rank = 1, .size = {slices}, .stride = {made->kept}};
  pl_array_pack(&partial[0]);
  pl_arrays_merge((pl_array *[]){&partial[0], &partial[1]}, 2);
  set_strides(&j, partial, &slice_axis);
  variant.in = of_work[first->work];
  variant.kept = partial[0].rank;
  variant.reduced = 1;
  variant.vector = 1;
  /* Few kept places with many slices: a block for each; else by columns, which lie side by side. */
  variant.width = made->kept < COLUMN_THREADS ? (slices > 32 ? THREADS : 32) : 0;
  variant.lanes = COLUMN_THREADS;
  variant.partial_in = wants_position(first->kind) || squares(first->kind);
  variant.partial_out = false;
  variant.small = first->small && slices * made->kept < INT32_MAX / 2;
  j.in = values;
  j.in_position = positions;
  j.reduced = j.slice = slices;
  return launch(cuda, &variant, &j, 1);
}

static pl_status in_two_launches(pl_cuda *cuda, pl_reduce_variant *variant, job *j, int64_t slices,
                                 const pl_array kept[2]) {
  pl_buffer *values = NULL, *positions = NULL;
  int64_t unit = variant->vector * (variant->width ? variant->width : THREADS / variant->lanes);
  j->slice = ((j->reduced + slices - 1) / slices + unit - 1) / unit * unit;
  slices = (j->reduced + j->slice - 1) / j->slice;
  size_t count = (size_t)(slices * j->kept);
  PL_TRY(
      pl_buffer_new(&cuda->device, count * parts_of(variant->kind) * (variant->work == PL_WORK_F32 ? 4 : 8), &values));
  pl_status status = PL_OK;
  if (wants_position(variant->kind)) status = pl_buffer_new(&cuda->device, count * sizeof(int64_t), &positions);
  if (status == PL_OK) {
    job partial = *j;
    partial.out = values->data;
    partial.out_position = positions ? positions->data : NULL;
    variant->partial_out = true;
    status = launch(cuda, variant, &partial, slices);
  }
  if (status == PL_OK)
    status = finish(cuda, variant, j, slices, kept, values->data, positions ? positions->data : NULL);
  pl_buffer_release(values);
  pl_buffer_release(positions);
  return status;
}

/* Threads for a row of that many vectors: a few vectors each, neighbours to neighbours. Where there are rows enough to
 * fill a GPU, a warp also takes longer ones: bringing together what a block has found takes as long as reading two
 * vectors per thread. */
static int width_of(int64_t rows, int64_t elements, int64_t vectors) {
  bool warp = (elements <= 2048 && rows >= 64) || (vectors <= 512 && rows >= 8192);
  return vectors <= 4 ? 1 : vectors <= 32 ? 4 : vectors <= 128 ? 16 : warp ? 32 : THREADS;
}

pl_status pl_cuda_reduce(pl_device *device, pl_reduction kind, double factor, const pl_array *out, const pl_array *in) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  pl_array kept[2], reduced;
  int64_t count = pl_array_count(out);
  if (count == 0) return PL_OK;
  arrange(out, in, kept, &reduced);
  job j = {.in = pl_array_data(in),
           .out = pl_array_data(out),
           .kept = count,
           .reduced = pl_array_count(&reduced),
           .factor = factor};
  if (j.reduced == 0) {
    PL_REQUIRE(kind == PL_SUM || squares(kind), "max, min, argmax and argmin need at least one element; got shape %s",
               pl_shape_text(in));
    pl_array zero = pl_array_number(kind == PL_EUCLIDEAN ? 0 : 0 * factor); /* NaN for a mean */
    return pl_cuda_copy(device, out, &zero);
  }
  set_strides(&j, kept, &reduced);
  pl_reduce_variant variant = {.kind = kind,
                               .work = pl_work_of(in->dtype),
                               .in = in->dtype,
                               .out = out->dtype,
                               .kept = kept[0].rank,
                               .reduced = reduced.rank,
                               .small = pl_layout_small(in) && pl_layout_small(out)};
  bool columns = last_stride(&kept[0]) == 1 && last_stride(&reduced) != 1 && j.reduced > 1;
  if (columns) {
    variant.vector = vector_of(&kept[0], &reduced);
    for (variant.lanes = 1; variant.lanes < COLUMN_THREADS && variant.lanes * variant.vector < j.kept;)
      variant.lanes *= 2;
  } else {
    variant.vector = vector_of(&reduced, &kept[0]);
    variant.width = width_of(j.kept, j.reduced, j.reduced / variant.vector);
  }
  j.slice = j.reduced;
  int64_t slices = slices_of(cuda, &variant, &j);
  return slices > 1 ? in_two_launches(cuda, &variant, &j, slices, kept) : launch(cuda, &variant, &j, 1);
}
