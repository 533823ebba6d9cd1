/* The thread of the control and heartbeat channels: it answers while a cell computes, notices that the front end has
 * died, and sees to it that the process ends when it was asked to. */
#include "host/jupyter/kernel.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { PARENT_POLL_MS = 1000, STOP_POLL_MS = 10, STOP_MS_MAX = 2000 };

/* Echoes a heartbeat, all its parts. */
static void beat(void *socket) {
  zmq_msg_t part;
  int more = 1;
  while (more) {
    zmq_msg_init(&part);
    int got;
    do got = zmq_msg_recv(&part, socket, ZMQ_DONTWAIT);
    while (got < 0 && errno == EINTR);
    more = got >= 0 && zmq_msg_more(&part);
    if (got < 0 || zmq_msg_send(&part, socket, more ? ZMQ_SNDMORE : 0) < 0) {
      zmq_msg_close(&part);
      return;
    }
  }
}

/* Interrupts what the main thread runs until it has left the session; code that cannot be interrupted ends with the
 * process. The replies are sent by ZeroMQ's own threads meanwhile. */
static void see_to_the_end(pl_kernel *k) {
  uint64_t one = 1;
  while (write(k->wake, &one, sizeof one) < 0 && errno == EINTR) continue;
  struct timespec pause = {.tv_nsec = STOP_POLL_MS * 1000000L};
  for (int waited = 0; !atomic_load(&k->ended); waited += STOP_POLL_MS) {
    if (waited >= STOP_MS_MAX) _exit(0);
    pl_session_interrupt(k->session);
    nanosleep(&pause, NULL);
  }
}

/* The parent may have died even before this thread asked who it is: then init has taken its place already. */
static bool is_orphan(pid_t parent, long starter) {
  pid_t now = getppid();
  return now != parent || (now == 1 && starter != 1);
}

void *pl_control_run(void *data) {
  pl_kernel *k = data;
  const char *starter = getenv("JPY_PARENT_PID"); /* absent: the kernel is meant to live on its own */
  pid_t parent = getppid();
  zmq_pollitem_t items[] = {{.socket = k->control, .events = ZMQ_POLLIN},
                            {.socket = k->heartbeat, .events = ZMQ_POLLIN}};
  while (!atomic_load(&k->stopping) && !atomic_load(&k->ended)) {
    int ready = zmq_poll(items, 2, PARENT_POLL_MS);
    if (starter && is_orphan(parent, atol(starter))) atomic_store(&k->stopping, true);
    if (ready <= 0) continue;
    if (items[1].revents) beat(k->heartbeat);
    pl_request request;
    if (!items[0].revents || pl_wire_receive(k->wire, k->control, &request) != PL_RECEIVED) continue;
    pl_kernel_handle(k, PL_CONTROL, k->control, &request);
    pl_request_release(&request);
  }
  see_to_the_end(k);
  return NULL;
}
