/* The recurrence on the processor (`reference`): any cell over all time steps, from a packed R. */
#ifndef PL_CPU_RECURRENCE_H
#define PL_CPU_RECURRENCE_H

#include "host/device/device.h"

/* The three recurrence primitives of host/device/device.h. */
pl_status pl_cpu_recurrence_workspace(pl_device *device, const pl_recurrence *recurrence, size_t *bytes);
pl_status pl_cpu_recurrence_forward(pl_device *device, const pl_recurrence *recurrence,
                                    const pl_recurrence_result *result);
pl_status pl_cpu_recurrence_backward(pl_device *device, const pl_recurrence *recurrence,
                                     const pl_recurrence_gradient *gradient);

#endif
