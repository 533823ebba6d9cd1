/* What the kernel and its machine have to do, for usage_reply. Fields and their meaning are those of ipykernel, which
 * jupyter-resource-usage reads; GPUs are added. */
#ifndef PL_JUPYTER_USAGE_H
#define PL_JUPYTER_USAGE_H

#include <jansson.h>

/* Percentages are of the time since the last call: what was counted then. {0} at first. */
typedef struct {
  double at_s, process_s;     /* the clock; processor time of the kernel and what it started */
  double host_busy, host_all; /* ticks of all processors */
} pl_usage;

/* A new object with the fields of the reply. Percentages of the first call are 0. */
json_t *pl_usage_read(pl_usage *last);

#endif
