/* The time on the system's monotonic clock. */
#include "host/base/clock.h"

#include <time.h>

double pl_now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}
