/* Many arrays at once: sums of squares, scaling, and the Adam step. */
#include "host/cuda/lists.h"

#include "host/cuda/layout.h"
#include "host/cuda/primitives.h"
#include <math.h>

enum { THREADS = 256, ARRAYS = 64, CHUNK_BYTES = 16384, TENSORS = 48, ADAM_CHUNK = 2048 };

static const char *compute_type(pl_dtype type) { return type == PL_F64 ? "double" : "float"; }

/* ---- squares and scaling: kernels/squares.cu and kernels/scale.cu have these structures ---- */

typedef struct {
  const void *array[ARRAYS];
  int64_t count[ARRAYS];
  uint32_t chunk[ARRAYS + 1];
  void *partial;
} squares_job;

typedef struct {
  void *array[ARRAYS];
  int64_t count[ARRAYS];
  uint32_t chunk[ARRAYS + 1];
  double factor;
} scale_job;

void pl_list_prelude(pl_dtype type, pl_text *text) {
  pl_text_print(text, "typedef %s ACC;\n#define TYPE %s\n", compute_type(type), pl_layout_type(type));
}

void pl_adam_prelude(pl_dtype type, pl_text *text) {
  pl_text_print(text, "typedef %s T;\n#define TYPE %s\n", compute_type(type), pl_layout_type(type));
}

static pl_status load(pl_cuda *cuda, int family, const char *name, void (*prelude)(pl_dtype type, pl_text *text),
                      pl_dtype type, pl_cu_function *function) {
  uint64_t key = (uint64_t)family << 56 | type;
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text text = {0}, file = {0};
  prelude(type, &text);
  pl_text_print(&file, "%s.cu", name);
  pl_status status = pl_cuda_kernel_load(cuda, key, file.data, text.data, "", name, function);
  pl_text_release(&text);
  pl_text_release(&file);
  return status;
}

static int64_t chunks_of(const pl_array *array) {
  int64_t chunk = CHUNK_BYTES / (int64_t)pl_dtype_size(array->dtype);
  return (pl_array_count(array) + chunk - 1) / chunk;
}

/* Partial sums of all arrays, ARRAYS of them per launch, side by side in `partial`. */
static pl_status partial_squares(pl_cuda *cuda, const pl_array *const arrays[], int count, const pl_array *partial) {
  pl_cu_function function;
  PL_TRY(load(cuda, PL_FAMILY_SQUARES, "squares", pl_list_prelude, arrays[0]->dtype, &function));
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
  if (status == PL_OK) status = pl_cuda_reduce(device, PL_SUM, 1, &single, &partial);
  pl_buffer_release(partial.buffer);
  return status;
}

pl_status pl_cuda_scale(pl_device *device, const pl_array *const arrays[], int count, double factor) {
  pl_cuda *cuda;
  pl_cu_function function;
  if (count == 0) return PL_OK;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(load(cuda, PL_FAMILY_SCALE, "scale", pl_list_prelude, arrays[0]->dtype, &function));
  for (int done = 0; done < count; done += ARRAYS) {
    scale_job job = {.factor = factor};
    int now = count - done < ARRAYS ? count - done : ARRAYS;
    for (int i = 0; i < now; i++) {
      int64_t chunks = chunks_of(arrays[done + i]);
      PL_REQUIRE(job.chunk[i] + chunks < INT32_MAX, "scale: too many elements for one launch");
      job.array[i] = pl_array_data(arrays[done + i]);
      job.count[i] = pl_array_count(arrays[done + i]);
      job.chunk[i + 1] = job.chunk[i] + (uint32_t)chunks;
    }
    PL_TRY(pl_cuda_launch(cuda, function, job.chunk[now], 1, THREADS, 0, (void *[]){&job}));
  }
  return PL_OK;
}

/* ---- Adam ---- */

/* As in kernels/adam.cu. */
typedef struct {
  void *parameter[TENSORS], *master[TENSORS], *first[TENSORS], *second[TENSORS];
  const void *gradient[TENSORS];
  int64_t count[TENSORS];
  uint32_t chunk[TENSORS + 1];
  double beta1, beta2, rate, epsilon, root, joined, shrink;
} adam_job;

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
    job.master[i] = steps[i].master ? pl_array_data(steps[i].master) : NULL;
    job.first[i] = pl_array_data(steps[i].first);
    job.second[i] = pl_array_data(steps[i].second);
    job.gradient[i] = pl_array_data(steps[i].gradient);
    job.count[i] = pl_array_count(steps[i].parameter);
    int64_t chunks = (job.count[i] + ADAM_CHUNK - 1) / ADAM_CHUNK;
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
  PL_TRY(load(cuda, PL_FAMILY_ADAM, "adam", pl_adam_prelude, type, &function));
  for (int done = 0; done < count; done += TENSORS)
    PL_TRY(adam_together(cuda, function, steps + done, count - done < TENSORS ? count - done : TENSORS));
  return PL_OK;
}
