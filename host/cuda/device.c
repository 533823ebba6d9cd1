/* Which GPUs there are, their contexts and streams, memory, and the struct of their primitives. */
#include "host/cuda/primitives.h"

#include "host/base/clock.h"
#include "host/cuda/blas.h"
#include "host/cuda/cell_text.h"
#include "host/cuda/fused_details.h"
#include "host/cuda/cubin_cache.h"
#include "host/cuda/nccl.h"
#include "host/cuda/nvrtc.h"
#include "host/cuda/recurrence.h"
#include "host/cuda/recurrence_plan.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OLDEST_ARCHITECTURE = 80 };

/* The GPU whose context is current on this thread. */
static _Thread_local const pl_cuda *current;

/* ---- contexts ---- */

static pl_status create_complaint(pl_cuda *cuda) {
  void *complaint;
  PL_CUDA_TRY(
      pl_cu.MemHostAlloc(&complaint, sizeof *cuda->complaint, PL_CU_HOST_ALLOC_PORTABLE | PL_CU_HOST_ALLOC_DEVICE_MAP));
  memset(complaint, 0, sizeof *cuda->complaint);
  cuda->complaint = complaint;
  return PL_OK;
}

/* Each step leaves its handle as it was when it fails, and a later call goes on from there. */
static pl_status create(pl_cuda *cuda) {
  if (!cuda->context) PL_CUDA_TRY(pl_cu.DevicePrimaryCtxRetain(&cuda->context, cuda->handle));
  PL_CUDA_TRY(pl_cu.CtxSetCurrent(cuda->context));
  current = cuda;
  if (!cuda->stream) PL_CUDA_TRY(pl_cu.StreamCreate(&cuda->stream, PL_CU_STREAM_NON_BLOCKING));
  if (!cuda->complaint) PL_TRY(create_complaint(cuda));
  if (!cuda->complaint_lock) PL_CUDA_TRY(pl_cu.MemAlloc(&cuda->complaint_lock, sizeof(int)));
  PL_CUDA_TRY(pl_cu.MemsetD8Async(cuda->complaint_lock, 0, sizeof(int), cuda->stream));
  cuda->entered = true;
  return PL_OK;
}

pl_status pl_cuda_enter(pl_device *device, pl_cuda **cuda) {
  *cuda = device->state;
  PL_TRY(pl_cuda_lost());
  if (!(*cuda)->entered) return create(*cuda);
  if (current == *cuda) return PL_OK;
  PL_CUDA_TRY(pl_cu.CtxSetCurrent((*cuda)->context));
  current = *cuda;
  return PL_OK;
}

/* Raises what a kernel complained of since the last time, and takes the complaint back. */
static pl_status raise_complaint(pl_cuda *cuda) {
  pl_complaint said = *cuda->complaint;
  if (said.code == 0) return PL_OK;
  cuda->complaint->code = 0;
  PL_CUDA_TRY(pl_cu.MemsetD8Async(cuda->complaint_lock, 0, sizeof(int), cuda->stream));
  if (said.code == PL_COMPLAINT_DIVISION)
    return PL_FAIL("remainder: integer division by zero (in an earlier operation on %s)", cuda->device.name);
  if (said.code == PL_COMPLAINT_LENGTH)
    return PL_FAIL("rnn: lengths[%lld] is %lld, expected 0..T=%lld (in an earlier operation on %s)",
                   (long long)said.position, (long long)said.value, (long long)said.limit, cuda->device.name);
  if (said.code == PL_COMPLAINT_WAIT)
    return PL_FAIL(
        "rnn: block %lld of a fused recurrence waited in vain for the %lld blocks of its head at step %lld (on "
        "%s); its results are not valid",
        (long long)said.value, (long long)said.limit, (long long)said.position, cuda->device.name);
  return PL_FAIL("index: value %lld at position %lld is outside 1..%lld (in an earlier operation on %s)",
                 (long long)said.value, (long long)said.position, (long long)said.limit, cuda->device.name);
}

/* The driver's own waiting cannot be interrupted. Asking again and again is as quick as that; who has waited long can
 * sleep between two questions. */
pl_status pl_cuda_wait(pl_cuda *cuda, pl_cu_event event) {
  static const double AWAKE_MS = 10;
  const struct timespec nap = {.tv_nsec = 50000};
  double start = 0;
  PL_TRY(pl_cuda_refuse_recorded(cuda, "waiting for the GPU"));
  for (int64_t asked = 0;; asked++) {
    pl_cu_result result = event ? pl_cu.EventQuery(event) : pl_cu.StreamQuery(cuda->stream);
    if (result != PL_CU_NOT_READY)
      return pl_cuda_check(result, event ? "pl_cu.EventQuery(event)" : "pl_cu.StreamQuery(cuda->stream)", __FILE__,
                           __LINE__);
    PL_TRY(pl_check_interrupt());
    if (asked == 0) start = pl_now_ms();
    if (pl_now_ms() - start > AWAKE_MS) nanosleep(&nap, NULL);
  }
}

pl_status pl_cuda_synchronize(pl_device *device) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(pl_cuda_wait(cuda, NULL));
  return raise_complaint(cuda);
}

/* ---- memory ---- */

pl_status pl_cuda_exhausted(pl_cuda *cuda, const char *what) {
  size_t available = 0, total = 0;
  pl_memory now;
  (void)pl_cu.MemGetInfo(&available, &total);
  pl_device_memory(&cuda->device, &now);
  return PL_FAIL_MEMORY(
      "%s: out of memory: %s, %zu bytes live, %zu cached, peak %zu; the GPU has %zu of %zu bytes free",
      cuda->device.name, what, now.live, now.cached, now.peak, available, total);
}

pl_status pl_cuda_with_memory(pl_cuda *cuda, pl_status (*work)(void *context), void *context) {
  pl_device *device = &cuda->device;
  pl_status status = work(context);
  for (bool more = true; status == PL_OUT_OF_MEMORY && more;
       more = status == PL_OUT_OF_MEMORY && device->shed(device)) {
    pl_device_trim(device);
    status = work(context);
  }
  return status;
}

static pl_status allocate(pl_device *device, size_t bytes, void **data) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  pl_cu_pointer pointer;
  pl_cu_result result = pl_cu.MemAlloc(&pointer, bytes);
  if (result == PL_CU_OUT_OF_MEMORY) {
    char what[48];
    snprintf(what, sizeof what, "%zu bytes asked", bytes);
    return pl_cuda_exhausted(cuda, what);
  }
  PL_TRY(pl_cuda_check(result, "pl_cu.MemAlloc(&pointer, bytes)", __FILE__, __LINE__));
  *data = (void *)(uintptr_t)pointer; // NOLINT: device addresses travel as pointers
  return PL_OK;
}

static void release(pl_device *device, void *data, size_t bytes) {
  (void)bytes;
  pl_cuda *cuda;
  /* After a lost context the memory is gone with it; there is nobody to tell. */
  if (pl_cuda_enter(device, &cuda) == PL_OK) (void)PL_CUDA(pl_cu.MemFree((pl_cu_pointer)(uintptr_t)data));
}

static pl_status capacity(pl_device *device, size_t *available, size_t *total) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  return PL_CUDA(pl_cu.MemGetInfo(available, total));
}

/* ---- what there is ---- */

static void describe_device(pl_device *device, pl_text *text) {
  const pl_cuda *cuda = device->state;
  pl_text_print(text,
                "%s: %s, sm_%d, %d multiprocessors, %.1f GiB memory; backends fused, alternating, "
                "vanilla",
                device->name, cuda->model, cuda->architecture, cuda->multiprocessors,
                (double)cuda->total_bytes / (1024.0 * 1024 * 1024));
}

static pl_status attribute(int which, pl_cu_device handle, int *value) {
  return PL_CUDA(pl_cu.DeviceGetAttribute(value, which, handle));
}

static const pl_device primitives = {
    .allocate = allocate,
    .release = release,
    .shed = pl_step_plans_shed,
    .upload = pl_cuda_upload,
    .download = pl_cuda_download,
    .transfer = pl_cuda_transfer,
    .copy = pl_cuda_copy,
    .pointwise = pl_cuda_pointwise,
    .pointwise_gradients = pl_cuda_pointwise_gradients,
    .reduce = pl_cuda_reduce,
    .gemm = pl_cuda_gemm,
    .gather = pl_cuda_gather,
    .scatter = pl_cuda_scatter,
    .random = pl_cuda_random,
    .softmax = pl_cuda_softmax,
    .softmax_gradient = pl_cuda_softmax_gradient,
    .norm = pl_cuda_norm,
    .norm_gradient = pl_cuda_norm_gradient,
    .cross_entropy = pl_cuda_cross_entropy,
    .cross_entropy_gradient = pl_cuda_cross_entropy_gradient,
    .attends = pl_cuda_attends,
    .attention = pl_cuda_attention,
    .attention_gradient = pl_cuda_attention_gradient,
    .adam = pl_cuda_adam,
    .squares = pl_cuda_squares,
    .scale = pl_cuda_scale,
    .half_storage = true,
    .recurrence_workspace = pl_cuda_recurrence_workspace,
    .recurrence_forward = pl_cuda_recurrence_forward,
    .recurrence_backward = pl_cuda_recurrence_backward,
    .synchronize = pl_cuda_synchronize,
    .record = pl_cuda_record,
    .recorded = pl_cuda_recorded,
    .replay = pl_cuda_replay,
    .erase = pl_cuda_erase,
    .mark = pl_cuda_mark,
    .elapsed = pl_cuda_elapsed,
    .unmark = pl_cuda_unmark,
    .group = pl_nccl_group,
    .compilations = pl_nvrtc_compilations,
    .capacity = capacity,
    .describe = describe_device,
};

/* Fills in *cuda, which stays for as long as the program runs. */
static pl_status inspect(int ordinal, pl_cuda *cuda) {
  int major, minor;
  cuda->ordinal = ordinal;
  PL_CUDA_TRY(pl_cu.DeviceGet(&cuda->handle, ordinal));
  PL_CUDA_TRY(pl_cu.DeviceGetName(cuda->model, sizeof cuda->model, cuda->handle));
  PL_CUDA_TRY(pl_cu.DeviceTotalMem(&cuda->total_bytes, cuda->handle));
  PL_TRY(attribute(PL_CU_DEVICE_CAPABILITY_MAJOR, cuda->handle, &major));
  PL_TRY(attribute(PL_CU_DEVICE_CAPABILITY_MINOR, cuda->handle, &minor));
  PL_TRY(attribute(PL_CU_DEVICE_MULTIPROCESSORS, cuda->handle, &cuda->multiprocessors));
  PL_TRY(attribute(PL_CU_DEVICE_SHARED_BYTES_PER_BLOCK_OPTIN, cuda->handle, &cuda->shared_bytes_max));
  cuda->architecture = 10 * major + minor;
  PL_REQUIRE(cuda->architecture >= OLDEST_ARCHITECTURE, "cuda: GPU %d, %s, is sm_%d; expected sm_%d or newer", ordinal,
             cuda->model, cuda->architecture, OLDEST_ARCHITECTURE);
  cuda->device = primitives;
  cuda->device.state = cuda;
  cuda->device.model = cuda->model;
  cuda->device.chip = (pl_fused_chip){cuda->architecture, cuda->multiprocessors, cuda->shared_bytes_max};
  snprintf(cuda->device.name, sizeof cuda->device.name, "cuda:%d", ordinal);
  return PL_OK;
}

static pl_text left_out; /* lines on GPUs that cannot be used */

static pl_status find(void) {
  int count = 0, usable = 0;
  PL_TRY(pl_driver_open());
  PL_CUDA_TRY(pl_cu.DeviceGetCount(&count));
  PL_REQUIRE(count > 0, "cuda: the NVIDIA driver is here, but it finds no GPU");
  for (int ordinal = 0; ordinal < count; ordinal++) {
    pl_cuda *cuda = pl_allocate(sizeof *cuda);
    if (inspect(ordinal, cuda) == PL_OK) {
      pl_device_register(&cuda->device);
      usable++;
    } else {
      pl_text_print(&left_out, "%s%s", left_out.length ? "\n" : "", pl_message_text());
      free(cuda);
    }
  }
  PL_REQUIRE(usable > 0, "%s", left_out.data);
  return PL_OK;
}

static void describe_libraries(pl_text *text) {
  pl_text folder = {0};
  if (pl_driver_version() > 0)
    pl_text_print(text, "cuda: driver for CUDA %d.%d\n", pl_driver_version() / 1000, pl_driver_version() % 1000 / 10);
  if (left_out.length) pl_text_print(text, "%s\n", left_out.data);
  if (pl_nvrtc_open() == PL_OK)
    pl_text_print(text, "cuda: NVRTC %s\n", pl_nvrtc_version());
  else
    pl_text_print(text, "%s\n", pl_message_text());
  if (pl_blas_open() == PL_OK)
    pl_text_print(text, "cuda: cuBLAS is here\n");
  else
    pl_text_print(text, "%s\n", pl_message_text());
  if (pl_cubin_folder(&folder) == PL_OK)
    pl_text_print(text, "cuda: compiled kernels are kept in %s\n", folder.data);
  else
    pl_text_print(text, "%s\n", pl_message_text());
  pl_text_release(&folder);
}

static const char *left_out_lines(void) { return left_out.data; }

void pl_cuda_open(void) {
  static const pl_device_family family = {"cuda",         find,         describe_libraries,
                                          left_out_lines, pl_cell_text, pl_cuda_fused_details};
  pl_device_family_register(&family);
}
