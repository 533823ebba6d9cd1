/* The driver layer on a GPU: transfers, the cache of freed memory, running out of it, a kernel that fails to load, and
 * last the error after which nothing works. Skips itself where there is no GPU. */
#include "host/cuda/cuda.h"
#include "tests/check.h"

#include <stdlib.h>

static unsigned char expected(size_t place, int turn) {
  return (unsigned char)(place * 31 + (place >> 16) * 7 + (size_t)turn);
}

static void transfers(pl_device *device) {
  static const size_t sizes[] = {1, 3, 65536, 65537, 4194304, 8388609, 30000001};
  for (int i = 0; i < 7; i++) {
    pl_buffer *buffer = NULL;
    unsigned char *sent = malloc(sizes[i]), *got = malloc(sizes[i]);
    for (size_t k = 0; k < sizes[i]; k++) sent[k] = expected(k, i), got[k] = 0;
    CHECK(pl_buffer_new(device, sizes[i], &buffer) == PL_OK);
    CHECK(device->upload(device, buffer->data, sent, sizes[i]) == PL_OK);
    memset(sent, 0, sizes[i]); /* what was sent may change at once */
    CHECK(device->download(device, got, buffer->data, sizes[i]) == PL_OK);
    bool same = true;
    for (size_t k = 0; k < sizes[i]; k++) same = same && got[k] == expected(k, i);
    CHECK(same);
    pl_buffer_release(buffer);
    free(sent);
    free(got);
  }
}

static void memory(pl_device *device) {
  pl_memory before, after;
  pl_buffer *buffer = NULL;
  pl_device_trim(device);
  pl_device_memory(device, &before);
  CHECK(before.cached == 0);
  for (int i = 0; i < 100; i++) {
    CHECK(pl_buffer_new(device, 1 << 20, &buffer) == PL_OK);
    pl_buffer_release(buffer);
  }
  pl_device_memory(device, &after);
  CHECK(after.live == before.live && after.cached == 1 << 20);
  CHECK(pl_buffer_new(device, (size_t)1 << 44, &buffer) == PL_OUT_OF_MEMORY);
  CHECK(says("out of memory") && says("live") && says("bytes free"));
  CHECK(pl_buffer_new(device, 1 << 20, &buffer) == PL_OK);
  pl_buffer_release(buffer);
}

/* Writes where nothing is. */
static const char spoiler[] = "extern \"C\" __global__ void spoil(int *where) { *where = 1; }\n";

static void lost_context(pl_device *device) {
  pl_cuda *cuda;
  pl_cu_function function;
  pl_buffer *kept = NULL, *more = NULL;
  int *nowhere = NULL, value;
  CHECK(pl_cuda_enter(device, &cuda) == PL_OK);
  CHECK(pl_buffer_new(device, 64, &kept) == PL_OK);
  CHECK(pl_cuda_kernel_load(cuda, pl_cuda_key(99, "bad"), "types.cuh", "nonsense\n", "", "spoil", &function) ==
        PL_ERROR);
  CHECK(says("does not compile") && says("nonsense"));
  CHECK(pl_cuda_kernel_load(cuda, pl_cuda_key(99, "spoil"), "types.cuh", spoiler, "", "spoil", &function) == PL_OK);
  CHECK(pl_cuda_launch(cuda, function, 1, 1, 1, 0, (void *[]){&nowhere}) == PL_OK);
  CHECK(device->synchronize(device) == PL_LOST);
  CHECK(says("restart the kernel") && says("host/cuda/device.c"));
  CHECK(device->download(device, &value, kept->data, sizeof value) == PL_LOST && says("restart the kernel"));
  CHECK(pl_buffer_new(device, 1 << 30, &more) != PL_OK && says("restart the kernel"));
  pl_buffer_release(kept);
  pl_device_trim(device);
}

int main(void) {
  pl_device *device = NULL, *second = NULL;
  pl_cuda_open();
  if (pl_device_named("cuda", &device) != PL_OK) {
    CHECK(says("there is no 'cuda' here"));
    return failures ? finished("driver layer") : skipped();
  }
  CHECK(pl_device_named("cuda:1000", &second) != PL_OK && says("'cuda:0'"));
  transfers(device);
  memory(device);
  if (pl_device_named("cuda:1", &second) == PL_OK) {
    transfers(second);
    transfers(device);
  }
  lost_context(device);
  return finished("driver layer");
}
