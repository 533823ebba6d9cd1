/* Layer norm and RMS norm of rows, forward and backward. */
#include "host/cuda/primitives.h"
#include "host/cuda/rows.h"

enum { COLUMNS = 32, SLICE_MIN = 32, SLICES_MAX = 512 };

/* As in kernels/norm.cu. */
typedef struct {
  void *y;
  const void *x, *weight, *bias;
  void *mean, *scale;
  const void *g;
  void *gx, *partial[2];
  int64_t rows, length, slice, x_row, g_row;
  double epsilon;
} job;

void pl_norm_prelude(const pl_norm_variant *variant, pl_text *text) {
  static const char *const steps[] = {"FORWARD", "INPUT_GRADIENT", "WEIGHT_GRADIENT"};
  pl_rows_prelude(&variant->shape, variant->y, variant->y, text);
  pl_text_print(text,
                "#define STEP %s\n#define CENTRED %d\n#define WEIGHTED %d\n#define BIASED %d\n#define ADDING %d\n"
                "#define TYPE_Y %s\n#define TYPE_X %s\n"
                "#define TYPE_WEIGHT %s\n#define TYPE_BIAS %s\n",
                steps[variant->step], variant->centred, variant->weighted, variant->biased, variant->adding,
                pl_layout_type(variant->y), pl_layout_type(variant->x), pl_layout_type(variant->weight),
                pl_layout_type(variant->bias));
}

static pl_status load(pl_cuda *cuda, const pl_norm_variant *v, pl_cu_function *function) {
  uint64_t key = PL_FAMILY_NORM;
  key = key << 6 | (uint64_t)v->step << 4 | (uint64_t)v->centred << 3 | (uint64_t)v->weighted << 2 |
        (uint64_t)v->biased << 1 | v->adding;
  key = key << 16 | (uint64_t)v->y << 12 | (uint64_t)v->x << 8 | (uint64_t)v->weight << 4 | v->bias;
  key = key << 34 | pl_rows_key(&v->shape);
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_norm_prelude(v, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "norm.cu", prelude.data, "", "normalise", function);
  pl_text_release(&prelude);
  return status;
}

static pl_norm_variant variant_of(const pl_norm *norm, pl_norm_step step, const pl_array *y, bool biased) {
  return (pl_norm_variant){.step = step,
                           .centred = norm->centred,
                           .weighted = norm->weight != NULL,
                           .biased = biased,
                           .y = y->dtype,
                           .x = norm->x->dtype,
                           .weight = norm->weight ? norm->weight->dtype : PL_F32,
                           .bias = biased ? norm->bias->dtype : PL_F32};
}

static job job_of(const pl_norm *norm, const pl_array *mean, const pl_array *scale) {
  return (job){.x = pl_array_data(norm->x),
               .weight = norm->weight ? pl_array_data(norm->weight) : NULL,
               .bias = norm->bias ? pl_array_data(norm->bias) : NULL,
               .mean = norm->centred ? pl_array_data(mean) : NULL,
               .scale = pl_array_data(scale),
               .rows = norm->x->size[0],
               .length = norm->x->size[1],
               .x_row = norm->x->stride[0],
               .epsilon = norm->epsilon};
}

/* The widest vectors for those of the arrays that are there. */
static int vector_of(const pl_array *const arrays[], int count, int64_t length) {
  const pl_array *there[4];
  int found = 0;
  for (int i = 0; i < count; i++)
    if (arrays[i]) there[found++] = arrays[i];
  return pl_rows_vector(there, found, length);
}

static pl_status by_rows(pl_cuda *cuda, const pl_norm_variant *v, job *j) {
  pl_cu_function function;
  PL_TRY(load(cuda, v, &function));
  return pl_cuda_launch(cuda, function, (uint64_t)pl_rows_blocks(&v->shape, j->rows), 1,
                        (unsigned)pl_rows_threads(&v->shape), 0, (void *[]){j});
}

pl_status pl_cuda_norm(pl_device *device, const pl_norm *norm, const pl_array *y, const pl_array *mean,
                       const pl_array *scale) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  if (pl_array_count(y) == 0) return PL_OK;
  job j = job_of(norm, mean, scale);
  j.y = pl_array_data(y);
  pl_norm_variant v = variant_of(norm, PL_NORM_FORWARD, y, norm->bias != NULL);
  int vector = vector_of((const pl_array *[]){y, norm->x, norm->weight, norm->bias}, 4, j.length);
  v.shape = pl_rows_shape_of(j.length, vector, 1);
  return by_rows(cuda, &v, &j);
}

static pl_status input_gradient(pl_cuda *cuda, const pl_norm *norm, const pl_array *g, const pl_array *gx, job j) {
  j.gx = pl_array_data(gx);
  pl_norm_variant v = variant_of(norm, PL_NORM_INPUT, g, false);
  v.adding = norm->adding;
  int vector = vector_of((const pl_array *[]){g, gx, norm->x, norm->weight}, 4, j.length);
  v.shape = pl_rows_shape_of(j.length, vector, 2);
  return by_rows(cuda, &v, &j);
}

/* Partial sums per slice of the rows, then the sums of these. */
static pl_status weight_gradient(pl_cuda *cuda, const pl_norm *norm, const pl_array *g, job j,
                                 const pl_array *const gradients[2]) {
  pl_norm_variant v = variant_of(norm, PL_NORM_WEIGHT, g, false);
  v.weighted = false;
  v.shape = (pl_rows_shape){1, pl_rows_vector((const pl_array *[]){g, norm->x}, 2, j.length), 0};
  int64_t blocks = (j.length + COLUMNS * v.shape.vector - 1) / (COLUMNS * v.shape.vector);
  int64_t slices = 8 * (int64_t)cuda->multiprocessors / blocks, most = j.rows / SLICE_MIN;
  slices = slices < most ? slices : most;
  slices = slices < 1 ? 1 : slices > SLICES_MAX ? SLICES_MAX : slices;
  j.slice = (j.rows + slices - 1) / slices;
  slices = (j.rows + j.slice - 1) / j.slice;
  pl_array partial = {.dtype = g->dtype == PL_F64 ? PL_F64 : PL_F32, .rank = 2, .size = {slices, j.length}};
  pl_array_pack(&partial);
  size_t bytes = (size_t)(slices * j.length) * pl_dtype_size(partial.dtype);
  pl_buffer *sums;
  PL_TRY(pl_buffer_new(&cuda->device, 2 * bytes, &sums));
  for (int i = 0; i < 2; i++) j.partial[i] = gradients[i] ? (char *)sums->data + (size_t)i * bytes : NULL;
  partial.buffer = sums;
  pl_cu_function function;
  pl_status status = load(cuda, &v, &function);
  if (status == PL_OK)
    status = pl_cuda_launch(cuda, function, (uint64_t)blocks, (unsigned)slices, 256, 0, (void *[]){&j});
  for (int i = 0; i < 2 && status == PL_OK; i++) {
    if (!gradients[i]) continue;
    pl_array out = *gradients[i], in = partial;
    out.rank = 2, out.size[1] = j.length, out.size[0] = 1, out.stride[1] = 1, out.stride[0] = j.length;
    in.offset = i * slices * j.length;
    status = pl_cuda_reduce(&cuda->device, PL_SUM, 1, &out, &in);
  }
  pl_buffer_release(sums);
  return status;
}

static pl_status fill_zero(pl_device *device, const pl_array *array) {
  pl_array zero = pl_array_number(0);
  return array ? pl_cuda_copy(device, array, &zero) : PL_OK;
}

pl_status pl_cuda_norm_gradient(pl_device *device, const pl_norm *norm, const pl_array *mean, const pl_array *scale,
                                const pl_array *g, const pl_array *gx, const pl_array *gweight, const pl_array *gbias) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  if (pl_array_count(g) == 0) {
    PL_TRY(fill_zero(device, gweight));
    return fill_zero(device, gbias);
  }
  job j = job_of(norm, mean, scale);
  j.g = pl_array_data(g);
  j.g_row = g->stride[0];
  if (gx) PL_TRY(input_gradient(cuda, norm, g, gx, j));
  return gweight || gbias ? weight_gradient(cuda, norm, g, j, (const pl_array *[]){gweight, gbias}) : PL_OK;
}
