/* Recordings: work that was asked of a device once and is done again and again by one call. */
#ifndef PL_DEVICE_RECORDING_H
#define PL_DEVICE_RECORDING_H

#include "host/device/device.h"

typedef struct pl_replay pl_replay;

/* From here on what is asked of the device is not done but recorded. Whatever the host would have to read or to draw
 * anew meanwhile (results, uploads, random numbers) is an error. Memory that is released meanwhile stays with the
 * recording, since what it records may use it. One device records one thing at a time. */
pl_status pl_replay_record(pl_device *device);
/* Ends that. *recording is NULL on failure, and where `keep` is false: then all was for nothing, on purpose. */
pl_status pl_replay_end(pl_device *device, bool keep, pl_replay **recording);
/* Asks for the recorded work once more: it reads and writes the same memory as before. */
pl_status pl_replay_run(pl_replay *recording);
void pl_replay_release(pl_replay *recording); /* NULL is fine */

#endif
