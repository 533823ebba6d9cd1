/* Work of a GPU that is recorded once and repeated by one call: the stream is captured into a CUDA graph. */
#include "host/cuda/primitives.h"

#include <stdlib.h>

struct pl_cuda_recording {
  pl_cu_graph_exec graph;
  pl_cu_function *kernel; /* [kernels] held, each once */
  size_t kernels, capacity;
};

static void forget(pl_cuda *cuda, struct pl_cuda_recording *recording) {
  for (size_t i = 0; i < recording->kernels; i++) pl_cuda_kernel_release(cuda, recording->kernel[i]);
  free(recording->kernel);
  free(recording);
}

pl_status pl_cuda_refuse_recorded(const pl_cuda *cuda, const char *what) {
  PL_REQUIRE(!cuda->recording, "cuda_graph: %s cannot be recorded", what);
  return PL_OK;
}

void pl_cuda_recorded_kernel(pl_cuda *cuda, pl_cu_function function) {
  struct pl_cuda_recording *r = cuda->recording;
  if (!r) return;
  for (size_t i = 0; i < r->kernels; i++)
    if (r->kernel[i] == function) return;
  if (r->kernels == r->capacity) {
    r->capacity = r->capacity ? 2 * r->capacity : 32;
    r->kernel = pl_reallocate(r->kernel, r->capacity * sizeof *r->kernel);
  }
  r->kernel[r->kernels++] = function;
  pl_cuda_kernel_hold(cuda, function);
}

pl_status pl_cuda_record(pl_device *device) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(pl_cuda_refuse_recorded(cuda, "a recording"));
  PL_CUDA_TRY(pl_cu.StreamBeginCapture(cuda->stream, PL_CU_CAPTURE_RELAXED));
  cuda->recording = pl_allocate(sizeof *cuda->recording);
  return PL_OK;
}

/* Whatever fails, the stream captures no longer, and nothing has run. */
pl_status pl_cuda_recorded(pl_device *device, void **work) {
  pl_cuda *cuda = device->state;
  struct pl_cuda_recording *recording = cuda->recording;
  pl_cu_graph graph = NULL;
  cuda->recording = NULL;
  pl_status status = pl_cuda_enter(device, &cuda);
  if (status == PL_OK) {
    pl_cu_result ended = pl_cu.StreamEndCapture(cuda->stream, &graph);
    if (work) status = pl_cuda_check(ended, "pl_cu.StreamEndCapture(cuda->stream, &graph)", __FILE__, __LINE__);
  }
  if (status == PL_OK && work) status = PL_CUDA(pl_cu.GraphInstantiate(&recording->graph, graph, 0));
  if (graph) (void)pl_cu.GraphDestroy(graph);
  if (status == PL_OK && work)
    *work = recording;
  else
    forget(cuda, recording);
  return status;
}

pl_status pl_cuda_replay(pl_device *device, void *work) {
  const struct pl_cuda_recording *recording = work;
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(pl_cuda_refuse_recorded(cuda, "the replay of a recording"));
  return PL_CUDA(pl_cu.GraphLaunch(recording->graph, cuda->stream));
}

/* A graph that runs lives on until it has ended; its kernels are unloaded only when the stream is at rest. */
void pl_cuda_erase(pl_device *device, void *work) {
  struct pl_cuda_recording *recording = work;
  pl_cuda *cuda = device->state;
  if (pl_cuda_enter(device, &cuda) == PL_OK) (void)PL_CUDA(pl_cu.GraphExecDestroy(recording->graph));
  forget(cuda, recording);
}
