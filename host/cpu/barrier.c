/* The barrier of host/cpu/barrier.h. */
#include "host/cpu/barrier.h"

/* Some ten microseconds: longer than a step's imbalance. When other programs hold up a member, sleeping is better than
 * giving the core away with sched_yield: who sleeps is run at once when woken, who yields waits for a whole time slice.
 */
enum { SPINS = 500 };

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void pl_barrier_begin(pl_barrier *barrier, int size) {
  *barrier = (pl_barrier){.size = size};
  pthread_mutex_init(&barrier->mutex, NULL);
  pthread_cond_init(&barrier->woken, NULL);
}

void pl_barrier_end(pl_barrier *barrier) {
  pthread_cond_destroy(&barrier->woken);
  pthread_mutex_destroy(&barrier->mutex);
}

int pl_barrier_arrive(pl_barrier *barrier) {
  if (barrier->size == 1) return 0;
  int epoch = atomic_load_explicit(&barrier->epoch, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) + 1 < barrier->size) return epoch;
  atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
  /* In this order, sequentially consistent, and the sleeper's in the other: one of the two sees the other's write. */
  atomic_store(&barrier->epoch, epoch + 1);
  if (atomic_load(&barrier->sleepers) > 0) {
    pthread_mutex_lock(&barrier->mutex);
    pthread_cond_broadcast(&barrier->woken);
    pthread_mutex_unlock(&barrier->mutex);
  }
  return epoch;
}

void pl_barrier_wait(pl_barrier *barrier, int epoch) {
  if (barrier->size == 1) return;
  for (int spins = 0; spins < SPINS; spins++) {
    if (atomic_load_explicit(&barrier->epoch, memory_order_acquire) != epoch) return;
    relax();
  }
  pthread_mutex_lock(&barrier->mutex);
  atomic_fetch_add(&barrier->sleepers, 1);
  while (atomic_load(&barrier->epoch) == epoch) pthread_cond_wait(&barrier->woken, &barrier->mutex);
  atomic_fetch_sub(&barrier->sleepers, 1);
  pthread_mutex_unlock(&barrier->mutex);
}
