/* Moments in a GPU's work, and the time between them by its own clock: CUDA events on the device's stream. */
#include "host/cuda/primitives.h"

pl_status pl_cuda_mark(pl_device *device, void **mark) {
  pl_cuda *cuda;
  pl_cu_event event = *mark;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(pl_cuda_refuse_recorded(cuda, "a timer"));
  if (!event) PL_CUDA_TRY(pl_cu.EventCreate(&event, PL_CU_EVENT_DEFAULT));
  *mark = event;
  return PL_CUDA(pl_cu.EventRecord(event, cuda->stream));
}

pl_status pl_cuda_elapsed(pl_device *device, void *from, void *to, double *ms) {
  pl_cuda *cuda;
  float between;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(pl_cuda_synchronize(device)); /* not for `to` alone: every wait says what kernels complained of */
  PL_CUDA_TRY(pl_cu.EventElapsedTime(&between, from, to));
  *ms = (double)between;
  return PL_OK;
}

void pl_cuda_unmark(pl_device *device, void *mark) {
  pl_cuda *cuda;
  /* After a lost context the event is gone with it; there is nobody to tell. */
  if (mark && pl_cuda_enter(device, &cuda) == PL_OK) (void)PL_CUDA(pl_cu.EventDestroy(mark));
}
