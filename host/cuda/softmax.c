/* Softmax and its gradient along one axis: how to walk the rows, in one launch or in two. */
#include "host/cuda/primitives.h"
#include "host/cuda/rows.h"

enum { COLUMNS = 32, SLICE_VECTORS_MIN = 2048, ACROSS_SLICE_MIN = 64, SLICES_MAX = 1024 };

/* As in kernels/softmax.cu. */
typedef struct {
  void *out;
  const void *in, *y;
  void *tallies;
  int64_t rows, length, slice;
  pl_axes shape;
  int64_t stride[3][PL_RANK_MAX], step[3];
} job;

void pl_softmax_prelude(const pl_softmax_variant *variant, pl_text *text) {
  pl_rows_prelude(&variant->shape, variant->out, variant->out, text);
  pl_text_print(text,
                "#define LOGARITHM %d\n#define GRADIENT %d\n#define TYPE_OUT %s\n#define TYPE_IN %s\n"
                "#define TYPE_Y %s\n#define RANK %d\n#define PART %d\n#define ACROSS %d\n",
                variant->kind == PL_LOG_SOFTMAX, variant->gradient, pl_layout_type(variant->out),
                pl_layout_type(variant->in), pl_layout_type(variant->y), variant->rank, variant->part, variant->across);
}

static pl_status load(pl_cuda *cuda, const pl_softmax_variant *v, pl_cu_function *function) {
  uint64_t key = PL_FAMILY_SOFTMAX;
  key = key << 4 | (uint64_t)v->kind << 3 | (uint64_t)v->gradient << 2 | (uint64_t)v->part;
  key = key << 12 | (uint64_t)v->out << 8 | (uint64_t)v->in << 4 | v->y;
  key = key << 5 | (uint64_t)v->rank << 1 | v->across;
  key = key << 35 | pl_rows_key(&v->shape);
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_softmax_prelude(v, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "softmax.cu", prelude.data, "", "softmax", function);
  pl_text_release(&prelude);
  return status;
}

static pl_array without(const pl_array *array, int dim) {
  pl_array view = *array;
  view.rank = 0;
  for (int axis = 0; axis < array->rank; axis++) {
    if (axis == dim) continue;
    view.size[view.rank] = array->size[axis];
    view.stride[view.rank++] = array->stride[axis];
  }
  return view;
}

/* Neighbours of V rows lie side by side in all arrays: the widest V. */
static int vector_across(const pl_array view[3], const int64_t step[3]) {
  const pl_array *views[3] = {&view[0], &view[1], &view[2]};
  int vector = pl_rows_vector(views, 3, view[0].size[view[0].rank - 1]);
  for (int i = 0; i < 3; i++)
    while (vector > 1 && step[i] % vector != 0) vector /= 2;
  return vector;
}

/* The rows' places with the axis itself behind them, as pl_rows_vector wants it. */
static int vector_along(const pl_array view[3], const int64_t step[3], int64_t length) {
  pl_array with[3];
  for (int i = 0; i < 3; i++) {
    if (step[i] != 1) return 1;
    with[i] = view[i];
    with[i].size[with[i].rank] = length;
    with[i].stride[with[i].rank++] = 1;
  }
  return pl_rows_vector((const pl_array *[]){&with[0], &with[1], &with[2]}, 3, length);
}

static pl_rows_shape strided_shape(int64_t length) {
  return (pl_rows_shape){length <= 8 ? 1 : length <= 1024 ? 32 : 256, 1, 0};
}

static int64_t blocks_of(const pl_softmax_variant *v, int64_t rows) {
  int64_t each = COLUMNS * v->shape.vector;
  return v->across ? (rows + each - 1) / each : pl_rows_blocks(&v->shape, rows);
}

/* In how many slices rows are cut, so that every multiprocessor has something to do. */
static int64_t slices_of(const pl_cuda *cuda, pl_softmax_variant *v, const job *j) {
  int64_t vectors = j->length / (v->across ? 1 : v->shape.vector), blocks = blocks_of(v, j->rows);
  int64_t most = vectors / (v->across ? ACROSS_SLICE_MIN : SLICE_VECTORS_MIN), wanted = 4 * cuda->multiprocessors;
  if (2 * blocks > cuda->multiprocessors || most < 2) return 1;
  if (!v->across) v->shape.width = 256, v->shape.hold = 0;
  int64_t slices = wanted / blocks_of(v, j->rows);
  slices = slices < most ? slices : most;
  return slices < SLICES_MAX ? slices : SLICES_MAX;
}

static pl_status launch(pl_cuda *cuda, const pl_softmax_variant *v, job *j, int64_t slices) {
  pl_cu_function function;
  PL_TRY(load(cuda, v, &function));
  return pl_cuda_launch(cuda, function, (uint64_t)blocks_of(v, j->rows), (unsigned)slices,
                        (unsigned)pl_rows_threads(&v->shape), 0, (void *[]){j});
}

static pl_status in_slices(pl_cuda *cuda, pl_softmax_variant *v, job *j, int64_t slices) {
  int64_t unit = v->across ? 1 : v->shape.vector;
  j->slice = ((j->length + slices - 1) / slices + unit - 1) / unit * unit;
  slices = (j->length + j->slice - 1) / j->slice;
  pl_buffer *tallies;
  size_t each = v->out == PL_F64 ? 16 : 8;
  PL_TRY(pl_buffer_new(&cuda->device, (size_t)(slices * j->rows) * each, &tallies));
  j->tallies = tallies->data;
  pl_status status = PL_OK;
  for (v->part = 1; v->part <= 2 && status == PL_OK; v->part++) status = launch(cuda, v, j, slices);
  pl_buffer_release(tallies);
  return status;
}

/* y == NULL: out = softmax(in). Otherwise in is the gradient at y and out the gradient of softmax's operand. */
static pl_status rows(pl_device *device, pl_softmax_kind kind, const pl_array *out, const pl_array *in,
                      const pl_array *y, int dim) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_REQUIRE(pl_dtype_is_float(in->dtype), "softmax: expected a floating-point type, got %s", pl_dtype_name(in->dtype));
  int64_t count = pl_array_count(in);
  if (count == 0) return PL_OK;
  const pl_array *array[3] = {out, in, y ? y : in};
  pl_array view[3];
  job j = {.out = pl_array_data(out),
           .in = pl_array_data(in),
           .y = pl_array_data(array[2]),
           .length = in->size[dim],
           .slice = in->size[dim],
           .rows = count / in->size[dim]};
  for (int i = 0; i < 3; i++) {
    view[i] = without(array[i], dim);
    j.step[i] = array[i]->size[dim] == 1 ? 1 : array[i]->stride[dim];
  }
  pl_arrays_merge((pl_array *[]){&view[0], &view[1], &view[2]}, 3);
  j.shape = pl_axes_of(&view[0], 1);
  for (int i = 0; i < 3; i++)
    for (int axis = 0; axis < view[0].rank; axis++) j.stride[i][axis] = view[i].stride[axis];
  int last = view[0].rank - 1;
  pl_softmax_variant v = {.kind = kind,
                          .gradient = y != NULL,
                          .out = out->dtype,
                          .in = in->dtype,
                          .y = array[2]->dtype,
                          .rank = view[0].rank,
                          .across = j.step[1] != 1 && last >= 0 && view[1].stride[last] == 1 && j.rows >= 8};
  bool along = j.step[0] == 1 && j.step[1] == 1 && j.step[2] == 1;
  if (v.across)
    v.shape = (pl_rows_shape){1, vector_across(view, j.step), 0};
  else if (along)
    v.shape = pl_rows_shape_of(j.length, vector_along(view, j.step, j.length), y ? 2 : 1);
  else
    v.shape = strided_shape(j.length);
  int64_t slices = slices_of(cuda, &v, &j);
  return slices > 1 ? in_slices(cuda, &v, &j, slices) : launch(cuda, &v, &j, 1);
}

pl_status pl_cuda_softmax(pl_device *device, pl_softmax_kind kind, const pl_array *out, const pl_array *in, int dim) {
  return rows(device, kind, out, in, NULL, dim);
}

pl_status pl_cuda_softmax_gradient(pl_device *device, pl_softmax_kind kind, const pl_array *gin, const pl_array *y,
                                   const pl_array *g, int dim) {
  return rows(device, kind, gin, g, y, dim);
}
