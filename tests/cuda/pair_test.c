/* Both gradients of an elementwise operation at once, on a made-up GPU: how many elements a thread takes together,
 * which both results' places must allow. Needs no GPU. */
#include "host/cuda/pointwise.h"
#include "host/cuda/primitives.h"
#include "tests/check.h"
#include "tests/fakes/use.h"

enum { COUNT = 1 << 16 };

static unsigned blocks; /* of the last launch */

static pl_cu_result launch(pl_cu_function function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned by_y,
                           unsigned by_z, unsigned shared, pl_cu_stream stream, void **parameters, void **extra) {
  (void)function, (void)y, (void)z, (void)by_y, (void)by_z, (void)shared, (void)stream, (void)parameters, (void)extra;
  CHECK(threads == PL_POINTWISE_THREADS);
  blocks = x;
  return 0;
}

/* Blocks of threads that take `vector` float32 at once, as often as a thread does that. */
static unsigned blocks_of(int vector) {
  pl_pointwise_variant variant = {.work = PL_WORK_F32, .rank = 1, .vector = vector};
  return (unsigned)(COUNT / (vector * pl_pointwise_unroll(&variant) * PL_POINTWISE_THREADS));
}

/* The vector of the gradients of a product whose second one begins `start` elements into its memory. */
static void takes(pl_device *device, int64_t start, int vector) {
  pl_buffer *memory[3];
  pl_array array[3];
  for (int i = 0; i < 3; i++) {
    CHECK(pl_buffer_new(device, (COUNT + 4) * sizeof(float), &memory[i]) == PL_OK);
    array[i] = (pl_array){.buffer = memory[i], .dtype = PL_F32, .rank = 1, .size = {COUNT}, .stride = {1}};
  }
  pl_array second = array[2];
  second.offset = start;
  const pl_array *in[PL_OPERANDS] = {&array[0], &array[0], [PL_OPERAND_G] = &array[0]};
  CHECK(pl_cuda_pointwise_gradients(device, PL_OP_mul, &array[1], &second, in) == PL_OK);
  CHECK(blocks == blocks_of(vector));
  for (int i = 0; i < 3; i++) pl_buffer_release(memory[i]);
}

int main(void) {
  fake_begin();
  pl_device *device = &fake_gpu()->device;
  pl_cu.LaunchKernel = launch;
  takes(device, 0, 4);
  takes(device, 4, 4);
  takes(device, 2, 2);
  takes(device, 1, 1);
  fake_end();
  return finished("pairs");
}
