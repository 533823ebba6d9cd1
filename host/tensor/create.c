/* Random tensors, and what optimisers do to lists of tensors. */
#include "host/tensor/operations.h"

#include <stdlib.h>

static uint64_t seed_now, counter;

void pl_seed(uint64_t seed) {
  seed_now = seed;
  counter = 0;
}

void pl_random_state(uint64_t state[2]) {
  state[0] = seed_now;
  state[1] = counter;
}

void pl_set_random_state(const uint64_t state[2]) {
  seed_now = state[0];
  counter = state[1];
}

pl_status pl_random(pl_device *device, pl_dtype dtype, int rank, const int64_t *size, pl_distribution kind, double p0,
                    double p1, pl_tensor **out) {
  pl_tensor *tensor;
  PL_TRY(pl_tensor_new(device, dtype, rank, size, &tensor));
  pl_status status = device->random(device, kind, seed_now, counter, p0, p1, &tensor->array);
  if (status != PL_OK) {
    pl_tensor_release(tensor);
    return status;
  }
  counter += ((uint64_t)pl_tensor_count(tensor) + 3) / 4;
  *out = tensor;
  return PL_OK;
}

/* One parameter's part of the step, checked. */
static pl_status adam_part(pl_tensor *parameter, pl_tensor *first, pl_tensor *second, pl_tensor *master,
                           const pl_adam *factors, pl_adam *part) {
  pl_tensor *gradient = parameter->gradient;
  pl_dtype type = parameter->array.dtype, wide = type == PL_F64 ? PL_F64 : PL_F32;
  PL_REQUIRE(pl_dtype_is_float(type), "adam: the parameter is %s, expected a floating-point type", pl_dtype_name(type));
  PL_REQUIRE((type == wide) == !master, "adam: a master is for parameters of 16 bits, which need one; this is %s",
             pl_dtype_name(type));
  const struct {
    const char *name;
    pl_tensor *tensor;
    pl_dtype type;
  } all[] = {{"gradient", gradient, type},
             {"parameter", parameter, type},
             {"first moment", first, wide},
             {"second moment", second, wide},
             {"master", master, wide}};
  int count = master ? 5 : 4;
  for (int i = 0; i < count; i++) {
    const pl_array *array = &all[i].tensor->array;
    PL_REQUIRE(pl_array_same_shape(array, &parameter->array) && array->dtype == all[i].type &&
                   pl_tensor_device(all[i].tensor) == pl_tensor_device(parameter),
               "adam: the %s is %s %s on %s, expected %s %s on %s", all[i].name, pl_dtype_name(array->dtype),
               pl_shape_text(array), pl_tensor_device(all[i].tensor)->name, pl_dtype_name(all[i].type),
               pl_shape_text(&parameter->array), pl_tensor_device(parameter)->name);
    PL_REQUIRE(pl_array_contiguous(array), "adam: the %s must be contiguous", all[i].name);
  }
  for (int i = 1; i < count; i++) PL_TRY(pl_tensor_mutate(all[i].tensor, "adam"));
  *part = *factors;
  part->parameter = &parameter->array;
  part->master = master ? &master->array : NULL;
  part->first = &first->array;
  part->second = &second->array;
  part->gradient = &gradient->array;
  return PL_OK;
}

/* Whether two parts can be done together. */
static bool alike(const pl_adam *a, const pl_adam *b) {
  return a->parameter->buffer->device == b->parameter->buffer->device && a->parameter->dtype == b->parameter->dtype;
}

pl_status pl_adam_step(pl_tensor *const parameter[], pl_tensor *const first[], pl_tensor *const second[],
                       pl_tensor *const master[], int count, const pl_adam *factors) {
  pl_adam *parts = pl_allocate((size_t)(count + 1) * sizeof *parts);
  pl_status status = PL_OK;
  int made = 0;
  for (int i = 0; i < count && status == PL_OK; i++)
    if (parameter[i]->gradient)
      status = adam_part(parameter[i], first[i], second[i], master[i], factors, &parts[made++]);
  for (int start = 0, end; start < made && status == PL_OK; start = end) {
    for (end = start + 1; end < made && alike(&parts[start], &parts[end]);) end++;
    pl_device *device = parts[start].parameter->buffer->device;
    status = device->adam(device, parts + start, end - start);
  }
  free(parts);
  return status;
}

/* The arrays of packed forms of the tensors, which *packed keeps. */
static pl_status pack_all(pl_tensor *const list[], int count, pl_tensor **packed, const pl_array **arrays) {
  for (int i = 0; i < count; i++) {
    PL_REQUIRE(pl_dtype_is_float(list[i]->array.dtype) && list[i]->array.dtype == list[0]->array.dtype &&
                   pl_tensor_device(list[i]) == pl_tensor_device(list[0]),
               "sum_of_squares: tensor %d is %s on %s, expected a floating-point type as tensor 1, %s on %s", i + 1,
               pl_dtype_name(list[i]->array.dtype), pl_tensor_device(list[i])->name,
               pl_dtype_name(list[0]->array.dtype), pl_tensor_device(list[0])->name);
    PL_TRY(pl_contiguous(list[i], &packed[i]));
    arrays[i] = &packed[i]->array;
  }
  return PL_OK;
}

pl_status pl_sum_of_squares(pl_tensor *const list[], int count, pl_tensor **out) {
  PL_REQUIRE(count > 0, "sum_of_squares: expected at least one tensor");
  pl_tensor **packed = pl_allocate((size_t)count * sizeof *packed), *sum = NULL;
  const pl_array **arrays = pl_allocate((size_t)count * sizeof *arrays);
  pl_device *device = pl_tensor_device(list[0]);
  bool was = pl_set_recording(false);
  pl_status status = pack_all(list, count, packed, arrays);
  if (status == PL_OK) status = pl_tensor_new(device, list[0]->array.dtype == PL_F64 ? PL_F64 : PL_F32, 0, NULL, &sum);
  if (status == PL_OK) status = device->squares(device, arrays, count, &sum->array);
  pl_set_recording(was);
  for (int i = 0; i < count; i++) pl_tensor_release(packed[i]);
  free(packed);
  free(arrays);
  if (status == PL_OK)
    *out = sum;
  else
    pl_tensor_release(sum);
  return status;
}

static bool scaled_together(const pl_tensor *a, const pl_tensor *b) {
  return a->array.dtype == b->array.dtype && pl_tensor_device(a) == pl_tensor_device(b) &&
         pl_array_contiguous(&b->array);
}

/* A tensor whose elements do not follow each other is scaled by itself. */
static pl_status scale_strided(pl_tensor *t, double factor) {
  pl_array number = pl_array_number(factor);
  const pl_array *in[PL_OPERANDS] = {&t->array, &number};
  pl_device *device = pl_tensor_device(t);
  return device->pointwise(device, PL_OP_mul, PL_VALUE, &t->array, in);
}

pl_status pl_scale_all(pl_tensor *const list[], int count, double factor) {
  for (int i = 0; i < count; i++) {
    PL_REQUIRE(pl_dtype_is_float(list[i]->array.dtype), "scale_all: tensor %d: expected a floating-point type, got %s",
               i + 1, pl_dtype_name(list[i]->array.dtype));
    PL_TRY(pl_tensor_mutate(list[i], "scale_all"));
  }
  const pl_array **arrays = pl_allocate((size_t)(count + 1) * sizeof *arrays);
  pl_status status = PL_OK;
  for (int start = 0, end; start < count && status == PL_OK; start = end) {
    end = start + 1;
    if (!pl_array_contiguous(&list[start]->array)) {
      status = scale_strided(list[start], factor);
      continue;
    }
    while (end < count && scaled_together(list[start], list[end])) end++;
    for (int i = start; i < end; i++) arrays[i - start] = &list[i]->array;
    pl_device *device = pl_tensor_device(list[start]);
    status = device->scale(device, arrays, end - start, factor);
  }
  free(arrays);
  return status;
}
