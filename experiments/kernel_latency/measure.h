/* What is measured of a kernel, and the measuring. */
#ifndef EXPERIMENTS_KERNEL_LATENCY_MEASURE_H
#define EXPERIMENTS_KERNEL_LATENCY_MEASURE_H

#include "experiments/kernel_latency/client.h"

typedef enum {
  START,
  REPLY,
  IDLE,
  RATE,
  LOST,
  TEN_MB,
  HUNDRED_MB,
  LOST_BYTES,
  INTERRUPT,
  HEARTBEAT,
  CONTROL,
  RESIDENT,
  RESIDENT_AFTER,
  RESIDENT_PEAK,
  IDLE_TICKS,
  IDLE_SWITCHES,
  QUANTITIES
} quantity;
/* What they are called, and their units. */
extern const struct quantity_words { const char *name, *unit; } quantities[QUANTITIES];

/* Code in the kernel's language. */
typedef struct {
  const char *name, *lines /* of LINE_BYTES, %d of them */, *endless, *busy /* on all cores, for ever */;
} language;
/* The values of one quantity, in the order measured. */
typedef struct {
  double *values;
  size_t count;
} series;

/* A kernel, and what was measured of it. */
typedef struct {
  kernel_spec spec;
  language words;
  series all[QUANTITIES];
} subject;

/* Reads kernel.json and finds the code in its language. *s is {0}. */
pl_status subject_open(const char *path, subject *s);
void subject_release(subject *s);
/* Starts the kernel often, then measures one in turn; what was measured before a failure stays. */
pl_status subject_measure(subject *s);

#endif
