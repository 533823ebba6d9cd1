/* A Jupyter kernel: sockets, threads and the loop round the session. Requests are answered by the table in requests.c.
 */
#ifndef PL_JUPYTER_KERNEL_H
#define PL_JUPYTER_KERNEL_H

#include "host/bind/session.h"
#include "host/jupyter/capture.h"
#include "host/jupyter/connection.h"
#include "host/jupyter/debug.h"
#include "host/jupyter/history.h"
#include "host/jupyter/process.h"
#include "host/jupyter/publisher.h"
#include "host/jupyter/usage.h"

#include <pthread.h>
#include <stdatomic.h>

/* Runs a kernel for the connection file until a front end ends it. */
pl_status pl_kernel_run(const char *connection_file);

/* ---- private to host/jupyter ---- */

typedef struct {
  pl_connection connection;
  pl_wire *wire;
  pl_publisher *publisher;
  pl_capture *capture;
  pl_session *session;
  pl_debug *debug;
  void *context, *shell, *control, *stdin_socket, *heartbeat; /* of ZeroMQ */
  pthread_t control_thread;
  pl_starters starters;
  int wake;             /* eventfd: both threads are to look at `stopping`; never read, so that it stays set */
  atomic_bool stopping; /* a shutdown was asked for, by a message, a signal or the end of the front end */
  atomic_bool ended;    /* the main thread has left the session */
  pl_usage usage;       /* of the control thread */

  /* ---- of the main thread ---- */
  const pl_request *request; /* the one being handled */
  pl_text debugging;         /* header of the debugger's last request: what its events belong to */
  long execution_count;
  pl_history *history;
  json_t *payload;     /* array: what the front end is to do after the code that runs */
  pl_request *waiting; /* requests that were taken from the shell after an error, still to be handled */
  size_t waiting_count;
} pl_kernel;

/* Opens sockets, session and the other threads for k->connection; everything else of *k is zero. After a failure it is
 * to be closed as well. */
pl_status pl_kernel_open(pl_kernel *k);
/* Waits for a request on the shell, as long as patience_ms (-1: without end), and handles it and what follows from it.
 */
void pl_kernel_step(pl_kernel *k, long patience_ms);
void pl_kernel_close(pl_kernel *k);

/* Says busy, answers, says idle: the life of every request, on either thread. */
void pl_kernel_handle(pl_kernel *kernel, pl_channel channel, void *socket, pl_request *request);
/* The end of that life where it comes later: sends the reply (which may be NULL) and says idle. */
void pl_kernel_finish(pl_kernel *kernel, void *socket, const pl_request *request, const char *type,
                      const json_t *reply);

/* Asks both threads to end; also from a signal handler. */
void pl_kernel_stop(pl_kernel *kernel);

/* Sends a message of output on iopub, behind all that was written so far. */
void pl_kernel_publish(pl_kernel *kernel, const char *type, const json_t *content);

/* The control and heartbeat thread's whole life; data is the kernel. */
void *pl_control_run(void *kernel);

/* With the channels of a message that runs code of the user: output belongs to it, also what comes after its end. */
enum { PL_SPEAKS = 1 << 8 };
/* Of the control channel's, a message that the main thread answers when it can. */
enum { PL_LATER = 1 << 9 };

/* Answers to messages: one row for each type that the kernel knows. */
typedef struct {
  const char *type, *reply; /* reply is NULL for messages that have none */
  unsigned channels;        /* bits 1 << pl_channel: where it may arrive; and PL_SPEAKS, PL_LATER */
  /* Makes the content of the reply, NULL when there is none. On the control channel it runs in that thread, at the same
   * time as the main thread's work. */
  json_t *(*run)(pl_kernel *kernel, const pl_request *request);
} pl_handler;
const pl_handler *pl_handler_find(const char *type, pl_channel channel);

/* Takes from the shell what was sent before the front end could know of an error. */
void pl_kernel_take_waiting(pl_kernel *kernel);

#endif
