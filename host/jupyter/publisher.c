/* The publishing thread. */
#include "host/jupyter/publisher.h"
#include "host/base/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

/* Streams wait this long for more text, at most; the first text after a pause hardly at all. Front ends choke on a
 * message per print. */
enum { GATHER_MS = 40, FIRST_MS = 2, STREAM_BYTES_MAX = 64 * 1024 };

/* When a front end takes nothing: time between trials, until the others no longer wait for it, and until the end of the
 * process does not. */
enum { RETRY_MS = 1, STALL_MS = 60000, STOP_MS = 1000 };

enum { INTERRUPT_POLL_MS = 10 };

/* A message that waits to be sent. That of a stream is still its bare text and parent: the thread composes it, so that
 * the code that prints need not. */
typedef struct {
  pl_text topic;
  const char *stream; /* NULL: the packet is there */
  pl_text text, parent;
  pl_packet packet;
  size_t bytes;
} publication;

struct pl_publisher {
  pl_wire *wire;
  void *socket;
  int wake;
  bool stalled; /* of the thread: some front end has not read for STALL_MS */
  pthread_t thread;
  pthread_mutex_t lock; /* guards everything below */
  pthread_cond_t room;  /* signalled when it is no longer full */
  publication *queue;
  size_t count, capacity, bytes; /* bytes: of all that is queued and not yet sent */
  bool stopping, asleep;         /* asleep: the thread waits, and looks at all this only when it is woken */
  const char *stream;            /* name of the stream being gathered */
  pl_text text, parent;          /* what it says, and the request that output belongs to */
  int64_t deadline_ms, last_ms;
};

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- with the lock held ---- */

static void wake(pl_publisher *p) {
  uint64_t one = 1;
  if (!p->asleep) return;
  p->asleep = false;
  while (write(p->wake, &one, sizeof one) < 0 && errno == EINTR) continue;
}

/* Appends an empty message. */
static publication *enqueue(pl_publisher *p) {
  if (p->count == p->capacity) {
    p->capacity = p->capacity ? 2 * p->capacity : 64;
    p->queue = pl_reallocate(p->queue, p->capacity * sizeof *p->queue);
  }
  publication *new = &p->queue[p->count++];
  *new = (publication){0};
  return new;
}

static void enqueue_message(pl_publisher *p, const char *type, const pl_text *parent, const json_t *content,
                            const pl_attachment *attached) {
  publication *new = enqueue(p);
  pl_text_print(&new->topic, "%s", type);
  pl_wire_compose(p->wire, type, parent, content, attached, &new->packet);
  new->bytes = new->packet.frames[PL_CONTENT].length;
  for (size_t i = 0; i < new->packet.buffer_count; i++) new->bytes += new->packet.buffers[i].length;
  p->bytes += new->bytes;
}

/* Queues the gathered text. Unless it is `whole`, a character whose last bytes are still to come is held back. */
static void end_stream(pl_publisher *p, bool whole) {
  size_t held = whole ? 0 : pl_utf8_unfinished(p->text.data, p->text.length);
  p->last_ms = now_ms();
  p->deadline_ms = p->last_ms + GATHER_MS;
  if (p->text.length == held) return;
  publication *new = enqueue(p);
  new->stream = p->stream;
  new->text = p->text;
  new->text.length -= held;
  new->bytes = new->text.length;
  p->bytes += new->bytes;
  pl_text_append(&new->parent, p->parent.data, p->parent.length);
  p->text = (pl_text){0};
  if (held) pl_text_append(&p->text, new->text.data + new->text.length, held);
}

static bool full(const pl_publisher *p) { return p->bytes + p->text.length > PL_PUBLISHER_BYTES_MAX; }

/* ---- for other threads ---- */

void pl_publisher_send(pl_publisher *p, const char *type, const pl_text *parent, const json_t *content,
                       const pl_attachment *attached) {
  pthread_mutex_lock(&p->lock);
  enqueue_message(p, type, parent, content, attached);
  wake(p);
  pthread_mutex_unlock(&p->lock);
}

void pl_publisher_begin(pl_publisher *p, const pl_text *parent) {
  pthread_mutex_lock(&p->lock);
  if (p->text.length) end_stream(p, true);
  pl_text_clear(&p->parent);
  pl_text_append(&p->parent, parent->data, parent->length);
  pthread_mutex_unlock(&p->lock);
}

void pl_publisher_publish(pl_publisher *p, const char *type, const json_t *content, const pl_attachment *attached) {
  pthread_mutex_lock(&p->lock);
  if (p->text.length) end_stream(p, true);
  enqueue_message(p, type, &p->parent, content, attached);
  wake(p);
  pthread_mutex_unlock(&p->lock);
}

void pl_publisher_stream(pl_publisher *p, const char *name, const char *data, size_t length) {
  name = strcmp(name, "stderr") == 0 ? "stderr" : "stdout";
  pthread_mutex_lock(&p->lock);
  if (p->text.length && p->stream != name) end_stream(p, true);
  bool first = p->text.length == 0;
  if (first) {
    p->stream = name;
    int64_t soon = now_ms() + FIRST_MS, later = p->last_ms + GATHER_MS;
    p->deadline_ms = soon > later ? soon : later;
  }
  pl_text_append(&p->text, data, length);
  bool full = p->text.length >= STREAM_BYTES_MAX;
  if (full) end_stream(p, false);
  if (first || full) wake(p);
  pthread_mutex_unlock(&p->lock);
}

void pl_publisher_flush(pl_publisher *p) {
  pthread_mutex_lock(&p->lock);
  if (p->text.length) end_stream(p, true);
  pthread_mutex_unlock(&p->lock);
}

bool pl_publisher_full(pl_publisher *p) {
  pthread_mutex_lock(&p->lock);
  bool is_full = full(p);
  pthread_mutex_unlock(&p->lock);
  return is_full;
}

void pl_publisher_wait(pl_publisher *p) {
  pthread_mutex_lock(&p->lock);
  while (full(p) && !p->stopping && !pl_interrupt_pending()) {
    struct timespec until; /* a signal does not end the wait for a condition: it looks at the flag itself */
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += INTERRUPT_POLL_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
    pthread_cond_timedwait(&p->room, &p->lock, &until);
  }
  pthread_mutex_unlock(&p->lock);
}

/* ---- the thread ---- */

static bool is_stopping(pl_publisher *p) {
  pthread_mutex_lock(&p->lock);
  bool stopping = p->stopping;
  pthread_mutex_unlock(&p->lock);
  return stopping;
}

/* Sends to those front ends that still read; the others lose the message. */
static void send_past_stalled(pl_publisher *p, const pl_text *topic, const pl_packet *packet) {
  int drops = 0, waits = 1;
  zmq_setsockopt(p->socket, ZMQ_XPUB_NODROP, &drops, sizeof drops);
  pl_wire_send(p->socket, topic, 1, packet);
  zmq_setsockopt(p->socket, ZMQ_XPUB_NODROP, &waits, sizeof waits);
}

/* A front end that does not read makes all wait, but not for ever: it may be suspended, or its machine gone. */
static void deliver(pl_publisher *p, const pl_text *topic, const pl_packet *packet) {
  int64_t start = now_ms();
  struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
  while (!pl_wire_send(p->socket, topic, 1, packet)) {
    p->stalled = p->stalled || now_ms() - start > (is_stopping(p) ? STOP_MS : STALL_MS);
    if (p->stalled) {
      send_past_stalled(p, topic, packet);
      return;
    }
    nanosleep(&pause, NULL);
  }
  p->stalled = false;
}

static void compose_stream(pl_publisher *p, publication *message) {
  pl_text valid = {0};
  pl_text_append_utf8(&valid, message->text.data, message->text.length);
  json_t *content =
      json_pack("{s:s, s:o}", "name", message->stream, "text", json_stringn_nocheck(valid.data, valid.length));
  pl_text_print(&message->topic, "stream.%s", message->stream);
  pl_wire_compose(p->wire, "stream", &message->parent, content, NULL, &message->packet);
  json_decref(content);
  pl_text_release(&valid);
  pl_text_release(&message->text);
  pl_text_release(&message->parent);
}

/* A subscriber came (1, then the topic): it may from now on rely on receiving everything. */
static void welcome(pl_publisher *p) {
  char event[512];
  int length;
  while ((length = zmq_recv(p->socket, event, sizeof event, ZMQ_DONTWAIT)) >= 0 || errno == EINTR) {
    if (length < 1 || (size_t)length > sizeof event || event[0] != 1) continue;
    pl_text topic = {0};
    pl_text_append(&topic, event + 1, (size_t)length - 1);
    json_t *content = json_pack("{s:s%}", "subscription", topic.data, topic.length);
    if (content) { /* NULL when the topic is no valid UTF-8 */
      pl_packet packet;
      pl_wire_compose(p->wire, "iopub_welcome", NULL, content, NULL, &packet);
      deliver(p, &topic, &packet);
      pl_packet_release(&packet);
      json_decref(content);
    }
    pl_text_release(&topic);
  }
}

/* How long the thread is to sleep: until the gathered text is due, not at all when there is something to do. */
static long sleep_ms(pl_publisher *p) {
  pthread_mutex_lock(&p->lock);
  int64_t left = p->text.length ? p->deadline_ms - now_ms() : -1;
  if (p->count || p->stopping || (p->text.length && left < 0)) left = 0;
  p->asleep = left != 0;
  pthread_mutex_unlock(&p->lock);
  return (long)left;
}

/* Waits for something to do. A wake that came too late to be read ends the next wait, and does no harm. */
static void rest(pl_publisher *p) {
  uint64_t woken;
  long patience_ms = sleep_ms(p);
  if (patience_ms == 0 || !pl_wire_wait(p->socket, p->wake, -1, patience_ms)) return;
  while (read(p->wake, &woken, sizeof woken) < 0 && errno == EINTR) continue;
}

/* Sends everything queued, and text that is due. Returns false when the thread is to end. */
static bool send_queue(pl_publisher *p) {
  pthread_mutex_lock(&p->lock);
  p->asleep = false;
  if (p->text.length && (p->stopping || now_ms() >= p->deadline_ms)) end_stream(p, p->stopping);
  publication *queue = p->queue;
  size_t count = p->count;
  bool stopping = p->stopping;
  p->queue = NULL;
  p->count = p->capacity = 0;
  pthread_mutex_unlock(&p->lock);
  for (size_t i = 0; i < count; i++) {
    if (queue[i].stream) compose_stream(p, &queue[i]);
    deliver(p, &queue[i].topic, &queue[i].packet);
    pthread_mutex_lock(&p->lock);
    p->bytes -= queue[i].bytes;
    if (!full(p)) pthread_cond_signal(&p->room);
    pthread_mutex_unlock(&p->lock);
    pl_text_release(&queue[i].topic);
    pl_packet_release(&queue[i].packet);
  }
  free(queue);
  return !stopping;
}

static void *publish(void *data) {
  pl_publisher *p = data;
  do {
    welcome(p); /* who came while messages were sent */
    rest(p);
    welcome(p); /* first, so that a new subscriber sees what is queued */
  } while (send_queue(p));
  return NULL;
}

pl_status pl_publisher_start(pl_wire *wire, void *socket, pl_publisher **publisher) {
  pl_publisher *p = pl_allocate(sizeof *p);
  p->wire = wire;
  p->socket = socket;
  p->stream = "stdout";
  p->wake = eventfd(0, EFD_CLOEXEC);
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&p->room, &monotonic);
  pthread_condattr_destroy(&monotonic);
  pthread_mutex_init(&p->lock, NULL);
  if (p->wake < 0 || pl_thread_start(&p->thread, publish, p) != PL_OK) {
    zmq_close(socket);
    free(p);
    return PL_FAIL("cannot start the publishing thread");
  }
  *publisher = p;
  return PL_OK;
}

void pl_publisher_stop(pl_publisher *p) {
  if (!p) return;
  pthread_mutex_lock(&p->lock);
  p->stopping = true;
  wake(p);
  pthread_mutex_unlock(&p->lock);
  pthread_join(p->thread, NULL);
  zmq_close(p->socket);
  close(p->wake);
  free(p->queue);
  pl_text_release(&p->text);
  pl_text_release(&p->parent);
  pthread_cond_destroy(&p->room);
  pthread_mutex_destroy(&p->lock);
  free(p);
}
