/* Random tensors and the optimiser's step. */
#include "host/tensor/operations.h"

#include <stdlib.h>

static uint64_t seed_now, counter;

void pl_seed(uint64_t seed) {
  seed_now = seed;
  counter = 0;
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
static pl_status adam_part(pl_tensor *parameter, pl_tensor *first, pl_tensor *second, const pl_adam *factors,
                           pl_adam *part) {
  pl_tensor *gradient = parameter->gradient;
  pl_tensor *const all[] = {parameter, first, second, gradient};
  static const char *const names[] = {"parameter", "first moment", "second moment", "gradient"};
  for (int i = 0; i < 4; i++) {
    PL_REQUIRE(pl_array_same_shape(&all[i]->array, &parameter->array) &&
                   all[i]->array.dtype == parameter->array.dtype &&
                   pl_tensor_device(all[i]) == pl_tensor_device(parameter),
               "adam: the %s is %s %s, expected %s %s as the parameter", names[i], pl_dtype_name(all[i]->array.dtype),
               pl_shape_text(&all[i]->array), pl_dtype_name(parameter->array.dtype), pl_shape_text(&parameter->array));
    PL_REQUIRE(pl_array_contiguous(&all[i]->array), "adam: the %s must be contiguous", names[i]);
  }
  for (int i = 0; i < 3; i++) PL_TRY(pl_tensor_mutate(all[i], "adam"));
  *part = *factors;
  part->parameter = &parameter->array;
  part->first = &first->array;
  part->second = &second->array;
  part->gradient = &gradient->array;
  return PL_OK;
}

/* Whether two parts can be done together. */
static bool alike(const pl_adam *a, const pl_adam *b) {
  return a->parameter->buffer->device == b->parameter->buffer->device && a->parameter->dtype == b->parameter->dtype;
}

pl_status pl_adam_step(pl_tensor *const parameter[], pl_tensor *const first[], pl_tensor *const second[], int count,
                       const pl_adam *factors) {
  pl_adam *parts = pl_allocate((size_t)(count + 1) * sizeof *parts);
  pl_status status = PL_OK;
  int made = 0;
  for (int i = 0; i < count && status == PL_OK; i++)
    if (parameter[i]->gradient) status = adam_part(parameter[i], first[i], second[i], factors, &parts[made++]);
  for (int start = 0, end; start < made && status == PL_OK; start = end) {
    for (end = start + 1; end < made && alike(&parts[start], &parts[end]);) end++;
    pl_device *device = parts[start].parameter->buffer->device;
    status = device->adam(device, parts + start, end - start);
  }
  free(parts);
  return status;
}
