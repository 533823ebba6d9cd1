/* The recurrence on a GPU, a matrix product and the cell's own kernel per time step (`alternating`). */
#ifndef PL_CUDA_RECURRENCE_H
#define PL_CUDA_RECURRENCE_H

#include "host/cuda/cuda.h"

/* The three recurrence primitives of host/device/device.h. Storage may be of a 16-bit type with a float32 recurrence.
 */
pl_status pl_cuda_recurrence_workspace(pl_device *device, const pl_recurrence *recurrence, size_t *bytes);
pl_status pl_cuda_recurrence_forward(pl_device *device, const pl_recurrence *recurrence,
                                     const pl_recurrence_result *result);
pl_status pl_cuda_recurrence_backward(pl_device *device, const pl_recurrence *recurrence,
                                      const pl_recurrence_gradient *gradient);

#endif
