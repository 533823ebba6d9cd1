/* A barrier for a small team of threads that meet at every time step: it spins shortly, then sleeps. */
#ifndef PL_CPU_BARRIER_H
#define PL_CPU_BARRIER_H

#include <pthread.h>
#include <stdatomic.h>

typedef struct {
  _Alignas(64) atomic_int arrived;
  _Alignas(64) atomic_int epoch;
  atomic_int sleepers; /* threads that wait for `woken` */
  int size;            /* threads of the team */
  pthread_mutex_t mutex;
  pthread_cond_t woken;
} pl_barrier;

void pl_barrier_begin(pl_barrier *barrier, int size);
void pl_barrier_end(pl_barrier *barrier);
/* Says that this thread has come; the epoch to wait for. What it does before it waits hides the others' delay. */
int pl_barrier_arrive(pl_barrier *barrier);
/* Returns when all threads of the team have arrived; their writes before that are visible after. */
void pl_barrier_wait(pl_barrier *barrier, int epoch);

#endif
