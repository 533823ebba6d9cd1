/* Recordings on any device that can record, and the memory that belongs to each. */
#include "host/device/recording.h"

#include <stdlib.h>

struct pl_replay {
  pl_device *device;
  void *work;    /* the device's own */
  pl_pool *pool; /* memory that was released while it was recorded */
};

pl_status pl_replay_record(pl_device *device) {
  PL_REQUIRE(device->record, "cuda_graph: device: expected a GPU, whose work can be recorded; got %s", device->name);
  PL_TRY(device->record(device));
  pl_device_set_aside(device);
  return PL_OK;
}

pl_status pl_replay_end(pl_device *device, bool keep, pl_replay **recording) {
  void *work = NULL;
  pl_status status = device->recorded(device, keep ? &work : NULL);
  pl_pool *pool = pl_device_set_back(device);
  *recording = NULL;
  if (status != PL_OK || !keep) {
    pl_device_give_back(device, pool);
    return status;
  }
  *recording = pl_allocate(sizeof **recording);
  **recording = (pl_replay){device, work, pool};
  return PL_OK;
}

pl_status pl_replay_run(pl_replay *recording) { return recording->device->replay(recording->device, recording->work); }

void pl_replay_release(pl_replay *recording) {
  if (!recording) return;
  recording->device->erase(recording->device, recording->work);
  /* Whoever has this memory next comes later in the device's order than the last replay. */
  pl_device_give_back(recording->device, recording->pool);
  free(recording);
}
