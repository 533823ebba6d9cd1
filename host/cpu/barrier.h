/* A barrier for a small team of threads that meet at every time step: it spins shortly, then gives the core away. */
#ifndef PL_CPU_BARRIER_H
#define PL_CPU_BARRIER_H

#include <stdatomic.h>

/* All zero but `size` is the state before the first meeting. */
typedef struct {
  _Alignas(64) atomic_int arrived;
  _Alignas(64) atomic_int epoch;
  int size; /* threads of the team */
} pl_barrier;

/* Says that this thread has come; the epoch to wait for. What it does before it waits hides the others' delay. */
int pl_barrier_arrive(pl_barrier *barrier);
/* Returns when all threads of the team have arrived; their writes before that are visible after. */
void pl_barrier_wait(pl_barrier *barrier, int epoch);

#endif
