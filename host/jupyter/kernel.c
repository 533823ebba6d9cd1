/* The main thread of a kernel: it owns the session and the shell and stdin sockets. */
#include "host/jupyter/kernel.h"
#include "host/jupyter/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

/* ---- one request ---- */

static void publish_state(pl_kernel *k, const pl_request *request, const char *state) {
  json_t *content = json_pack("{s:s}", "execution_state", state);
  pl_publisher_send(k->publisher, "status", request ? &request->header_bytes : NULL, content);
  json_decref(content);
}

void pl_kernel_handle(pl_kernel *k, pl_channel channel, void *socket, const pl_request *request) {
  const pl_handler *handler = pl_handler_find(request->type, channel);
  publish_state(k, request, "busy");
  if (handler && handler->channels & PL_SPEAKS) pl_publisher_begin(k->publisher, &request->header_bytes);
  json_t *content = handler ? handler->run(k, request) : NULL;
  if (channel == PL_SHELL) {
    pl_capture_drain(k->capture);
    pl_publisher_flush(k->publisher);
  }
  if (content) pl_wire_reply(k->wire, socket, request, handler->reply, content);
  json_decref(content);
  publish_state(k, request, "idle");
}

static void handle_shell(pl_kernel *k, pl_request *request) {
  k->request = request;
  pl_kernel_handle(k, PL_SHELL, k->shell, request);
  k->request = NULL;
  pl_request_release(request);
}

void pl_kernel_publish(pl_kernel *k, const char *type, const json_t *content) {
  pl_capture_drain(k->capture);
  pl_publisher_publish(k->publisher, type, content);
}

/* ---- stop on error ---- */

/* Messages that are on their way when the error happens were sent without knowing of it, like those that have arrived.
 * The error's reply goes out only after this, so that no later one can be among them. */
enum { ON_THEIR_WAY_MS = 5 };

void pl_kernel_take_waiting(pl_kernel *k) {
  zmq_pollitem_t item = {.socket = k->shell, .events = ZMQ_POLLIN};
  while (zmq_poll(&item, 1, ON_THEIR_WAY_MS) > 0) {
    pl_request request;
    if (pl_wire_receive(k->wire, k->shell, &request) != PL_RECEIVED) continue;
    k->waiting = pl_reallocate(k->waiting, (k->waiting_count + 1) * sizeof *k->waiting);
    k->waiting[k->waiting_count++] = request;
  }
}

static void abort_execution(pl_kernel *k, pl_request *request) {
  json_t *content = json_pack("{s:s, s:I}", "status", "aborted", "execution_count", (json_int_t)k->execution_count);
  publish_state(k, request, "busy");
  pl_wire_reply(k->wire, k->shell, request, "execute_reply", content);
  publish_state(k, request, "idle");
  json_decref(content);
  pl_request_release(request);
}

static void handle_waiting(pl_kernel *k) {
  pl_request *waiting = k->waiting;
  size_t count = k->waiting_count;
  k->waiting = NULL;
  k->waiting_count = 0;
  for (size_t i = 0; i < count; i++)
    if (strcmp(waiting[i].type, "execute_request") == 0)
      abort_execution(k, &waiting[i]);
    else
      handle_shell(k, &waiting[i]);
  free(waiting);
}

static void serve(pl_kernel *k) {
  zmq_pollitem_t items[] = {{.socket = k->shell, .events = ZMQ_POLLIN}, {.fd = k->wake, .events = ZMQ_POLLIN}};
  while (!atomic_load(&k->stopping)) {
    if (zmq_poll(items, 2, -1) < 0 || !items[0].revents) continue; /* a signal came, or only `stopping` changed */
    pl_request request;
    if (pl_wire_receive(k->wire, k->shell, &request) != PL_RECEIVED) continue;
    handle_shell(k, &request);
    handle_waiting(k);
  }
}

/* ---- the session's front end: who shows more than front ends read waits for them ---- */

static void stream(void *context, const char *name, const char *data, size_t length) {
  pl_kernel *k = context;
  pl_capture_drain(k->capture);
  pl_publisher_stream(k->publisher, name, data, length);
  pl_publisher_wait(k->publisher);
}

static void display(void *context, const char *type, json_t *content) {
  pl_kernel *k = context;
  pl_kernel_publish(k, type, content);
  pl_publisher_wait(k->publisher);
}

static void take_captured(void *publisher, const char *name, const char *data, size_t length) {
  pl_publisher_stream(publisher, name, data, length);
}

static bool is_full(void *publisher) { return pl_publisher_full(publisher); }

static void send_question(pl_kernel *k, const char *prompt, bool password) {
  pl_request stale;
  while (pl_wire_receive(k->wire, k->stdin_socket, &stale) != PL_NOTHING) pl_request_release(&stale);
  json_t *content = json_object(), *text;
  pl_text valid = {0};
  pl_text_append_utf8(&valid, prompt, strlen(prompt));
  text = json_stringn_nocheck(valid.data ? valid.data : "", valid.length);
  json_object_set_new(content, "prompt", text);
  json_object_set_new(content, "password", json_boolean(password));
  pl_capture_drain(k->capture);
  pl_publisher_flush(k->publisher);
  pl_wire_reply(k->wire, k->stdin_socket, k->request, "input_request", content);
  json_decref(content);
  pl_text_release(&valid);
}

static pl_status input(void *context, const char *prompt, bool password, pl_text *answer) {
  pl_kernel *k = context;
  const json_t *allowed = k->request ? json_object_get(k->request->content, "allow_stdin") : NULL;
  PL_REQUIRE(json_is_true(allowed), "this front end does not support input");
  send_question(k, prompt, password);
  zmq_pollitem_t item = {.socket = k->stdin_socket, .events = ZMQ_POLLIN};
  for (;;) {
    pl_request reply;
    zmq_poll(&item, 1, 20); /* an interrupt ends the wait at once, or after this many ms when it just missed it */
    PL_TRY(pl_check_interrupt());
    if (pl_wire_receive(k->wire, k->stdin_socket, &reply) != PL_RECEIVED) continue;
    const json_t *value = json_object_get(reply.content, "value");
    bool answered = strcmp(reply.type, "input_reply") == 0 && json_is_string(value);
    if (answered) pl_text_append(answer, json_string_value(value), json_string_length(value));
    pl_request_release(&reply);
    if (answered) return PL_OK;
  }
}

/* ---- start and end ---- */

static pl_status bind_socket(void *context, const pl_connection *connection, pl_channel channel, int type,
                             void **socket) {
  *socket = zmq_socket(context, type);
  PL_REQUIRE(*socket, "cannot create a socket: %s", zmq_strerror(errno));
  int linger_ms = 1000, unlimited = 0, queued = type == ZMQ_XPUB ? PL_PUBLISHER_MESSAGES_MAX : unlimited, on = 1;
  zmq_setsockopt(*socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
  zmq_setsockopt(*socket, ZMQ_SNDHWM, &queued, sizeof queued);
  zmq_setsockopt(*socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited);
  if (type == ZMQ_XPUB) {
    zmq_setsockopt(*socket, ZMQ_XPUB_VERBOSE, &on, sizeof on); /* a welcome for each subscriber */
    zmq_setsockopt(*socket, ZMQ_XPUB_NODROP, &on, sizeof on);  /* a lost `idle` would hang a front end */
  }
  if (type == ZMQ_ROUTER) zmq_setsockopt(*socket, ZMQ_ROUTER_HANDOVER, &on, sizeof on);
  PL_REQUIRE(zmq_bind(*socket, connection->address[channel]) == 0, "cannot bind to %s: %s",
             connection->address[channel], zmq_strerror(errno));
  return PL_OK;
}

static pl_status open_sockets(pl_kernel *k, void *context, const pl_connection *connection) {
  void *iopub = NULL;
  PL_TRY(bind_socket(context, connection, PL_SHELL, ZMQ_ROUTER, &k->shell));
  PL_TRY(bind_socket(context, connection, PL_CONTROL, ZMQ_ROUTER, &k->control));
  PL_TRY(bind_socket(context, connection, PL_STDIN, ZMQ_ROUTER, &k->stdin_socket));
  PL_TRY(bind_socket(context, connection, PL_HEARTBEAT, ZMQ_REP, &k->heartbeat));
  pl_status status = bind_socket(context, connection, PL_IOPUB, ZMQ_XPUB, &iopub);
  if (status == PL_OK) return pl_publisher_start(k->wire, iopub, &k->publisher);
  if (iopub) zmq_close(iopub);
  return status;
}

static void close_sockets(pl_kernel *k) {
  void *sockets[] = {k->shell, k->control, k->stdin_socket, k->heartbeat};
  pl_publisher_stop(k->publisher);
  for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++)
    if (sockets[i]) zmq_close(sockets[i]);
}

static pl_status run_session(pl_kernel *k) {
  pl_frontend frontend = {.context = k, .stream = stream, .display = display, .input = input};
  pl_capture_sink sink = {.context = k->publisher, .take = take_captured, .full = is_full};
  PL_TRY(pl_session_new(&frontend, &k->session));
  pthread_t control;
  pl_status status = pl_capture_start(&sink, &k->capture);
  if (status == PL_OK) status = pl_thread_start(&control, pl_control_run, k);
  if (status == PL_OK) {
    publish_state(k, NULL, "starting");
    serve(k);
  }
  pl_session_free(k->session); /* finalizers may still print */
  pl_capture_stop(k->capture);
  atomic_store(&k->ended, true);
  if (status == PL_OK) pthread_join(control, NULL);
  return status;
}

pl_status pl_kernel_run(const char *connection_file) {
  pl_connection connection;
  PL_TRY(pl_connection_read(connection_file, &connection));
  signal(SIGPIPE, SIG_IGN); /* the front end that reads our standard output may vanish */
  pl_kernel k = {.wake = eventfd(0, EFD_CLOEXEC), .history = json_array(), .wire = pl_wire_new(connection.key)};
  void *context = zmq_ctx_new();
  pl_status status = open_sockets(&k, context, &connection);
  if (status == PL_OK) status = run_session(&k);
  close_sockets(&k);
  while (zmq_ctx_term(context) < 0 && errno == EINTR) continue;
  close(k.wake);
  for (size_t i = 0; i < k.waiting_count; i++) pl_request_release(&k.waiting[i]);
  free(k.waiting);
  json_decref(k.history);
  pl_wire_free(k.wire);
  pl_connection_release(&connection);
  return status;
}
