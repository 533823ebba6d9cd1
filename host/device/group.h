/* What several processes do together with arrays: one struct of collective operations per device. A GPU brings its own
 * (NCCL); for arrays in host memory it is made here, over the ranks' data connections. Every rank calls the same
 * operations in the same order, with arrays of the same sizes and types. */
#ifndef PL_DEVICE_GROUP_H
#define PL_DEVICE_GROUP_H

#include "host/base/peers.h"
#include "host/device/device.h"

typedef enum { PL_GROUP_SUM, PL_GROUP_MEAN, PL_GROUP_MAX, PL_GROUP_MIN, PL_GROUP_KINDS } pl_group_kind;

struct pl_group {
  pl_peers *peers;
  pl_device *device;
  /* Each of `count` contiguous arrays = the sum (..) over all ranks' arrays, the same on all ranks bit for bit; the
   * mean is of floating-point types. It begins after what was asked of the device before, and runs beside what is asked
   * later, until `join`: so long the arrays must stay. */
  pl_status (*all_reduce)(pl_group *group, pl_group_kind kind, const pl_array *const arrays[], int count);
  /* Each of `count` contiguous arrays = that of rank `from`. As all_reduce, it may run on until `join`. */
  pl_status (*broadcast)(pl_group *group, int from, const pl_array *const arrays[], int count);
  /* What is asked of the device from now on comes after all of the group's operations. Does not wait. */
  pl_status (*join)(pl_group *group);
  /* Gives up what runs, which may wait for a rank that is gone. */
  void (*abort)(pl_group *group);
  void (*release)(pl_group *group);
};

/* The group for arrays of a device. To be called by all ranks at the same place. */
pl_status pl_group_new(pl_device *device, pl_peers *peers, pl_group **group);

#endif
