/* Random tensors and the optimiser's step. */
#include "host/tensor/operations.h"

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

pl_status pl_adam_step(pl_tensor *parameter, pl_tensor *first, pl_tensor *second, const pl_adam *factors) {
  pl_tensor *gradient = parameter->gradient;
  if (!gradient) return PL_OK;
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
  pl_adam step = *factors;
  step.parameter = &parameter->array;
  step.first = &first->array;
  step.second = &second->array;
  step.gradient = &gradient->array;
  pl_device *device = pl_tensor_device(parameter);
  return device->adam(device, &step);
}
