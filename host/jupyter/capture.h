/* What is written to file descriptors 1 and 2 past Lua: by C libraries and by child processes. Pipes stand in the place
 * of both, and a thread hands on what comes out of them. */
#ifndef PL_JUPYTER_CAPTURE_H
#define PL_JUPYTER_CAPTURE_H

#include "host/base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct pl_capture pl_capture;

/* Where the output goes. */
typedef struct {
  void *context;
  /* name is "stdout" or "stderr". Called by one thread at a time: that of the capture, or one that drains. */
  void (*take)(void *context, const char *name, const char *data, size_t length);
  /* While this is true the thread takes nothing, so that those who write wait once the pipe is full. May be NULL. */
  bool (*full)(void *context);
} pl_capture_sink;

/* File descriptors 1 and 2 must be open. One capture per process at a time. */
pl_status pl_capture_start(const pl_capture_sink *sink, pl_capture **capture);
/* When it returns, all that was written before has been taken, what C's stdout still held included. */
void pl_capture_drain(pl_capture *capture);
/* Gives the descriptors back what they were, for the last words of a process that cannot wait for its other threads. */
void pl_capture_leave(pl_capture *capture);
/* Drains and gives the descriptors back what they were. NULL is fine. */
void pl_capture_stop(pl_capture *capture);

#endif
