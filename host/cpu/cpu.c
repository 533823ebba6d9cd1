/* The device "cpu": memory, what it says of itself, and the struct of its primitives. */
#include "host/cpu/cpu.h"

#include "host/cpu/recurrence.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const pl_kernels *pl_cpu_kernels(void) {
#if defined(__x86_64__)
  static const pl_kernels *widest;
  if (!widest) {
    __builtin_cpu_init();
    widest = &pl_kernels_base;
    if (__builtin_cpu_supports("x86-64-v3")) widest = &pl_kernels_v3;
    if (__builtin_cpu_supports("x86-64-v4")) widest = &pl_kernels_v4;
  }
  return widest;
#else
  return &pl_kernels_base;
#endif
}

int pl_cpu_threads(void) { return omp_get_max_threads(); }

static int threads(pl_device *device, int wanted) {
  (void)device;
  if (wanted > 0) omp_set_num_threads(wanted);
  return pl_cpu_threads();
}

static pl_status allocate(pl_device *device, size_t bytes, void **data) {
  if (posix_memalign(data, 64, bytes) != 0)
    return PL_FAIL_MEMORY("%s: out of memory: %zu bytes asked", device->name, bytes);
  return PL_OK;
}

static void release(pl_device *device, void *data, size_t bytes) {
  (void)device, (void)bytes;
  free(data);
}

static pl_status transfer(pl_device *device, void *to, const void *from, size_t bytes) {
  (void)device;
  if (bytes) memcpy(to, from, bytes);
  return PL_OK;
}

static pl_status synchronize(pl_device *device) {
  (void)device;
  return PL_OK;
}

/* Work on the processor is done when its call returns, so a mark is the time of the call. */
static pl_status mark(pl_device *device, void **mark) {
  (void)device;
  if (!*mark) *mark = pl_allocate(sizeof(struct timespec));
  clock_gettime(CLOCK_MONOTONIC, *mark);
  return PL_OK;
}

static pl_status elapsed(pl_device *device, void *from, void *to, double *ms) {
  (void)device;
  const struct timespec *a = from, *b = to;
  *ms = 1e3 * (double)(b->tv_sec - a->tv_sec) + 1e-6 * (double)(b->tv_nsec - a->tv_nsec);
  return PL_OK;
}

static void unmark(pl_device *device, void *mark) {
  (void)device;
  free(mark);
}

static void describe(pl_device *device, pl_text *text) {
  char model[128] = "processor";
  FILE *file = fopen("/proc/cpuinfo", "r");
  char line[256];
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "model name : %127[^\n]", model) == 1) break;
  if (file) fclose(file);
  double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGE_SIZE) / (1024.0 * 1024 * 1024);
  pl_text_print(text, "%s: %s, %ld cores, %d threads used, %s, %.1f GiB memory; backends reference, vanilla",
                device->name, model, sysconf(_SC_NPROCESSORS_ONLN), pl_cpu_threads(), pl_cpu_kernels()->name, gib);
}

void pl_cpu_open(void) {
  static pl_device cpu = {
      .name = "cpu",
      .host_memory = true,
      .allocate = allocate,
      .release = release,
      .upload = transfer,
      .download = transfer,
      .copy = pl_cpu_copy,
      .pointwise = pl_cpu_pointwise,
      .pointwise_gradients = pl_cpu_pointwise_gradients,
      .reduce = pl_cpu_reduce,
      .gemm = pl_cpu_gemm,
      .gather = pl_cpu_gather,
      .scatter = pl_cpu_scatter,
      .random = pl_cpu_random,
      .softmax = pl_cpu_softmax,
      .softmax_gradient = pl_cpu_softmax_gradient,
      .norm = pl_cpu_norm,
      .norm_gradient = pl_cpu_norm_gradient,
      .cross_entropy = pl_cpu_cross_entropy,
      .cross_entropy_gradient = pl_cpu_cross_entropy_gradient,
      .attends = pl_cpu_attends,
      .attention = pl_cpu_attention,
      .attention_gradient = pl_cpu_attention_gradient,
      .adam = pl_cpu_adam,
      .squares = pl_cpu_squares,
      .scale = pl_cpu_scale,
      .recurrence_workspace = pl_cpu_recurrence_workspace,
      .recurrence_forward = pl_cpu_recurrence_forward,
      .recurrence_backward = pl_cpu_recurrence_backward,
      .synchronize = synchronize,
      .mark = mark,
      .elapsed = elapsed,
      .unmark = unmark,
      .threads = threads,
      .describe = describe,
  };
  pl_device_register(&cpu);
}
