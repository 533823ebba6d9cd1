/* What a failing driver leaves behind, by way of a made-up one: a device's creation goes on where it failed, and a
 * module without the function asked for is unloaded. Needs no GPU. */
#include "host/cuda/cuda.h"
#include "host/cuda/nvrtc.h"

#include <stdio.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition))                                                                                                  \
      fprintf(stderr, "line %d: %s; last message: %s\n", __LINE__, #condition, pl_message()), failures++;              \
  } while (0)

/* Calls are counted; call number `failing` of all fails. */
enum { FAILED = 1 };
static int calls, failing, contexts, streams, host_blocks, device_blocks, modules;
static char anything[64];

static pl_cu_result step(int *count) {
  if (++calls == failing) return FAILED;
  if (count) ++*count;
  return 0;
}

static pl_cu_result retain(pl_cu_context *context, pl_cu_device device) {
  (void)device;
  pl_cu_result result = step(&contexts);
  if (result == 0) *context = (pl_cu_context)(void *)anything;
  return result;
}

static pl_cu_result set_current(pl_cu_context context) {
  (void)context;
  return step(NULL);
}

static pl_cu_result create_stream(pl_cu_stream *stream, unsigned flags) {
  (void)flags;
  pl_cu_result result = step(&streams);
  if (result == 0) *stream = (pl_cu_stream)(void *)anything;
  return result;
}

static pl_cu_result allocate_host(void **memory, size_t bytes, unsigned flags) {
  (void)flags;
  pl_cu_result result = bytes <= sizeof anything ? step(&host_blocks) : FAILED;
  if (result == 0) *memory = anything;
  return result;
}

static pl_cu_result allocate_device(pl_cu_pointer *pointer, size_t bytes) {
  (void)bytes;
  pl_cu_result result = step(&device_blocks);
  if (result == 0) *pointer = 4096;
  return result;
}

static pl_cu_result fill(pl_cu_pointer to, unsigned char value, size_t bytes, pl_cu_stream stream) {
  (void)to, (void)value, (void)bytes, (void)stream;
  return step(NULL);
}

static pl_cu_result load_module(pl_cu_module *module, const void *image) {
  (void)image;
  *module = (pl_cu_module)(void *)anything;
  return step(&modules);
}

static pl_cu_result unload_module(pl_cu_module module) {
  (void)module;
  modules--;
  return 0;
}

static pl_cu_result find_function(pl_cu_function *function, pl_cu_module module, const char *name) {
  (void)function, (void)module, (void)name;
  return FAILED;
}

static void creation(void) {
  enum { STEPS = 6 };
  for (int at = 1; at <= STEPS; at++) {
    pl_cuda cuda = {.ordinal = 0}, *entered;
    cuda.device.state = &cuda;
    calls = contexts = streams = host_blocks = device_blocks = 0;
    failing = at;
    CHECK(pl_cuda_enter(&cuda.device, &entered) == PL_ERROR && !cuda.entered);
    CHECK(pl_cuda_enter(&cuda.device, &entered) == PL_OK && cuda.entered);
    CHECK(contexts == 1 && streams == 1 && host_blocks == 1 && device_blocks == 1);
  }
}

static void missing_function(void) {
  pl_cuda cuda = {.architecture = 90};
  pl_cu_function function;
  calls = failing = 0;
  CHECK(pl_cuda_kernel_load(&cuda, 1, "types.cuh", "", "", "missing", &function) == PL_ERROR);
  CHECK(calls == 1); /* it came as far as to load the module */
  CHECK(modules == 0 && !pl_cuda_kernel_found(&cuda, 1));
}

int main(void) {
  pl_cu.DevicePrimaryCtxRetain = retain;
  pl_cu.CtxSetCurrent = set_current;
  pl_cu.StreamCreate = create_stream;
  pl_cu.MemHostAlloc = allocate_host;
  pl_cu.MemAlloc = allocate_device;
  pl_cu.MemsetD8Async = fill;
  pl_cu.ModuleLoadData = load_module;
  pl_cu.ModuleUnload = unload_module;
  pl_cu.ModuleGetFunction = find_function;
  creation();
  if (pl_nvrtc_open() == PL_OK) missing_function();
  printf("a failing driver: %d failures\n", failures);
  return failures > 0;
}
