/* The GPUs as devices: the primitives of host/device/device.h through the driver API, cuBLAS and NVRTC. */
#ifndef PL_CUDA_CUDA_H
#define PL_CUDA_CUDA_H

#include "host/cuda/driver.h"
#include "host/device/device.h"

/* Makes the name "cuda" known. Looks for GPUs only when somebody names one or lists all devices. */
void pl_cuda_open(void);

/* ---- private to host/cuda ---- */

typedef struct pl_blas_handle_ *pl_blas_handle;

/* What kernels report when they cannot raise: host memory that the GPU writes, read after the next synchronisation. */
typedef struct {
  int32_t code; /* 0: nothing; else a PL_COMPLAINT_... */
  int32_t unused;
  int64_t value, position, limit;
} pl_complaint;

/* One GPU. */
typedef struct {
  pl_device device; /* .state points here */
  int ordinal;
  pl_cu_device handle;
  char model[96];
  int architecture; /* 90 for compute capability 9.0 */
  int multiprocessors;
  int shared_bytes_max; /* that one block can have */
  size_t total_bytes;

  bool entered; /* the rest exists */
  pl_cu_context context;
  pl_cu_stream stream; /* everything runs here, in order */
  volatile pl_complaint *complaint;
  pl_cu_pointer complaint_lock; /* one int: taken by the first thread that complains */
  struct pl_cuda_staging *staging;
  pl_cu_event ready; /* recorded where another GPU's copy waits for this stream, or this stream for that copy */
  uint64_t peers;    /* bit i: what to do about reading cuda:i directly is settled */
  struct pl_cuda_kernels *kernels;
  struct pl_step_plans *step_plans; /* of recurrences, for their next call */
  pl_blas_handle blas;
  pl_buffer *blas_workspace;
  struct pl_cuda_recording *recording; /* that the stream's work goes into, or NULL */
} pl_cuda;

/* The GPU behind `device`, with its context current on this thread; creates context and stream at the first call. */
pl_status pl_cuda_enter(pl_device *device, pl_cuda **cuda);

/* PL_OUT_OF_MEMORY with the device's statistics; `what`: "64 bytes asked". */
pl_status pl_cuda_exhausted(pl_cuda *cuda, const char *what);
/* `work`, and again with cached memory given back, then with what is kept for later calls, while it says
 * PL_OUT_OF_MEMORY: for what the driver and cuBLAS allocate by themselves. */
pl_status pl_cuda_with_memory(pl_cuda *cuda, pl_status (*work)(void *context), void *context);

/* A compiled kernel. Asking by key is quick; the first time (found == NULL) load it. Keys are unique per kernel and
 * options: compose one from a PL_FAMILY_... in the top byte and what specialises it, or use pl_cuda_key of a text that
 * says everything. Functions of one text (FILE, prelude and options) share a module. */
enum {
  PL_FAMILY_POINTWISE = 1,
  PL_FAMILY_REDUCE,
  PL_FAMILY_INDEX,
  PL_FAMILY_RANDOM,
  PL_FAMILY_SOFTMAX,
  PL_FAMILY_NORM,
  PL_FAMILY_CROSS_ENTROPY,
  PL_FAMILY_ADAM,
  PL_FAMILY_TRANSPOSE,
  PL_FAMILY_SQUARES,
  PL_FAMILY_SCALE,
  PL_FAMILY_RECURRENCE,
  PL_FAMILY_FUSED,
  PL_FAMILY_ATTENTION
};
pl_cu_function pl_cuda_kernel_found(const pl_cuda *cuda, uint64_t key);
/* Compiles kernels/FILE behind `prelude` (generated text; may be NULL) with `options`, loads it, and remembers the
 * function `name` of it under `key`. */
pl_status pl_cuda_kernel_load(pl_cuda *cuda, uint64_t key, const char *file, const char *prelude, const char *options,
                              const char *name, pl_cu_function *function);
/* A number of its own for every text. */
uint64_t pl_cuda_key(int family, const char *text);
/* Kernels found by pl_cuda_key are unloaded when many others were used since: whoever launches one later than in the
 * call that found it, or has it in a graph, holds it until then. NULL does nothing. */
void pl_cuda_kernel_hold(pl_cuda *cuda, pl_cu_function function);
void pl_cuda_kernel_release(pl_cuda *cuda, pl_cu_function function);

/* Launches on the device's stream; parameters[i] points to argument i. */
pl_status pl_cuda_launch(pl_cuda *cuda, pl_cu_function function, uint64_t blocks_x, unsigned blocks_y, unsigned threads,
                         unsigned shared_bytes, void **parameters);

/* Waits until `event` (NULL: the whole stream) is done. An interrupt ends the waiting at once, and the GPU works on by
 * itself: what is called later comes later on the same stream, so nothing need be undone. */
pl_status pl_cuda_wait(pl_cuda *cuda, pl_cu_event event);
/* An error while a recording is made, for what cannot be repeated: "a copy from the host". */
pl_status pl_cuda_refuse_recorded(const pl_cuda *cuda, const char *what);
/* Keeps a kernel that is launched loaded for as long as the recording that it goes into, if any. */
void pl_cuda_recorded_kernel(pl_cuda *cuda, pl_cu_function function);
/* Waits for the stream and raises what kernels complained of meanwhile. */
pl_status pl_cuda_synchronize(pl_device *device);

#endif
