/* Gradients of a model that several processes train, each on its own rows of a batch: averaged over the ranks while the
 * backward pass still goes on. */
#ifndef PL_TENSOR_BUCKETS_H
#define PL_TENSOR_BUCKETS_H

#include "host/device/group.h"
#include "host/tensor/tensor.h"

typedef struct pl_buckets pl_buckets;

/* For parameters (floating-point leaves on the group's device), in the order in which the model uses them, the same on
 * all ranks. */
pl_status pl_buckets_new(pl_group *group, pl_tensor *const parameters[], int count, pl_buckets **buckets);
void pl_buckets_release(pl_buckets *buckets); /* NULL is fine */
/* As pl_backward; then the gradient of every parameter that wants one is the mean over all ranks of what it would be on
 * each, with what it held before. *missing: the first parameter (from 0) that got none, on this rank, else -1; where
 * one is missing the others' gradients are not to be used. */
pl_status pl_buckets_backward(pl_buckets *buckets, pl_tensor *tensor, pl_tensor *seed, int *missing);

#endif
