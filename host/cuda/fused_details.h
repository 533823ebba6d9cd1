/* What a plan of a fused recurrence comes to on a chip, which need not be here. */
#ifndef PL_CUDA_FUSED_DETAILS_H
#define PL_CUDA_FUSED_DETAILS_H

#include "host/device/device.h"

/* Fails, naming the limit that q->plan breaks, where it does not fit with everything asked for: all states out,
 * backward to come, all gradients given and wanted. What asks for less then fits, too. */
pl_status pl_cuda_fused_details(const pl_recurrence *q, const pl_fused_chip *chip, pl_fused_details *details);

#endif
