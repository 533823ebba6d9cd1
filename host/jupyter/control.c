/* The thread of the control and heartbeat channels: it answers while a cell computes, notices that the front end has
 * died, and sees to it that the process ends when it was asked to. */
#include "host/jupyter/kernel.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

/* CHILDREN_MS: how long the main thread may wait for what it started, say to close a pipe, before that is ended. */
enum { PARENT_POLL_MS = 1000, ASK_AGAIN_MS = 20, STOP_POLL_MS = 10, CHILDREN_MS = 300, STOP_MS_MAX = 2000 };

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

/* Interrupts what the main thread runs until it has left the session; children that it waits for are ended; code that
 * cannot be interrupted ends with the process. The replies are sent by ZeroMQ's own threads meanwhile. */
static void see_to_the_end(pl_kernel *k) {
  struct timespec pause = {.tv_nsec = STOP_POLL_MS * 1000000L};
  for (int waited = 0; !atomic_load(&k->ended); waited += STOP_POLL_MS) {
    if (waited == CHILDREN_MS) pl_children_end();
    if (waited >= STOP_MS_MAX) {
      pl_children_end();
      _exit(0);
    }
    pl_session_interrupt(k->session);
    nanosleep(&pause, NULL);
  }
}

/* Sends what the debugger has replied. */
static void send_answers(pl_kernel *k) {
  pl_request request;
  for (json_t *reply; pl_debug_collect(k->debug, &request, &reply); json_decref(reply)) {
    pl_kernel_finish(k, k->control, &request, "debug_reply", reply);
    pl_request_release(&request);
  }
}

void *pl_control_run(void *data) {
  pl_kernel *k = data;
  enum { CONTROL, HEARTBEAT, WAKE, ANSWERED, STARTERS };
  zmq_pollitem_t items[STARTERS + PL_STARTERS_MAX] = {
      [CONTROL] = {.socket = k->control, .events = ZMQ_POLLIN},
      [HEARTBEAT] = {.socket = k->heartbeat, .events = ZMQ_POLLIN},
      [WAKE] = {.fd = k->wake, .events = ZMQ_POLLIN},
      [ANSWERED] = {.fd = pl_debug_answered_file(k->debug), .events = ZMQ_POLLIN}};
  for (int i = 0; i < k->starters.count; i++)
    items[STARTERS + i] = (zmq_pollitem_t){.fd = k->starters.files[i], .events = ZMQ_POLLIN};
  long patience_ms = k->starters.parent && k->starters.count == 0 ? PARENT_POLL_MS : -1;
  while (!atomic_load(&k->stopping)) {
    if (pl_starters_gone(&k->starters)) pl_kernel_stop(k);
    bool asking = pl_debug_pending(k->debug);
    if (asking) pl_session_attend(k->session);
    if (zmq_poll(items, STARTERS + k->starters.count, asking ? ASK_AGAIN_MS : patience_ms) <= 0) continue;
    if (items[HEARTBEAT].revents) beat(k->heartbeat);
    if (items[ANSWERED].revents) send_answers(k);
    pl_request request;
    if (!items[CONTROL].revents || pl_wire_receive(k->wire, k->control, &request) != PL_RECEIVED) continue;
    pl_kernel_handle(k, PL_CONTROL, k->control, &request);
    pl_request_release(&request);
  }
  see_to_the_end(k);
  return NULL;
}
