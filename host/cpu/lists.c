/* Many arrays at once: sums of squares, scaling, and the Adam step. */
#include "host/cpu/blocks.h"

static double squares_of(const pl_array *array, pl_compute compute, int64_t start, int64_t end) {
  _Alignas(64) char room[PL_BLOCK_BYTES];
  double total = 0;
  for (int64_t at = start; at < end; at += PL_BLOCK) {
    int64_t n = end - at < PL_BLOCK ? end - at : PL_BLOCK;
    const void *block = pl_blocks_read(array, compute, at, n, room);
    const float *single = block;
    const double *wide = block;
    for (int64_t i = 0; i < n; i++) {
      double x = compute == PL_COMPUTE_F32 ? (double)single[i] : wide[i];
      total += x * x;
    }
  }
  return total;
}

pl_status pl_cpu_squares(pl_device *device, const pl_array *const arrays[], int count, const pl_array *out) {
  (void)device;
  enum { PIECE = 1 << 16, PARTS = 256 };
  double total = 0;
  for (int i = 0; i < count; i++) {
    int64_t elements = pl_array_count(arrays[i]), each = (elements + PARTS - 1) / PARTS;
    pl_compute compute = pl_compute_of(arrays[i]->dtype);
    double part[PARTS] = {0};
    if (each < PIECE / PARTS) each = PIECE / PARTS;
#pragma omp parallel for if (elements > PIECE)
    for (int k = 0; k < PARTS; k++) {
      int64_t start = k * each, end = start + each < elements ? start + each : elements;
      if (start < end) part[k] = squares_of(arrays[i], compute, start, end);
    }
    for (int k = 0; k < PARTS; k++) total += part[k];
  }
  pl_blocks_write(out, PL_COMPUTE_F64, 0, 1, &total);
  return PL_OK;
}

pl_status pl_cpu_scale(pl_device *device, const pl_array *const arrays[], int count, double factor) {
  pl_array number = pl_array_number(factor);
  for (int i = 0; i < count; i++) {
    const pl_array *in[PL_OPERANDS] = {arrays[i], &number};
    PL_TRY(pl_cpu_pointwise(device, PL_OP_mul, PL_VALUE, arrays[i], in));
  }
  return PL_OK;
}

/* The elements of a master from `start` on that are not the parameter's any more, as somebody set these, become so. */
static void follow_parameter(const pl_adam *step, float *master, int64_t start, int64_t n) {
  _Alignas(64) char stored[PL_BLOCK_BYTES], rounded[PL_BLOCK_BYTES], room[PL_BLOCK_BYTES];
  const pl_kernels *kernels = pl_cpu_kernels();
  pl_dtype type = step->parameter->dtype;
  kernels->store[PL_COMPUTE_F32][type](n, stored, master);
  kernels->load[PL_COMPUTE_F32][type](n, rounded, stored);
  const float *was = (float *)rounded, *now = pl_blocks_read(step->parameter, PL_COMPUTE_F32, start, n, room);
  for (int64_t i = 0; i < n; i++)
    if (was[i] != now[i]) master[i] = now[i];
}

static void adam_block(const pl_adam *step, pl_compute compute, const double *factors, int64_t start, int64_t n) {
  _Alignas(64) char room[PL_BLOCK_BYTES];
  size_t at = (size_t)start * pl_compute_size(compute);
  char *stepped = (char *)pl_array_data(step->master ? step->master : step->parameter) + at;
  if (step->master) follow_parameter(step, (float *)stepped, start, n);
  pl_cpu_kernels()->adam[compute](n, stepped, pl_blocks_read(step->gradient, compute, start, n, room),
                                  (char *)pl_array_data(step->first) + at, (char *)pl_array_data(step->second) + at,
                                  factors);
  if (step->master) pl_blocks_write(step->parameter, compute, start, n, stepped);
}

static pl_status adam(const pl_adam *step) {
  const double factors[PL_ADAM_FACTORS] = {
      [PL_ADAM_RATE] = step->rate,
      [PL_ADAM_BETA1] = step->beta1,
      [PL_ADAM_BETA2] = step->beta2,
      [PL_ADAM_EPSILON] = step->epsilon,
      [PL_ADAM_DECAY] = step->decay,
      [PL_ADAM_CORRECTION1] = step->correction1,
      [PL_ADAM_CORRECTION2] = step->correction2,
      [PL_ADAM_DECOUPLED] = step->decoupled,
  };
  pl_compute compute = pl_compute_of(step->parameter->dtype);
  int64_t count = pl_array_count(step->parameter);
#pragma omp parallel for if (count > PL_PARALLEL_MIN)
  for (int64_t start = 0; start < count; start += PL_BLOCK)
    adam_block(step, compute, factors, start, count - start < PL_BLOCK ? count - start : PL_BLOCK);
  return PL_OK;
}

pl_status pl_cpu_adam(pl_device *device, const pl_adam *steps, int count) {
  (void)device;
  for (int i = 0; i < count; i++) PL_TRY(adam(&steps[i]));
  return PL_OK;
}
