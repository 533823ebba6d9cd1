/* NVIDIA's driver library, loaded when somebody asks for a GPU: the entry points that this program uses, under our own
 * declarations, so that building needs no toolkit and one program runs on machines with and without a GPU. */
#ifndef PL_CUDA_DRIVER_H
#define PL_CUDA_DRIVER_H

#include "host/base/library.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Handles, as the driver's binary interface has them. */
typedef int pl_cu_result;
typedef int pl_cu_device;
typedef uint64_t pl_cu_pointer; /* an address in device memory */
typedef struct pl_cu_context_ *pl_cu_context;
typedef struct pl_cu_module_ *pl_cu_module;
typedef struct pl_cu_function_ *pl_cu_function;
typedef struct pl_cu_stream_ *pl_cu_stream;
typedef struct pl_cu_event_ *pl_cu_event;
typedef struct pl_cu_graph_ *pl_cu_graph;
typedef struct pl_cu_graph_exec_ *pl_cu_graph_exec;

/* For LaunchKernelEx. */
typedef struct {
  int id; /* PL_CU_LAUNCH_... */
  char pad[4];
  union {
    char pad[64];
    int cooperative;
    int programmatic_stream_serialization;
    struct {
      unsigned x, y, z;
    } cluster;
  } value;
} pl_cu_launch_attribute;

typedef struct {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z;
  unsigned shared_bytes; /* dynamic */
  pl_cu_stream stream;
  pl_cu_launch_attribute *attributes;
  unsigned attribute_count;
} pl_cu_launch;

enum {
  PL_CU_OUT_OF_MEMORY = 2,
  PL_CU_NO_DEVICE = 100,
  PL_CU_NOT_READY = 600,
  PL_CU_PEER_ACCESS_ALREADY_ENABLED = 704,
  PL_CU_TOO_MANY_PEERS = 711,

  PL_CU_LAUNCH_COOPERATIVE = 2,
  PL_CU_LAUNCH_CLUSTER_DIMENSION = 4,
  PL_CU_LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION = 6,

  PL_CU_STREAM_NON_BLOCKING = 1,
  PL_CU_EVENT_DEFAULT = 0, /* keeps the time */
  PL_CU_EVENT_DISABLE_TIMING = 2,
  PL_CU_CAPTURE_THREAD_LOCAL = 1,
  PL_CU_CAPTURE_RELAXED = 2, /* memory may be allocated meanwhile */
  PL_CU_HOST_ALLOC_PORTABLE = 1,
  PL_CU_HOST_ALLOC_DEVICE_MAP = 2,

  PL_CU_DEVICE_MULTIPROCESSORS = 16,
  PL_CU_DEVICE_CAPABILITY_MAJOR = 75,
  PL_CU_DEVICE_CAPABILITY_MINOR = 76,
  PL_CU_DEVICE_SHARED_BYTES_PER_BLOCK_OPTIN = 97,

  PL_CU_FUNCTION_LOCAL_BYTES = 3,
  PL_CU_FUNCTION_DYNAMIC_SHARED_BYTES_MAX = 8,
  PL_CU_FUNCTION_NON_PORTABLE_CLUSTER_ALLOWED = 14,
};

/* X(name here, the driver's versioned symbol, parameters). The manual of the function cuNAME describes each. */
// clang-format off
#define PL_DRIVER_FUNCTIONS(X) \
  X(Init, "cuInit", (unsigned flags)) \
  X(DriverGetVersion, "cuDriverGetVersion", (int *version)) \
  X(GetErrorName, "cuGetErrorName", (pl_cu_result result, const char **name)) \
  X(GetErrorString, "cuGetErrorString", (pl_cu_result result, const char **text)) \
  X(DeviceGetCount, "cuDeviceGetCount", (int *count)) \
  X(DeviceGet, "cuDeviceGet", (pl_cu_device *device, int ordinal)) \
  X(DeviceGetName, "cuDeviceGetName", (char *name, int bytes, pl_cu_device device)) \
  X(DeviceGetAttribute, "cuDeviceGetAttribute", (int *value, int attribute, pl_cu_device device)) \
  X(DeviceTotalMem, "cuDeviceTotalMem_v2", (size_t *bytes, pl_cu_device device)) \
  X(DeviceCanAccessPeer, "cuDeviceCanAccessPeer", (int *can, pl_cu_device device, pl_cu_device peer)) \
  X(DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (pl_cu_context *context, pl_cu_device device)) \
  X(CtxSetCurrent, "cuCtxSetCurrent", (pl_cu_context context)) \
  X(CtxEnablePeerAccess, "cuCtxEnablePeerAccess", (pl_cu_context peer, unsigned flags)) \
  X(MemGetInfo, "cuMemGetInfo_v2", (size_t *available, size_t *total)) \
  X(MemAlloc, "cuMemAlloc_v2", (pl_cu_pointer *pointer, size_t bytes)) \
  X(MemFree, "cuMemFree_v2", (pl_cu_pointer pointer)) \
  X(MemHostAlloc, "cuMemHostAlloc", (void **memory, size_t bytes, unsigned flags)) \
  X(MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (pl_cu_pointer to, const void *from, size_t bytes, pl_cu_stream stream)) \
  X(MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *to, pl_cu_pointer from, size_t bytes, pl_cu_stream stream)) \
  X(MemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (pl_cu_pointer to, pl_cu_pointer from, size_t bytes, pl_cu_stream stream)) \
  X(MemcpyPeerAsync, "cuMemcpyPeerAsync", (pl_cu_pointer to, pl_cu_context to_context, pl_cu_pointer from, pl_cu_context from_context, size_t bytes, pl_cu_stream stream)) \
  X(MemsetD8Async, "cuMemsetD8Async", (pl_cu_pointer to, unsigned char value, size_t bytes, pl_cu_stream stream)) \
  X(MemsetD32Async, "cuMemsetD32Async", (pl_cu_pointer to, unsigned value, size_t count, pl_cu_stream stream)) \
  X(StreamCreate, "cuStreamCreate", (pl_cu_stream *stream, unsigned flags)) \
  X(StreamSynchronize, "cuStreamSynchronize", (pl_cu_stream stream)) \
  X(StreamQuery, "cuStreamQuery", (pl_cu_stream stream)) \
  X(StreamWaitEvent, "cuStreamWaitEvent", (pl_cu_stream stream, pl_cu_event event, unsigned flags)) \
  X(StreamBeginCapture, "cuStreamBeginCapture_v2", (pl_cu_stream stream, int mode)) \
  X(StreamEndCapture, "cuStreamEndCapture", (pl_cu_stream stream, pl_cu_graph *graph)) \
  X(EventCreate, "cuEventCreate", (pl_cu_event *event, unsigned flags)) \
  X(EventDestroy, "cuEventDestroy_v2", (pl_cu_event event)) \
  X(EventRecord, "cuEventRecord", (pl_cu_event event, pl_cu_stream stream)) \
  X(EventQuery, "cuEventQuery", (pl_cu_event event)) \
  X(EventElapsedTime, "cuEventElapsedTime", (float *ms, pl_cu_event start, pl_cu_event end)) \
  X(GraphInstantiate, "cuGraphInstantiateWithFlags", (pl_cu_graph_exec *exec, pl_cu_graph graph, unsigned long long flags)) \
  X(GraphLaunch, "cuGraphLaunch", (pl_cu_graph_exec exec, pl_cu_stream stream)) \
  X(GraphDestroy, "cuGraphDestroy", (pl_cu_graph graph)) \
  X(GraphExecDestroy, "cuGraphExecDestroy", (pl_cu_graph_exec exec)) \
  X(ModuleLoadData, "cuModuleLoadData", (pl_cu_module *module, const void *image)) \
  X(ModuleUnload, "cuModuleUnload", (pl_cu_module module)) \
  X(ModuleGetFunction, "cuModuleGetFunction", (pl_cu_function *function, pl_cu_module module, const char *name)) \
  X(FuncGetAttribute, "cuFuncGetAttribute", (int *value, int attribute, pl_cu_function function)) \
  X(FuncSetAttribute, "cuFuncSetAttribute", (pl_cu_function function, int attribute, int value)) \
  X(OccupancyMaxActiveBlocks, "cuOccupancyMaxActiveBlocksPerMultiprocessor", (int *blocks, pl_cu_function function, int threads, size_t shared_bytes)) \
  X(OccupancyMaxActiveClusters, "cuOccupancyMaxActiveClusters", (int *clusters, pl_cu_function function, const pl_cu_launch *launch)) \
  X(LaunchKernel, "cuLaunchKernel", (pl_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes, pl_cu_stream stream, void **parameters, void **extra)) \
  X(LaunchKernelEx, "cuLaunchKernelEx", (const pl_cu_launch *launch, pl_cu_function function, void **parameters, void **extra))
// clang-format on

/* The driver's functions: pl_cu.StreamSynchronize(stream), ... Filled in by pl_driver_open. */
#define PL_DRIVER_MEMBER_(name, symbol, parameters) pl_cu_result(*name) parameters;
typedef struct {
  PL_DRIVER_FUNCTIONS(PL_DRIVER_MEMBER_)
} pl_driver;
#undef PL_DRIVER_MEMBER_
extern pl_driver pl_cu;

/* Loads and initialises the driver, once; later calls repeat the first one's result. Fails with what is missing: the
 * library, a version that is new enough, a function of it, a device. */
pl_status pl_driver_open(void);
/* 13000 for CUDA 13.0; 0 when the driver could not be loaded. */
int pl_driver_version(void);

/* PL_CUDA(pl_cu.X(...)): PL_OK, or the failure with CUDA's own words, the expression, file and line. An error after
 * which no call can succeed (an illegal address, a trap, a lost device) is PL_LOST and says that the kernel must be
 * restarted, and every later use of a GPU fails with the same message. */
pl_status pl_cuda_check(pl_cu_result result, const char *expression, const char *file, int line);
#define PL_CUDA(call)     pl_cuda_check((call), #call, __FILE__, __LINE__)
#define PL_CUDA_TRY(call) PL_TRY(PL_CUDA(call))
/* PL_OK, or the sticky error that has happened. */
pl_status pl_cuda_lost(void);

/* Loads a library of the toolkit, whose names are given for CUDA 13 and for CUDA 12; one newer than the driver is left
 * out. Looks in the loader's path, then in lib64 of the folder that CUDA_HOME names (/usr/local/cuda unless set). */
pl_status pl_toolkit_load(const char *what, const char *advice, const char *const names[2], const pl_symbol *symbols,
                          size_t symbol_count);

#endif
