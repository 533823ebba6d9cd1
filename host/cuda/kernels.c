/* Compiled kernels of a device, found by key, and their launch. */
#include "host/cuda/cuda.h"

#include "host/cuda/nvrtc.h"
#include <stdlib.h>
#include <string.h>

/* An open table; a NULL function marks a free place. */
struct pl_cuda_kernels {
  size_t capacity, count; /* capacity: a power of two */
  struct {
    uint64_t key;
    pl_cu_function function;
  } place[];
};

static size_t place_of(const struct pl_cuda_kernels *table, uint64_t key) {
  size_t at = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32) & (table->capacity - 1);
  while (table->place[at].function && table->place[at].key != key) at = (at + 1) & (table->capacity - 1);
  return at;
}

pl_cu_function pl_cuda_kernel_found(const pl_cuda *cuda, uint64_t key) {
  const struct pl_cuda_kernels *table = cuda->kernels;
  return table ? table->place[place_of(table, key)].function : NULL;
}

static struct pl_cuda_kernels *grown(struct pl_cuda_kernels *old) {
  size_t capacity = old ? 2 * old->capacity : 256;
  struct pl_cuda_kernels *table = pl_allocate(sizeof *table + capacity * sizeof table->place[0]);
  table->capacity = capacity;
  for (size_t i = 0; old && i < old->capacity; i++)
    if (old->place[i].function) {
      table->place[place_of(table, old->place[i].key)] = old->place[i];
      table->count++;
    }
  free(old);
  return table;
}

static void remember(pl_cuda *cuda, uint64_t key, pl_cu_function function) {
  if (!cuda->kernels || 2 * cuda->kernels->count >= cuda->kernels->capacity) cuda->kernels = grown(cuda->kernels);
  size_t at = place_of(cuda->kernels, key);
  cuda->kernels->place[at].key = key;
  cuda->kernels->place[at].function = function;
  cuda->kernels->count++;
}

pl_status pl_cuda_kernel_load(pl_cuda *cuda, uint64_t key, const char *file, const char *prelude, const char *options,
                              const char *name, pl_cu_function *function) {
  pl_text source = {0}, cubin = {0};
  pl_cu_module module = NULL;
  if (prelude) pl_text_print(&source, "%s", prelude);
  pl_status status = pl_kernel_source(file, &source);
  if (status == PL_OK) status = pl_nvrtc_compile(file, source.data, options, cuda->architecture, &cubin, NULL);
  if (status == PL_OK) status = PL_CUDA(pl_cu.ModuleLoadData(&module, cubin.data));
  if (status == PL_OK) status = PL_CUDA(pl_cu.ModuleGetFunction(function, module, name));
  if (status == PL_OK)
    remember(cuda, key, *function);
  else if (module)
    (void)pl_cu.ModuleUnload(module);
  pl_text_release(&source);
  pl_text_release(&cubin);
  return status;
}

/* FNV-1a over the text; the family keeps the top byte. */
uint64_t pl_cuda_key(int family, const char *text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001B3u;
  return (hash >> 8) | (uint64_t)family << 56;
}

pl_status pl_cuda_launch(pl_cuda *cuda, pl_cu_function function, uint64_t blocks_x, unsigned blocks_y, unsigned threads,
                         unsigned shared_bytes, void **parameters) {
  if (blocks_x == 0 || blocks_y == 0) return PL_OK;
  PL_REQUIRE(blocks_x <= INT32_MAX && blocks_y <= 65535, "cuda: a launch of %llu x %u blocks is past what a grid holds",
             (unsigned long long)blocks_x, blocks_y);
  return PL_CUDA(pl_cu.LaunchKernel(function, (unsigned)blocks_x, blocks_y, 1, threads, 1, 1, shared_bytes,
                                    cuda->stream, parameters, NULL));
}
