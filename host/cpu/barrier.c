/* The spinning barrier of host/cpu/barrier.h. */
#include "host/cpu/barrier.h"

#include <sched.h>

/* About ten microseconds: longer than a step's imbalance, shorter than a time slice when cores are shared. */
enum { SPINS = 500 };

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int pl_barrier_arrive(pl_barrier *barrier) {
  if (barrier->size == 1) return 0;
  int epoch = atomic_load_explicit(&barrier->epoch, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) + 1 == barrier->size) {
    atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&barrier->epoch, epoch + 1, memory_order_release);
  }
  return epoch;
}

void pl_barrier_wait(pl_barrier *barrier, int epoch) {
  if (barrier->size == 1) return;
  for (int spins = 0; atomic_load_explicit(&barrier->epoch, memory_order_acquire) == epoch; spins++)
    if (spins < SPINS)
      relax();
    else
      sched_yield();
}
