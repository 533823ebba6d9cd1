/* Threads that never run signal handlers: signals belong to the thread that owns Lua. */
#ifndef PL_BASE_THREAD_H
#define PL_BASE_THREAD_H

#include "host/base/status.h"
#include <pthread.h>

pl_status pl_thread_start(pthread_t *thread, void *(*run)(void *), void *data);

#endif
