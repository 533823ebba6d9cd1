/* Cross-entropy of rows of logits, and its gradient. */
#include "host/cuda/primitives.h"
#include "host/cuda/rows.h"

/* As in kernels/cross_entropy.cu. */
typedef struct {
  const void *logits, *labels;
  void *loss, *shift;
  const void *g;
  void *gradient;
  int64_t rows, classes, first, row, g_row, ignoring, ignored;
  double smoothing;
  pl_complaints complaint;
} job;

void pl_cross_entropy_prelude(const pl_cross_entropy_variant *variant, pl_text *text) {
  pl_rows_prelude(&variant->shape, variant->type, variant->type, text);
  pl_text_print(text, "#define GRADIENT %d\n#define TYPE %s\n#define TYPE_LABEL %s\n#define SMOOTH %d\n",
                variant->gradient, pl_layout_type(variant->type), pl_layout_type(variant->label), variant->smooth);
}

static pl_status load(pl_cuda *cuda, const pl_cross_entropy_variant *v, pl_cu_function *function) {
  uint64_t key = PL_FAMILY_CROSS_ENTROPY;
  key = key << 10 | (uint64_t)v->gradient << 9 | (uint64_t)v->smooth << 8 | (uint64_t)v->type << 4 | v->label;
  key = key << 46 | pl_rows_key(&v->shape);
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_cross_entropy_prelude(v, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "cross_entropy.cu", prelude.data, "", "cross_entropy", function);
  pl_text_release(&prelude);
  return status;
}

static job job_of(const pl_cuda *cuda, const pl_cross_entropy *entropy, const pl_array *shift) {
  return (job){.logits = pl_array_data(entropy->logits),
               .labels = pl_array_data(entropy->labels),
               .shift = pl_array_data(shift),
               .rows = entropy->logits->size[0],
               .classes = entropy->logits->size[1],
               .first = entropy->first,
               .row = entropy->logits->stride[0],
               .ignoring = entropy->ignoring,
               .ignored = entropy->ignored,
               .smoothing = entropy->smoothing,
               .complaint = pl_complaints_of(cuda)};
}

static pl_status launch(pl_cuda *cuda, const pl_cross_entropy *entropy, const pl_array *const arrays[], int count,
                        bool gradient, job *j) {
  pl_cross_entropy_variant v = {.gradient = gradient,
                                .smooth = entropy->smoothing > 0,
                                .type = entropy->logits->dtype,
                                .label = entropy->labels->dtype,
                                .shape = pl_rows_shape_of(j->classes, pl_rows_vector(arrays, count, j->classes), 0)};
  pl_cu_function function;
  PL_TRY(load(cuda, &v, &function));
  return pl_cuda_launch(cuda, function, (uint64_t)pl_rows_blocks(&v.shape, j->rows), 1,
                        (unsigned)pl_rows_threads(&v.shape), 0, (void *[]){j});
}

pl_status pl_cuda_cross_entropy(pl_device *device, const pl_cross_entropy *entropy, const pl_array *loss,
                                const pl_array *shift) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  if (pl_array_count(loss) == 0) return PL_OK;
  job j = job_of(cuda, entropy, shift);
  j.loss = pl_array_data(loss);
  return launch(cuda, entropy, (const pl_array *[]){entropy->logits}, 1, false, &j);
}

pl_status pl_cuda_cross_entropy_gradient(pl_device *device, const pl_cross_entropy *entropy, const pl_array *shift,
                                         const pl_array *g, const pl_array *gradient) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  if (pl_array_count(gradient) == 0) return PL_OK;
  job j = job_of(cuda, entropy, shift);
  j.g = pl_array_data(g);
  j.g_row = g->stride[0];
  j.gradient = pl_array_data(gradient);
  return launch(cuda, entropy, (const pl_array *[]){entropy->logits, gradient}, 2, true, &j);
}
