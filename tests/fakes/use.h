/* The made-up CUDA libraries in a C test: loaded before the program looks for the real ones, and given orders; and the
 * GPU that they make up. */
#ifndef TESTS_FAKES_USE_H
#define TESTS_FAKES_USE_H

#include "host/cuda/cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* The loader gives a library that is there already to whoever asks for its name. FAKES comes from CMake. */
static inline void *fake_load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fprintf(stderr, "%s\n", dlerror()), exit(1);
  return library;
}

/* Writes the control file (tests/fakes/control.h); "" lets everything succeed. */
static inline void fake_say(const char *words) {
  FILE *file = fopen(getenv("PERILUNE_FAKE"), "w");
  if (!file || fputs(words, file) < 0 || fclose(file) != 0) perror("PERILUNE_FAKE"), exit(1);
}

/* A control file of this process's own, in which everything succeeds, and no cache of compiled kernels on disk. */
static inline void fake_begin(void) {
  static char path[] = "/tmp/perilune-fake-XXXXXX";
  if (mkstemp(path) < 0 || setenv("PERILUNE_FAKE", path, 1) != 0) perror(path), exit(1);
  fake_say("");
  setenv("XDG_CACHE_HOME", "/proc/nowhere", 1);
  fake_load(FAKES "/driver/libcuda.so.1");
  fake_load(FAKES "/nvrtc/libnvrtc.so.13");
}

/* The first GPU, entered. */
static inline pl_cuda *fake_gpu(void) {
  pl_device *device;
  pl_cuda *cuda;
  pl_cuda_open();
  if (pl_device_named("cuda", &device) != PL_OK || pl_cuda_enter(device, &cuda) != PL_OK)
    fprintf(stderr, "no made-up GPU: %s\n", pl_message()), exit(1);
  return cuda;
}

static inline void fake_end(void) { remove(getenv("PERILUNE_FAKE")); }

#endif
