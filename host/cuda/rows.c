/* Random numbers, softmax and its gradient, and the Adam step. */
#include "host/cuda/rows.h"

#include "host/cuda/layout.h"
#include "host/cuda/primitives.h"
#include <math.h>

enum { THREADS = 256 };

static const char *compute_type(pl_dtype type) { return type == PL_F64 ? "double" : "float"; }

/* ---- random numbers ---- */

/* As in kernels/random.cu. */
typedef struct {
  void *out;
  int64_t count;
  pl_axes shape;
  int64_t stride[1][PL_RANK_MAX];
  uint64_t seed, offset;
  double p0, p1;
} random_job;

void pl_random_prelude(pl_distribution kind, pl_dtype type, int rank, pl_text *text) {
  static const char *const kinds[] = {
      [PL_UNIFORM] = "UNIFORM", [PL_NORMAL] = "NORMAL", [PL_BERNOULLI] = "BERNOULLI", [PL_INTEGER] = "WHOLE"};
  pl_text_print(text, "#define KIND %s\n#define TYPE %s\n#define RANK %d\n", kinds[kind], pl_layout_type(type), rank);
}

pl_status pl_cuda_random(pl_device *device, pl_distribution kind, uint64_t seed, uint64_t offset, double p0, double p1,
                         const pl_array *out) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  pl_array view = *out;
  pl_arrays_merge((pl_array *[]){&view}, 1);
  random_job job = {.out = pl_array_data(out),
                    .count = pl_array_count(out),
                    .shape = pl_axes_of(&view, 1),
                    .seed = seed,
                    .offset = offset,
                    .p0 = p0,
                    .p1 = p1};
  for (int axis = 0; axis < view.rank; axis++) job.stride[0][axis] = view.stride[axis];
  uint64_t key =
      (uint64_t)PL_FAMILY_RANDOM << 56 | (uint64_t)kind << 16 | (uint64_t)out->dtype << 8 | (uint64_t)view.rank;
  pl_cu_function function = pl_cuda_kernel_found(cuda, key);
  if (!function) {
    pl_text prelude = {0};
    pl_random_prelude(kind, out->dtype, view.rank, &prelude);
    pl_status status = pl_cuda_kernel_load(cuda, key, "random.cu", prelude.data, "", "random", &function);
    pl_text_release(&prelude);
    PL_TRY(status);
  }
  enum { EACH = 4 * THREADS };
  return pl_cuda_launch(cuda, function, (uint64_t)(job.count + EACH - 1) / EACH, 1, THREADS, 0, (void *[]){&job});
}

/* ---- softmax ---- */

/* As in kernels/softmax.cu. */
typedef struct {
  void *out;
  const void *in, *y;
  int64_t rows, length;
  pl_axes shape;
  int64_t stride[3][PL_RANK_MAX], step[3];
} softmax_job;

void pl_softmax_prelude(const pl_softmax_variant *variant, pl_text *text) {
  pl_text_print(text,
                "#define LOGARITHM %d\n#define GRADIENT %d\ntypedef %s T;\n#define TYPE_OUT %s\n#define TYPE_IN %s\n"
                "#define TYPE_Y %s\n#define RANK %d\n#define W %d\n",
                variant->kind == PL_LOG_SOFTMAX, variant->gradient, compute_type(variant->out),
                pl_layout_type(variant->out), pl_layout_type(variant->in), pl_layout_type(variant->y), variant->rank,
                variant->width);
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

static pl_status load_softmax(pl_cuda *cuda, const pl_softmax_variant *v, pl_cu_function *function) {
  uint64_t key = (uint64_t)PL_FAMILY_SOFTMAX << 56 | (uint64_t)v->kind << 48 | (uint64_t)v->gradient << 40 |
                 (uint64_t)v->out << 32 | (uint64_t)v->in << 24 | (uint64_t)v->y << 20 | (uint64_t)v->rank << 16 |
                 (uint64_t)v->width;
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_softmax_prelude(v, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "softmax.cu", prelude.data, "", "softmax", function);
  pl_text_release(&prelude);
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
  softmax_job job = {.out = pl_array_data(out),
                     .in = pl_array_data(in),
                     .y = pl_array_data(array[2]),
                     .length = in->size[dim],
                     .rows = count / in->size[dim]};
  for (int i = 0; i < 3; i++) {
    view[i] = without(array[i], dim);
    job.step[i] = array[i]->stride[dim];
  }
  pl_arrays_merge((pl_array *[]){&view[0], &view[1], &view[2]}, 3);
  job.shape = pl_axes_of(&view[0], 1);
  for (int i = 0; i < 3; i++)
    for (int axis = 0; axis < view[0].rank; axis++) job.stride[i][axis] = view[i].stride[axis];
  /* Side by side along another axis: one thread for each row reads what its neighbours read beside it. */
  bool across = job.step[1] != 1 && job.rows >= 64;
  pl_softmax_variant variant = {.kind = kind,
                                .gradient = y != NULL,
                                .out = out->dtype,
                                .in = in->dtype,
                                .y = array[2]->dtype,
                                .rank = view[0].rank,
                                .width = across || job.length <= 8 ? 1
                                         : job.length <= 1024      ? 32
                                                                   : THREADS};
  pl_cu_function function;
  PL_TRY(load_softmax(cuda, &variant, &function));
  int64_t each = THREADS / variant.width;
  return pl_cuda_launch(cuda, function, (uint64_t)((job.rows + each - 1) / each), 1, THREADS, 0, (void *[]){&job});
}

pl_status pl_cuda_softmax(pl_device *device, pl_softmax_kind kind, const pl_array *out, const pl_array *in, int dim) {
  return rows(device, kind, out, in, NULL, dim);
}

pl_status pl_cuda_softmax_gradient(pl_device *device, pl_softmax_kind kind, const pl_array *gin, const pl_array *y,
                                   const pl_array *g, int dim) {
  return rows(device, kind, gin, g, y, dim);
}

/* ---- squares ---- */

enum { ARRAYS = 64, SQUARES_CHUNK = 4096 };

/* As in kernels/squares.cu. */
typedef struct {
  const void *array[ARRAYS];
  int64_t count[ARRAYS];
  uint32_t chunk[ARRAYS + 1];
  void *partial;
} squares_job;

void pl_squares_prelude(pl_dtype type, pl_text *text) {
  pl_text_print(text, "typedef %s ACC;\n#define TYPE %s\n", compute_type(type), pl_layout_type(type));
}

static pl_status load_squares(pl_cuda *cuda, pl_dtype type, pl_cu_function *function) {
  uint64_t key = (uint64_t)PL_FAMILY_SQUARES << 56 | type;
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_squares_prelude(type, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "squares.cu", prelude.data, "", "squares", function);
  pl_text_release(&prelude);
  return status;
}

static int64_t chunks_of(const pl_array *array) { return (pl_array_count(array) + SQUARES_CHUNK - 1) / SQUARES_CHUNK; }

/* Partial sums of all arrays, ARRAYS of them per launch, side by side in `partial`. */
static pl_status partial_squares(pl_cuda *cuda, const pl_array *const arrays[], int count, const pl_array *partial) {
  pl_cu_function function;
  PL_TRY(load_squares(cuda, arrays[0]->dtype, &function));
  char *place = pl_array_data(partial);
  for (int done = 0; done < count; done += ARRAYS) {
    squares_job job = {.partial = place};
    int now = count - done < ARRAYS ? count - done : ARRAYS;
    for (int i = 0; i < now; i++) {
      job.array[i] = pl_array_data(arrays[done + i]);
      job.count[i] = pl_array_count(arrays[done + i]);
      job.chunk[i + 1] = job.chunk[i] + (uint32_t)chunks_of(arrays[done + i]);
    }
    PL_TRY(pl_cuda_launch(cuda, function, job.chunk[now], 1, THREADS, 0, (void *[]){&job}));
    place += job.chunk[now] * pl_dtype_size(partial->dtype);
  }
  return PL_OK;
}

pl_status pl_cuda_squares(pl_device *device, const pl_array *const arrays[], int count, const pl_array *out) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  pl_array partial = {.dtype = count > 0 && arrays[0]->dtype == PL_F64 ? PL_F64 : PL_F32, .rank = 1, .stride = {1}};
  for (int i = 0; i < count; i++) partial.size[0] += chunks_of(arrays[i]);
  PL_REQUIRE(partial.size[0] < INT32_MAX, "norm: too many elements");
  if (partial.size[0] == 0) {
    pl_array zero = pl_array_number(0);
    return pl_cuda_copy(device, out, &zero);
  }
  PL_TRY(pl_buffer_new(device, (size_t)partial.size[0] * pl_dtype_size(partial.dtype), &partial.buffer));
  pl_status status = partial_squares(cuda, arrays, count, &partial);
  pl_array single = *out;
  single.rank = 1, single.size[0] = 1, single.stride[0] = 1;
  if (status == PL_OK) status = pl_cuda_reduce(device, PL_SUM, &single, &partial);
  pl_buffer_release(partial.buffer);
  return status;
}

/* ---- Adam ---- */

enum { TENSORS = 48, CHUNK = 2048 };

/* As in kernels/adam.cu. */
typedef struct {
  void *parameter[TENSORS], *first[TENSORS], *second[TENSORS];
  const void *gradient[TENSORS];
  int64_t count[TENSORS];
  uint32_t chunk[TENSORS + 1];
  double beta1, beta2, rate, epsilon, root, joined, shrink;
} adam_job;

void pl_adam_prelude(pl_dtype type, pl_text *text) { pl_text_print(text, "typedef %s T;\n", compute_type(type)); }

static pl_status load_adam(pl_cuda *cuda, pl_dtype type, pl_cu_function *function) {
  uint64_t key = (uint64_t)PL_FAMILY_ADAM << 56 | type;
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_adam_prelude(type, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "adam.cu", prelude.data, "", "adam", function);
  pl_text_release(&prelude);
  return status;
}

/* Up to TENSORS parameters in one launch. */
static pl_status adam_together(pl_cuda *cuda, pl_cu_function function, const pl_adam *steps, int count) {
  const pl_adam *step = steps;
  adam_job job = {.beta1 = step->beta1,
                  .beta2 = step->beta2,
                  .rate = step->rate / step->correction1,
                  .epsilon = step->epsilon,
                  .root = 1 / sqrt(step->correction2),
                  .joined = step->decoupled ? 0 : step->decay,
                  .shrink = step->decoupled ? 1 - step->rate * step->decay : 1};
  for (int i = 0; i < count; i++) {
    job.parameter[i] = pl_array_data(steps[i].parameter);
    job.first[i] = pl_array_data(steps[i].first);
    job.second[i] = pl_array_data(steps[i].second);
    job.gradient[i] = pl_array_data(steps[i].gradient);
    job.count[i] = pl_array_count(steps[i].parameter);
    int64_t chunks = (job.count[i] + CHUNK - 1) / CHUNK;
    PL_REQUIRE(job.chunk[i] + chunks < INT32_MAX, "adam: too many elements for one launch");
    job.chunk[i + 1] = job.chunk[i] + (uint32_t)chunks;
  }
  return pl_cuda_launch(cuda, function, job.chunk[count], 1, THREADS, 0, (void *[]){&job});
}

pl_status pl_cuda_adam(pl_device *device, const pl_adam *steps, int count) {
  pl_cuda *cuda;
  pl_cu_function function;
  pl_dtype type = steps->parameter->dtype;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_REQUIRE(type == PL_F32 || type == PL_F64, "adam: parameters of float32 or float64 only, got %s",
             pl_dtype_name(type));
  PL_TRY(load_adam(cuda, type, &function));
  for (int done = 0; done < count; done += TENSORS)
    PL_TRY(adam_together(cuda, function, steps + done, count - done < TENSORS ? count - done : TENSORS));
  return PL_OK;
}
