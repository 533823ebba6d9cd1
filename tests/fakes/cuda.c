/* A made-up driver library for tests without a GPU: one device whose memory is the host's, whose kernels do nothing,
 * and whose version, capability, size and failures the control file sets. */
#include "tests/fakes/cuda.h"

#include "tests/fakes/control.h"

enum { ILLEGAL_ADDRESS = 700, LAUNCH_FAILED = 719, HEADER = 256 };

pl_cu_result fake_result(const char *symbol) {
  static pl_cu_result lost;
  if (lost) return lost;
  pl_cu_result result = (pl_cu_result)fake_setting(symbol, 0);
  if (result == ILLEGAL_ADDRESS || result == LAUNCH_FAILED) lost = result;
  return result;
}
#define STEP(symbol)                                                                                                   \
  do {                                                                                                                 \
    pl_cu_result result_ = fake_result(symbol);                                                                        \
    if (result_) return result_;                                                                                       \
  } while (0)

/* ---- words ---- */

static const struct {
  pl_cu_result result;
  const char *name, *text;
} errors[] = {{PL_CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
              {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
              {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}};
enum { ERRORS = sizeof errors / sizeof *errors };

pl_cu_result fake_GetErrorName(pl_cu_result result, const char **name) {
  for (int i = 0; i < ERRORS; i++)
    if (errors[i].result == result) return *name = errors[i].name, 0;
  return 1;
}

pl_cu_result fake_GetErrorString(pl_cu_result result, const char **text) {
  for (int i = 0; i < ERRORS; i++)
    if (errors[i].result == result) return *text = errors[i].text, 0;
  return 1;
}

/* ---- the device ---- */

pl_cu_result fake_DriverGetVersion(int *version) {
  *version = (int)fake_setting("version", 13000);
  return 0;
}

pl_cu_result fake_DeviceGetCount(int *count) {
  STEP("cuDeviceGetCount");
  *count = (int)fake_setting("devices", 1);
  return 0;
}

pl_cu_result fake_DeviceGet(pl_cu_device *device, int ordinal) {
  STEP("cuDeviceGet");
  *device = ordinal;
  return 0;
}

pl_cu_result fake_DeviceGetName(char *name, int bytes, pl_cu_device device) {
  STEP("cuDeviceGetName");
  snprintf(name, (size_t)bytes, "Imaginary %d", device);
  return 0;
}

pl_cu_result fake_DeviceGetAttribute(int *value, int attribute, pl_cu_device device) {
  STEP("cuDeviceGetAttribute");
  /* "capability" is that of device 0, "capability1" that of the next. */
  int capability = (int)fake_setting(device == 0 ? "capability" : "capability1", 90);
  *value = attribute == PL_CU_DEVICE_CAPABILITY_MAJOR               ? capability / 10
           : attribute == PL_CU_DEVICE_CAPABILITY_MINOR             ? capability % 10
           : attribute == PL_CU_DEVICE_MULTIPROCESSORS              ? 100
           : attribute == PL_CU_DEVICE_SHARED_BYTES_PER_BLOCK_OPTIN ? 200 << 10
                                                                    : 1;
  return 0;
}

pl_cu_result fake_DeviceCanAccessPeer(int *can, pl_cu_device device, pl_cu_device peer) {
  (void)device, (void)peer;
  STEP("cuDeviceCanAccessPeer");
  *can = (int)fake_setting("peers", 1);
  return 0;
}

/* ---- memory: of the host, with its size in front ---- */

static size_t live;

static size_t size_of_memory(void) { return (size_t)fake_setting("bytes", 1 << 30); }

pl_cu_result fake_DeviceTotalMem(size_t *bytes, pl_cu_device device) {
  (void)device;
  STEP("cuDeviceTotalMem_v2");
  *bytes = size_of_memory();
  return 0;
}

pl_cu_result fake_MemGetInfo(size_t *available, size_t *total) {
  STEP("cuMemGetInfo_v2");
  *total = size_of_memory();
  *available = *total - live;
  return 0;
}

pl_cu_result fake_MemAlloc(pl_cu_pointer *pointer, size_t bytes) {
  STEP("cuMemAlloc_v2");
  if (live + bytes > size_of_memory()) return PL_CU_OUT_OF_MEMORY;
  char *memory = calloc(1, HEADER + bytes);
  if (!memory) return PL_CU_OUT_OF_MEMORY;
  memcpy(memory, &bytes, sizeof bytes);
  live += bytes;
  *pointer = (pl_cu_pointer)(uintptr_t)(memory + HEADER);
  return 0;
}

pl_cu_result fake_MemFree(pl_cu_pointer pointer) {
  STEP("cuMemFree_v2");
  char *memory = (char *)(uintptr_t)pointer - HEADER;
  size_t bytes;
  memcpy(&bytes, memory, sizeof bytes);
  live -= bytes;
  free(memory);
  return 0;
}

pl_cu_result fake_MemHostAlloc(void **memory, size_t bytes, unsigned flags) {
  (void)flags;
  STEP("cuMemHostAlloc");
  *memory = calloc(1, bytes);
  return *memory ? 0 : PL_CU_OUT_OF_MEMORY;
}

static pl_cu_result move(const char *symbol, void *to, const void *from, size_t bytes) {
  STEP(symbol);
  memmove(to, from, bytes);
  return 0;
}

pl_cu_result fake_MemcpyHtoDAsync(pl_cu_pointer to, const void *from, size_t bytes, pl_cu_stream stream) {
  (void)stream;
  return move("cuMemcpyHtoDAsync_v2", (void *)(uintptr_t)to, from, bytes);
}

pl_cu_result fake_MemcpyDtoHAsync(void *to, pl_cu_pointer from, size_t bytes, pl_cu_stream stream) {
  (void)stream;
  return move("cuMemcpyDtoHAsync_v2", to, (void *)(uintptr_t)from, bytes);
}

pl_cu_result fake_MemcpyDtoDAsync(pl_cu_pointer to, pl_cu_pointer from, size_t bytes, pl_cu_stream stream) {
  (void)stream;
  return move("cuMemcpyDtoDAsync_v2", (void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
}

pl_cu_result fake_MemsetD8Async(pl_cu_pointer to, unsigned char value, size_t bytes, pl_cu_stream stream) {
  (void)stream;
  STEP("cuMemsetD8Async");
  memset((void *)(uintptr_t)to, value, bytes);
  return 0;
}

/* ---- handles, all alike ---- */

static char anything[64];

#define MADE(symbol, handle)                                                                                           \
  do {                                                                                                                 \
    STEP(symbol);                                                                                                      \
    *(handle) = (void *)anything;                                                                                      \
    return 0;                                                                                                          \
  } while (0)

pl_cu_result fake_DevicePrimaryCtxRetain(pl_cu_context *context, pl_cu_device device) {
  (void)device;
  MADE("cuDevicePrimaryCtxRetain", context);
}

pl_cu_result fake_StreamCreate(pl_cu_stream *stream, unsigned flags) {
  (void)flags;
  MADE("cuStreamCreate", stream);
}

pl_cu_result fake_EventCreate(pl_cu_event *event, unsigned flags) {
  (void)flags;
  MADE("cuEventCreate", event);
}

pl_cu_result fake_StreamEndCapture(pl_cu_stream stream, pl_cu_graph *graph) {
  (void)stream;
  MADE("cuStreamEndCapture", graph);
}

pl_cu_result fake_GraphInstantiate(pl_cu_graph_exec *exec, pl_cu_graph graph, unsigned long long flags) {
  (void)graph, (void)flags;
  MADE("cuGraphInstantiateWithFlags", exec);
}

pl_cu_result fake_ModuleLoadData(pl_cu_module *module, const void *image) {
  (void)image;
  MADE("cuModuleLoadData", module);
}

pl_cu_result fake_ModuleGetFunction(pl_cu_function *function, pl_cu_module module, const char *name) {
  (void)module, (void)name;
  MADE("cuModuleGetFunction", function);
}
