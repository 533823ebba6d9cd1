/* The pipes of the standard streams and the thread that reads them. */
#include "host/jupyter/capture.h"
#include "host/base/text.h"
#include "host/base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { STREAMS = 2, PIPE_BYTES = 1 << 20, FULL_POLL_MS = 5 };
static const char *const names[STREAMS] = {"stdout", "stderr"};
static const int descriptors[STREAMS] = {STDOUT_FILENO, STDERR_FILENO};

struct pl_capture {
  pl_capture_sink sink;
  int pipes[STREAMS]; /* ends to read from; -1 once nobody can write any more */
  int before[STREAMS];
  int ready; /* of epoll: both pipes, which nearly always are empty when somebody asks */
  int wake;
  atomic_bool stopping;
  pthread_t thread;
  pthread_mutex_t lock; /* held from reading until the sink has taken it */
};

/* Takes at most what a pipe holds: a process that never stops writing must not keep the caller. */
static void take_stream(pl_capture *c, int stream) {
  char block[1 << 14];
  size_t left = PIPE_BYTES;
  while (left > 0) {
    ssize_t got = read(c->pipes[stream], block, left < sizeof block ? left : sizeof block);
    if (got > 0) {
      c->sink.take(c->sink.context, names[stream], block, (size_t)got);
      left -= (size_t)got;
    } else if (got == 0) {
      close(c->pipes[stream]);
      c->pipes[stream] = -1;
      return;
    } else if (errno != EINTR)
      return;
  }
}

/* With the lock held. One system call when there is nothing, for every print asks. */
static void take_all(pl_capture *c) {
  struct epoll_event ready[STREAMS];
  int count = epoll_wait(c->ready, ready, STREAMS, 0);
  for (int i = 0; i < count; i++) take_stream(c, (int)ready[i].data.u32);
}

void pl_capture_drain(pl_capture *c) {
  if (!c) return;
  /* Without the lock: a full pipe makes it wait until the thread has read. */
  if (__fpending(stdout)) fflush(stdout);
  pthread_mutex_lock(&c->lock);
  take_all(c);
  pthread_mutex_unlock(&c->lock);
}

static void *follow(void *data) {
  pl_capture *c = data;
  while (!atomic_load(&c->stopping)) {
    bool full = c->sink.full && c->sink.full(c->sink.context);
    struct pollfd ends[] = {{.fd = c->wake, .events = POLLIN}, {.fd = full ? -1 : c->ready, .events = POLLIN}};
    if (poll(ends, 2, full ? FULL_POLL_MS : -1) <= 0 || full) continue;
    pthread_mutex_lock(&c->lock);
    take_all(c);
    pthread_mutex_unlock(&c->lock);
  }
  return NULL;
}

/* ---- putting the pipes in place ---- */

static pl_status redirect(pl_capture *c, int stream) {
  int ends[2];
  PL_REQUIRE(pipe2(ends, O_CLOEXEC) == 0, "cannot make a pipe for %s: %s", names[stream], strerror(errno));
  fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES); /* where that is not allowed, writers only wait sooner */
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  c->before[stream] = fcntl(descriptors[stream], F_DUPFD_CLOEXEC, 0);
  struct epoll_event readable = {.events = EPOLLIN, .data.u32 = (uint32_t)stream};
  bool placed = c->before[stream] >= 0 && dup2(ends[1], descriptors[stream]) >= 0 &&
                epoll_ctl(c->ready, EPOLL_CTL_ADD, ends[0], &readable) == 0;
  int error = errno;
  close(ends[1]);
  c->pipes[stream] = ends[0];
  PL_REQUIRE(placed, "cannot redirect %s: %s", names[stream], strerror(error));
  return PL_OK;
}

static void restore(pl_capture *c) {
  for (int i = 0; i < STREAMS; i++) {
    if (c->before[i] < 0) continue;
    dup2(c->before[i], descriptors[i]);
    close(c->before[i]);
  }
}

static void release(pl_capture *c) {
  for (int i = 0; i < STREAMS; i++)
    if (c->pipes[i] >= 0) close(c->pipes[i]);
  if (c->ready >= 0) close(c->ready);
  if (c->wake >= 0) close(c->wake);
  pthread_mutex_destroy(&c->lock);
  free(c);
}

static pl_status start(pl_capture *c) {
  PL_REQUIRE(c->wake >= 0 && c->ready >= 0, "cannot make an event for the standard streams: %s", strerror(errno));
  for (int i = 0; i < STREAMS; i++) PL_TRY(redirect(c, i));
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* a pipe's lines are to be seen as soon as a terminal's */
  return pl_thread_start(&c->thread, follow, c);
}

pl_status pl_capture_start(const pl_capture_sink *sink, pl_capture **capture) {
  pl_capture *c = pl_allocate(sizeof *c);
  *c = (pl_capture){.sink = *sink,
                    .pipes = {-1, -1},
                    .before = {-1, -1},
                    .ready = epoll_create1(EPOLL_CLOEXEC),
                    .wake = eventfd(0, EFD_CLOEXEC)};
  pthread_mutex_init(&c->lock, NULL);
  fflush(stdout);
  pl_status status = start(c);
  if (status == PL_OK)
    *capture = c;
  else {
    restore(c);
    release(c);
  }
  return status;
}

void pl_capture_leave(pl_capture *c) { restore(c); }

void pl_capture_stop(pl_capture *c) {
  if (!c) return;
  uint64_t one = 1;
  pl_capture_drain(c);
  restore(c);
  atomic_store(&c->stopping, true);
  while (write(c->wake, &one, sizeof one) < 0 && errno == EINTR) continue;
  pthread_join(c->thread, NULL);
  take_all(c);
  release(c);
}
