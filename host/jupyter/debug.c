/* Two queues and their event files. */
#include "host/jupyter/debug.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct exchange {
  pl_request request;
  json_t *reply;
  struct exchange *next;
} exchange;

typedef struct {
  exchange *first, **end;
  int file; /* readable while the queue is not empty */
} queue;

struct pl_debug {
  pthread_mutex_t mutex;
  queue asked, answered;
  bool answering; /* one was taken from `asked` and is not yet in `answered` */
};

/* ---- a queue, with the mutex held ---- */

static void put(queue *q, exchange *e) {
  uint64_t one = 1;
  e->next = NULL;
  *q->end = e;
  q->end = &e->next;
  while (write(q->file, &one, sizeof one) < 0 && errno == EINTR) continue;
}

static exchange *take(queue *q) {
  exchange *e = q->first;
  if (!e) return NULL;
  uint64_t one;
  while (read(q->file, &one, sizeof one) < 0 && errno == EINTR) continue;
  q->first = e->next;
  if (!q->first) q->end = &q->first;
  return e;
}

static pl_status open_queue(queue *q) {
  q->end = &q->first;
  q->file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
  PL_REQUIRE(q->file >= 0, "cannot create an event file: %s", strerror(errno));
  return PL_OK;
}

static void close_queue(queue *q) {
  for (exchange *e; (e = take(q)) != NULL; free(e)) {
    pl_request_release(&e->request);
    json_decref(e->reply);
  }
  if (q->file >= 0) close(q->file);
}

pl_status pl_debug_new(pl_debug **debug) {
  pl_debug *new = *debug = pl_allocate(sizeof *new);
  pthread_mutex_init(&new->mutex, NULL);
  new->answered.file = -1;
  PL_TRY(open_queue(&new->asked));
  return open_queue(&new->answered);
}

void pl_debug_free(pl_debug *debug) {
  if (!debug) return;
  close_queue(&debug->asked);
  close_queue(&debug->answered);
  pthread_mutex_destroy(&debug->mutex);
  free(debug);
}

int pl_debug_asked_file(const pl_debug *debug) { return debug->asked.file; }
int pl_debug_answered_file(const pl_debug *debug) { return debug->answered.file; }

/* ---- both sides ---- */

void pl_debug_ask(pl_debug *debug, pl_request *request) {
  exchange *e = pl_allocate(sizeof *e);
  e->request = *request;
  *request = (pl_request){0};
  pthread_mutex_lock(&debug->mutex);
  put(&debug->asked, e);
  pthread_mutex_unlock(&debug->mutex);
}

bool pl_debug_pending(pl_debug *debug) {
  pthread_mutex_lock(&debug->mutex);
  bool pending = debug->asked.first && !debug->answering;
  pthread_mutex_unlock(&debug->mutex);
  return pending;
}

bool pl_debug_collect(pl_debug *debug, pl_request *request, json_t **reply) {
  pthread_mutex_lock(&debug->mutex);
  exchange *e = take(&debug->answered);
  pthread_mutex_unlock(&debug->mutex);
  if (!e) return false;
  *request = e->request;
  *reply = e->reply;
  free(e);
  return true;
}

void pl_debug_answer(pl_debug *debug, json_t *(*answer)(void *context, const pl_request *request), void *context) {
  exchange *e = NULL;
  do {
    pthread_mutex_lock(&debug->mutex);
    if (e) put(&debug->answered, e);
    e = take(&debug->asked);
    debug->answering = e != NULL;
    pthread_mutex_unlock(&debug->mutex);
    if (e) e->reply = answer(context, &e->request);
  } while (e);
}
