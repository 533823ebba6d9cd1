/* The recurrence on a GPU in one persistent launch for all time steps (`fused`). */
#ifndef PL_CUDA_FUSED_H
#define PL_CUDA_FUSED_H

#include "host/cuda/cuda.h"

/* The recurrence primitives of host/device/device.h for a recurrence with a plan. Storage may be of a 16-bit type. */
pl_status pl_cuda_fused_workspace(pl_device *device, const pl_recurrence *recurrence, size_t *bytes);
pl_status pl_cuda_fused_forward(pl_device *device, const pl_recurrence *recurrence, const pl_recurrence_result *result);
pl_status pl_cuda_fused_backward(pl_device *device, const pl_recurrence *recurrence,
                                 const pl_recurrence_gradient *gradient);

#endif
