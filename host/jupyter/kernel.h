/* A Jupyter kernel: sockets, threads and the loop round the session. Requests are answered by the table in requests.c.
 */
#ifndef PL_JUPYTER_KERNEL_H
#define PL_JUPYTER_KERNEL_H

#include "host/bind/session.h"
#include "host/jupyter/capture.h"
#include "host/jupyter/connection.h"
#include "host/jupyter/publisher.h"

#include <stdatomic.h>

/* Runs a kernel for the connection file until a front end ends it. */
pl_status pl_kernel_run(const char *connection_file);

/* ---- private to host/jupyter ---- */

typedef struct {
  pl_wire *wire;
  pl_publisher *publisher;
  pl_capture *capture;
  pl_session *session;
  void *shell, *control, *stdin_socket, *heartbeat;
  int wake;             /* eventfd: the main thread is to look at `stopping` */
  atomic_bool stopping; /* a shutdown was asked for */
  atomic_bool ended;    /* the main thread has left the session */

  /* ---- of the main thread ---- */
  const pl_request *request; /* the one being handled */
  long execution_count;
  json_t *history;     /* array of the stored inputs, in their order */
  pl_request *waiting; /* requests that were taken from the shell after an error, still to be handled */
  size_t waiting_count;
} pl_kernel;

/* Says busy, answers, says idle: the life of every request, on either thread. */
void pl_kernel_handle(pl_kernel *kernel, pl_channel channel, void *socket, const pl_request *request);

/* Sends a message of output on iopub, behind all that was written so far. */
void pl_kernel_publish(pl_kernel *kernel, const char *type, const json_t *content);

/* The control and heartbeat thread's whole life; data is the kernel. */
void *pl_control_run(void *kernel);

/* With the channels of a message that runs code of the user: output belongs to it, also what comes after its end. */
enum { PL_SPEAKS = 1 << 8 };

/* Answers to messages: one row for each type that the kernel knows. */
typedef struct {
  const char *type, *reply; /* reply is NULL for messages that have none */
  unsigned channels;        /* bits 1 << pl_channel: where it may arrive; and PL_SPEAKS */
  /* Makes the content of the reply, NULL when there is none. On the control channel it runs in that thread, at the same
   * time as the main thread's work. */
  json_t *(*run)(pl_kernel *kernel, const pl_request *request);
} pl_handler;
const pl_handler *pl_handler_find(const char *type, pl_channel channel);

/* Takes from the shell what was sent before the front end could know of an error. */
void pl_kernel_take_waiting(pl_kernel *kernel);

#endif
