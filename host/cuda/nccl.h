/* NCCL: collective operations between GPUs, of one host or many. */
#ifndef PL_CUDA_NCCL_H
#define PL_CUDA_NCCL_H

#include "host/device/group.h"

/* The group of a GPU; every rank has one of its own. An error names NCCL where it cannot be loaded. */
pl_status pl_nccl_group(pl_device *device, pl_peers *peers, pl_group **group);

#endif
