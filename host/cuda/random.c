/* Random numbers. */
#include "host/cuda/layout.h"
#include "host/cuda/lists.h"
#include "host/cuda/primitives.h"

enum { THREADS = 256 };

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
  PL_TRY(pl_cuda_refuse_recorded(cuda, "drawing random numbers"));
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
