/* Starting threads with all signals blocked. */
#include "host/base/thread.h"

#include <signal.h>
#include <string.h>

pl_status pl_thread_start(pthread_t *thread, void *(*run)(void *), void *data) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(thread, NULL, run, data);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  PL_REQUIRE(error == 0, "cannot start a thread: %s", strerror(error));
  return PL_OK;
}
