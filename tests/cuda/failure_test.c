/* What a failing driver and a failing cuBLAS leave behind, by way of made-up ones: a device's creation goes on where it
 * failed, handles are destroyed, memory that ran out is given back and asked for again, waiting ends with an error or
 * an interrupt, and a lost GPU is noticed. Needs no GPU. */
#include "host/cuda/blas.h"
#include "host/cuda/cuda.h"
#include "tests/check.h"
#include "tests/fakes/use.h"

/* ---- creation: calls are counted; call number `failing` of all fails ---- */

enum { FAILED = 1 };
static int calls, failing, contexts, streams, host_blocks, device_blocks;
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

static void creation(void) {
  enum { STEPS = 6 };
  pl_driver whole = pl_cu;
  pl_cu.DevicePrimaryCtxRetain = retain;
  pl_cu.CtxSetCurrent = set_current;
  pl_cu.StreamCreate = create_stream;
  pl_cu.MemHostAlloc = allocate_host;
  pl_cu.MemAlloc = allocate_device;
  pl_cu.MemsetD8Async = fill;
  for (int at = 1; at <= STEPS; at++) {
    pl_cuda cuda = {.ordinal = 0}, *entered;
    cuda.device.state = &cuda;
    calls = contexts = streams = host_blocks = device_blocks = 0;
    failing = at;
    CHECK(pl_cuda_enter(&cuda.device, &entered) == PL_ERROR && !cuda.entered);
    CHECK(pl_cuda_enter(&cuda.device, &entered) == PL_OK && cuda.entered);
    CHECK(contexts == 1 && streams == 1 && host_blocks == 1 && device_blocks == 1);
  }
  pl_cu = whole;
}

/* ---- memory that runs out in the driver's and cuBLAS's own hands ---- */

static size_t cached(pl_device *device) {
  pl_memory now;
  pl_device_memory(device, &now);
  return now.cached;
}

static void cache_something(pl_device *device) {
  pl_buffer *buffer;
  CHECK(pl_buffer_new(device, 1 << 20, &buffer) == PL_OK);
  pl_buffer_release(buffer);
  CHECK(cached(device) > 0);
}

static int refusals; /* of modules that come next */

static pl_cu_result load_module(pl_cu_module *module, const void *image) {
  (void)image;
  if (refusals > 0) return refusals--, PL_CU_OUT_OF_MEMORY;
  *module = (pl_cu_module)(void *)anything;
  return 0;
}

static pl_status load_kernel(pl_cuda *cuda, const char *text, pl_cu_function *function) {
  return pl_cuda_kernel_load(cuda, pl_cuda_key(1, text), "types.cuh", text, "", "f", function);
}

static void memory_for_modules(pl_cuda *cuda) {
  pl_cu_function function;
  pl_cu.ModuleLoadData = load_module;
  cache_something(&cuda->device);
  refusals = 1;
  CHECK(load_kernel(cuda, "refused once", &function) == PL_OK && function && cached(&cuda->device) == 0);
  refusals = 2;
  CHECK(load_kernel(cuda, "refused twice", &function) == PL_OUT_OF_MEMORY);
  CHECK(says("out of memory: asked for a kernel") && says("bytes live") && says("bytes free"));
  CHECK(load_kernel(cuda, "refused twice", &function) == PL_OK && function);
}

static void missing_function(pl_cuda *cuda) {
  pl_cu_function function;
  fake_say("cuModuleGetFunction 500\n");
  CHECK(load_kernel(cuda, "no such function", &function) == PL_ERROR && !function && says("ModuleGetFunction"));
  CHECK(!pl_cuda_kernel_found(cuda, pl_cuda_key(1, "no such function")));
  fake_say("");
  CHECK(load_kernel(cuda, "no such function", &function) == PL_OK && function);
}

static void blas(pl_cuda *cuda) {
  const int *handles = dlsym(fake_load(FAKES "/cublas/libcublas.so.13"), "fake_cublas_handles");
  static const char *const steps[] = {"cublasSetStream_v2 1\n", "cublasSetWorkspace_v2 7\n", "cublasSetMathMode 1\n"};
  for (int i = 0; i < 3; i++) {
    fake_say(steps[i]);
    CHECK(pl_blas_ready(cuda) == PL_ERROR && says("cuBLAS: ") && !cuda->blas && *handles == 0);
  }
  cache_something(&cuda->device);
  fake_say("cublasCreate_v2 3\n");
  CHECK(pl_blas_ready(cuda) == PL_OUT_OF_MEMORY && says("asked by cuBLAS") && cached(&cuda->device) == 0);
  fake_say("");
  CHECK(pl_blas_ready(cuda) == PL_OK && cuda->blas && *handles == 1);
  pl_memory now;
  pl_device_memory(&cuda->device, &now);
  CHECK(now.live == 32 << 20 && now.buffers == 1); /* the workspace, once */
}

/* ---- the end ---- */

static void lost(pl_cuda *cuda) {
  pl_blas_matrix a = {(void *)anything, PL_F32, false, 1, 1};
  fake_say("cublasGemmStridedBatchedEx 13\n");
  CHECK(pl_blas_multiply(cuda, 1, 1, 1, 1, &a, &a, 0, &a, 1) == PL_ERROR);
  CHECK(says("CUBLAS_STATUS_EXECUTION_FAILED") && !says("restart") && pl_cuda_lost() == PL_OK);
  fake_say("cublasGemmStridedBatchedEx 14\ncuStreamSynchronize 700\n");
  CHECK(pl_blas_multiply(cuda, 1, 1, 1, 1, &a, &a, 0, &a, 1) == PL_LOST);
  CHECK(says("an illegal memory access") && says("restart the kernel"));
  pl_cuda *entered;
  CHECK(pl_cuda_enter(&cuda->device, &entered) == PL_LOST && says("restart the kernel"));
}

static int answers; /* "not ready" before the last one */
static pl_cu_result last_answer;

static pl_cu_result answer(pl_cu_stream stream) {
  (void)stream;
  return answers-- > 0 ? PL_CU_NOT_READY : last_answer;
}

static pl_cu_result answer_event(pl_cu_event event) {
  (void)event;
  return answers-- > 0 ? PL_CU_NOT_READY : last_answer;
}

static void waiting(void) {
  pl_cuda cuda = {.ordinal = 0};
  pl_cu_event events[] = {NULL, (pl_cu_event)(void *)anything};
  pl_driver whole = pl_cu;
  pl_cu.StreamQuery = answer;
  pl_cu.EventQuery = answer_event;
  for (int i = 0; i < 2; i++) {
    answers = 1000, last_answer = 0;
    CHECK(pl_cuda_wait(&cuda, events[i]) == PL_OK && answers < 0);
    answers = 10, last_answer = FAILED;
    CHECK(pl_cuda_wait(&cuda, events[i]) == PL_ERROR);
    CHECK(strstr(pl_message(), i ? "EventQuery" : "StreamQuery"));
    pl_interrupt_set(1);
    answers = 1000, last_answer = 0;
    CHECK(pl_cuda_wait(&cuda, events[i]) == PL_INTERRUPTED && answers > 900);
    answers = 0; /* what is done needs no waiting */
    CHECK(pl_cuda_wait(&cuda, events[i]) == PL_OK);
    pl_interrupt_set(0);
  }
  pl_cu = whole;
}

int main(void) {
  fake_begin();
  CHECK(pl_driver_open() == PL_OK);
  creation();
  waiting();
  pl_cuda *cuda = fake_gpu();
  memory_for_modules(cuda);
  missing_function(cuda);
  blas(cuda);
  lost(cuda);
  fake_end();
  return finished("a failing driver");
}
