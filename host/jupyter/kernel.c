/* The main thread of a kernel: it owns the session and the shell and stdin sockets. */
#include "host/jupyter/kernel.h"
#include "host/base/clock.h"
#include "host/base/thread.h"

#include <errno.h>
#include <poll.h>
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
  pl_publisher_send(k->publisher, "status", request ? &request->header_bytes : NULL, content, NULL);
  json_decref(content);
}

void pl_kernel_finish(pl_kernel *k, void *socket, const pl_request *request, const char *type, const json_t *reply) {
  if (reply) pl_wire_reply(k->wire, socket, request, type, reply);
  publish_state(k, request, "idle");
}

void pl_kernel_handle(pl_kernel *k, pl_channel channel, void *socket, pl_request *request) {
  const pl_handler *handler = pl_handler_find(request->type, channel);
  bool speaks = handler && handler->channels & PL_SPEAKS;
  if (speaks) pl_session_await(k->session, true); /* who sees `busy` may interrupt */
  publish_state(k, request, "busy");
  if (handler && handler->channels & PL_LATER) {
    pl_debug_ask(k->debug, request);
    return;
  }
  if (speaks) pl_publisher_begin(k->publisher, &request->header_bytes);
  json_t *content = handler ? handler->run(k, request) : NULL;
  if (speaks) pl_session_await(k->session, false);
  if (channel == PL_SHELL) {
    pl_capture_drain(k->capture);
    pl_publisher_flush(k->publisher);
  }
  pl_kernel_finish(k, socket, request, handler ? handler->reply : NULL, content);
  json_decref(content);
}

static void handle_shell(pl_kernel *k, pl_request *request) {
  k->request = request;
  pl_kernel_handle(k, PL_SHELL, k->shell, request);
  k->request = NULL;
  pl_request_release(request);
}

void pl_kernel_publish(pl_kernel *k, const char *type, const json_t *content) {
  pl_capture_drain(k->capture);
  pl_publisher_publish(k->publisher, type, content, NULL);
}

/* ---- stop on error ---- */

/* Messages that are on their way when the error happens were sent without knowing of it, like those that have arrived.
 * The error's reply goes out only after this, so that no later one can be among them. Who never stops sending cannot
 * keep it back for ever. */
enum { ON_THEIR_WAY_MS = 2, TAKING_MS_MAX = 1000 };

void pl_kernel_take_waiting(pl_kernel *k) {
  zmq_pollitem_t item = {.socket = k->shell, .events = ZMQ_POLLIN};
  double start = pl_now_ms();
  while (pl_now_ms() - start < TAKING_MS_MAX && zmq_poll(&item, 1, ON_THEIR_WAY_MS) > 0) {
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

/* ---- the debugger ---- */

static json_t *answer_debugger(void *context, const pl_request *request) {
  pl_kernel *k = context;
  pl_text_clear(&k->debugging);
  pl_text_append(&k->debugging, request->header_bytes.data, request->header_bytes.length);
  json_t *reply = pl_session_debug(k->session, request->content);
  pl_capture_drain(k->capture); /* what it printed is seen before the reply */
  pl_publisher_flush(k->publisher);
  return reply;
}

static void debug_event(void *context, const json_t *event) {
  pl_kernel *k = context;
  pl_capture_drain(k->capture);
  pl_publisher_flush(k->publisher);
  pl_publisher_send(k->publisher, "debug_event", &k->debugging, event, NULL);
}

static void attend(void *context, bool wait) {
  enum { WAIT_MS = 20 }; /* an interrupt ends the wait at once, or after this when it just missed it */
  pl_kernel *k = context;
  if (wait) poll(&(struct pollfd){.fd = pl_debug_asked_file(k->debug), .events = POLLIN}, 1, WAIT_MS);
  pl_debug_answer(k->debug, answer_debugger, k);
}

/* ---- a step of the loop ---- */

/* While front ends do not read what there is, no request makes more of it. */
void pl_kernel_step(pl_kernel *k, long patience_ms) {
  enum { FULL_POLL_MS = 5 };
  struct pollfd others[] = {{.fd = k->wake, .events = POLLIN}, {.fd = pl_debug_asked_file(k->debug), .events = POLLIN}};
  if (pl_publisher_full(k->publisher)) {
    poll(others, 2, FULL_POLL_MS);
    if (pl_debug_pending(k->debug)) attend(k, false);
    return;
  }
  pl_request request;
  pl_reception reception = pl_wire_receive(k->wire, k->shell, &request);
  if (reception == PL_NOTHING) {
    pl_wire_wait(k->shell, k->wake, pl_debug_asked_file(k->debug), patience_ms);
    reception = pl_wire_receive(k->wire, k->shell, &request);
  }
  if (pl_debug_pending(k->debug)) attend(k, false);
  if (reception != PL_RECEIVED) return; /* a signal, or only `stopping` changed, or what came was dropped */
  handle_shell(k, &request);
  handle_waiting(k);
}

/* ---- the session's front end: who shows more than front ends read waits for them ---- */

/* A long text goes in pieces: each is copied several times on its way, and the next one waits. */
static void stream(void *context, const char *name, const char *data, size_t length) {
  enum { PIECE_BYTES = 1 << 20 };
  pl_kernel *k = context;
  pl_capture_drain(k->capture);
  for (size_t piece; length > 0 && !pl_interrupt_pending(); data += piece, length -= piece) {
    piece = length < PIECE_BYTES ? length : PIECE_BYTES;
    pl_publisher_stream(k->publisher, name, data, piece);
    pl_publisher_wait(k->publisher);
  }
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

static void payload(void *context, json_t *content) {
  pl_kernel *k = context;
  json_array_append(k->payload, content);
}

static void comm(void *context, const pl_comm_message *message) {
  pl_kernel *k = context;
  pl_attachment attached = {message->metadata, message->buffers, message->buffer_count};
  pl_capture_drain(k->capture);
  pl_publisher_publish(k->publisher, message->type, message->content, &attached);
  pl_publisher_wait(k->publisher);
}

static const char *message_id(void *context) {
  const pl_kernel *k = context;
  return k->request ? json_string_value(json_object_get(k->request->header, "msg_id")) : NULL;
}

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

/* Whether both came from one client, which has the same identity on all channels. */
static bool same_sender(const pl_request *a, const pl_request *b) {
  bool same = a->identity_count == b->identity_count;
  for (size_t i = 0; same && i < a->identity_count; i++) same = pl_text_equal(&a->identities[i], &b->identities[i]);
  return same;
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
    attend(k, false);
    PL_TRY(pl_check_interrupt());
    if (pl_wire_receive(k->wire, k->stdin_socket, &reply) != PL_RECEIVED) continue;
    const json_t *value = json_object_get(reply.content, "value");
    bool answered = strcmp(reply.type, "input_reply") == 0 && json_is_string(value) && same_sender(&reply, k->request);
    if (answered) pl_text_append(answer, json_string_value(value), json_string_length(value));
    pl_request_release(&reply);
    if (answered) return PL_OK;
  }
}

/* ---- what ends it ---- */

void pl_kernel_stop(pl_kernel *k) {
  uint64_t one = 1;
  atomic_store(&k->stopping, true);
  while (write(k->wake, &one, sizeof one) < 0 && errno == EINTR) continue;
}

static pl_kernel *_Atomic stopped_by_signal;

static void on_termination(int number) {
  (void)number;
  int error = errno;
  pl_kernel *k = atomic_load(&stopped_by_signal);
  if (k) pl_kernel_stop(k);
  errno = error;
}

/* Front ends that lost patience send SIGTERM, a terminal that closes SIGHUP: what cells started ends then, too. Who
 * started this process may have blocked signals, or ignored the ends of children, which commands of cells wait for. */
static void heed_signals(pl_kernel *k) {
  struct sigaction action = {.sa_handler = on_termination};
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGCHLD, SIG_DFL);
  atomic_store(&stopped_by_signal, k);
  sigaction(SIGTERM, &action, NULL);
  if (signal(SIGHUP, SIG_IGN) != SIG_IGN) sigaction(SIGHUP, &action, NULL); /* nohup wants it ignored */
  signal(SIGPIPE, SIG_IGN); /* the front end that reads our standard output may vanish */
}

/* ---- start and end ---- */

static pl_status bind_socket(pl_kernel *k, pl_channel channel, int type, void **socket) {
  *socket = zmq_socket(k->context, type);
  PL_REQUIRE(*socket, "cannot create a socket: %s", zmq_strerror(errno));
  int linger_ms = 1000, unlimited = 0, queued = type == ZMQ_XPUB ? PL_PUBLISHER_MESSAGES_MAX : unlimited, on = 1;
  int64_t frame_bytes_max = (int64_t)1 << 30; /* a length that somebody made up is not worth all memory */
  zmq_setsockopt(*socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
  zmq_setsockopt(*socket, ZMQ_MAXMSGSIZE, &frame_bytes_max, sizeof frame_bytes_max);
  zmq_setsockopt(*socket, ZMQ_SNDHWM, &queued, sizeof queued);
  zmq_setsockopt(*socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited);
  if (type == ZMQ_XPUB) {
    zmq_setsockopt(*socket, ZMQ_XPUB_VERBOSE, &on, sizeof on); /* a welcome for each subscriber */
    zmq_setsockopt(*socket, ZMQ_XPUB_NODROP, &on, sizeof on);  /* a lost `idle` would hang a front end */
  }
  if (type == ZMQ_ROUTER) zmq_setsockopt(*socket, ZMQ_ROUTER_HANDOVER, &on, sizeof on);
  int bound;
  do bound = zmq_bind(*socket, k->connection.address[channel]);
  while (bound < 0 && errno == EINTR); /* a SIGTERM already: the loop heeds it */
  PL_REQUIRE(bound == 0, "cannot bind to %s: %s", k->connection.address[channel], zmq_strerror(errno));
  return PL_OK;
}

static pl_status open_sockets(pl_kernel *k) {
  void *iopub = NULL;
  PL_TRY(bind_socket(k, PL_SHELL, ZMQ_ROUTER, &k->shell));
  PL_TRY(bind_socket(k, PL_CONTROL, ZMQ_ROUTER, &k->control));
  PL_TRY(bind_socket(k, PL_STDIN, ZMQ_ROUTER, &k->stdin_socket));
  PL_TRY(bind_socket(k, PL_HEARTBEAT, ZMQ_REP, &k->heartbeat));
  pl_status status = bind_socket(k, PL_IOPUB, ZMQ_XPUB, &iopub);
  if (status == PL_OK) return pl_publisher_start(k->wire, iopub, &k->publisher);
  if (iopub) zmq_close(iopub);
  return status;
}

static pl_status open_session(pl_kernel *k) {
  pl_frontend frontend = {.context = k,
                          .stream = stream,
                          .display = display,
                          .payload = payload,
                          .comm = comm,
                          .message_id = message_id,
                          .input = input,
                          .debug_event = debug_event,
                          .attend = attend};
  PL_TRY(pl_session_new(&frontend, &k->session));
  pl_capture_sink sink = {.context = k->publisher, .take = take_captured, .full = is_full};
  pl_status status = pl_capture_start(&sink, &k->capture);
  if (status == PL_OK && (status = pl_thread_start(&k->control_thread, pl_control_run, k)) != PL_OK)
    pl_capture_stop(k->capture), k->capture = NULL;
  if (status != PL_OK) {
    pl_session_free(k->session);
    k->session = NULL;
  }
  return status;
}

pl_status pl_kernel_open(pl_kernel *k) {
  k->wake = eventfd(0, EFD_CLOEXEC);
  k->history = pl_history_new();
  k->payload = json_array();
  k->wire = pl_wire_new(k->connection.key);
  k->context = zmq_ctx_new();
  PL_TRY(pl_debug_new(&k->debug));
  PL_TRY(open_sockets(k));
  PL_TRY(open_session(k));
  publish_state(k, NULL, "starting");
  return PL_OK;
}

static void close_session(pl_kernel *k) {
  if (!k->session) return;
  pl_session_free(k->session); /* finalizers may still print */
  pl_children_end();           /* which hold the captured files open */
  pl_capture_stop(k->capture);
  atomic_store(&k->ended, true);
  pl_kernel_stop(k);
  pthread_join(k->control_thread, NULL);
}

void pl_kernel_close(pl_kernel *k) {
  void *const sockets[] = {k->shell, k->control, k->stdin_socket, k->heartbeat};
  close_session(k);
  pl_publisher_stop(k->publisher);
  for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++)
    if (sockets[i]) zmq_close(sockets[i]);
  while (zmq_ctx_term(k->context) < 0 && errno == EINTR) continue;
  close(k->wake);
  pl_starters_release(&k->starters);
  for (size_t i = 0; i < k->waiting_count; i++) pl_request_release(&k->waiting[i]);
  free(k->waiting);
  json_decref(k->payload);
  pl_history_free(k->history);
  pl_debug_free(k->debug);
  pl_text_release(&k->debugging);
  pl_wire_free(k->wire);
  pl_connection_release(&k->connection);
}

pl_status pl_kernel_run(const char *connection_file) {
  pl_kernel k = {.wake = -1};
  PL_TRY(pl_connection_read(connection_file, &k.connection));
  pl_starters_watch(&k.starters);
  pl_children_mark();
  heed_signals(&k);
  pl_status status = pl_kernel_open(&k);
  while (status == PL_OK && !atomic_load(&k.stopping)) pl_kernel_step(&k, -1);
  atomic_store(&stopped_by_signal, NULL);
  pl_kernel_close(&k);
  return status;
}
