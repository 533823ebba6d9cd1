/* The thread that listens to the other ranks: who is alive, who lags behind, who left, who failed and why. */
#include "host/base/peers.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include "host/base/thread.h"
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Every rank speaks each BEAT_MS. One that is silent for SILENCE_MS has lost its host or its network. Who does not end
 * by itself within GRACE_MS after another's failure, because it waits for a GPU that waits in vain, is ended. */
enum { BEAT_MS = 500, SILENCE_MS = 30000, GRACE_MS = 5000 };
/* How long a last word may take to be heard. A connection that is closed while something has come that nobody read is
 * cut off at once, with what was said last: so each end stops speaking first, and closes when the other has, too. */
enum { PARTING_MS = 2000 };

struct pl_peers_watch {
  pthread_t thread;
  pthread_mutex_t speaking; /* one word at a time */
  atomic_bool said_last;    /* this rank left or failed: it says no more, and others' failures are no news to it */
  int wake;                 /* an eventfd, written to end the thread */
  atomic_bool ending;
  _Atomic(char *) failure; /* another rank's */
  atomic_bool own_failure;
  _Atomic uint64_t begun;
};

const char *pl_peers_failure(const pl_peers *peers) { return atomic_load(&peers->watch->failure); }
uint64_t pl_peers_watch_begun(const pl_peers *peers) { return atomic_load(&peers->watch->begun); }
void pl_peers_watch_count(pl_peers *peers) { atomic_fetch_add(&peers->watch->begun, 1); }

/* Says it to everybody that this rank has a connection to; with `last` nothing is said after it. */
static void say(pl_peers *peers, uint32_t kind, int about, const char *text, bool last) {
  struct pl_peers_watch *w = peers->watch;
  pthread_mutex_lock(&w->speaking);
  bool silent = atomic_load(&w->said_last);
  if (last) atomic_store(&w->said_last, true); /* before it is said: others may answer it by closing */
  for (int i = 0; i < peers->world && !silent; i++) {
    const pl_peer *to = &peers->peer[i];
    uint64_t begun = about == peers->rank ? atomic_load(&w->begun) : peers->peer[about].begun;
    if (to->control < 0 || to->left) continue;
    (void)pl_peers_say(to->control, kind, about, begun, text);
    if (last) shutdown(to->control, SHUT_WR);
  }
  pthread_mutex_unlock(&w->speaking);
}

/* The first failure counts. Rank 0 passes it on. */
static void fail(pl_peers *peers, int about, const char *text) {
  struct pl_peers_watch *w = peers->watch;
  if (atomic_load(&w->failure) || atomic_load(&w->said_last)) return;
  atomic_store(&w->failure, pl_duplicate(text));
  if (peers->rank == 0)
    say(peers, PL_SAID_LOST, about, text, true);
  else
    shutdown(peers->peer[0].control, SHUT_WR);
  if (peers->alarm) peers->alarm();
}

static void fail_of(pl_peers *peers, int rank, const char *what) {
  pl_text text = {0};
  pl_text_print(&text, "%s %s", pl_peers_name(peers, rank), what);
  fail(peers, rank, text.data);
  pl_text_release(&text);
}

/* ---- what is heard ---- */

static void hear_begun(pl_peers *peers, int rank, const pl_said *said, const char *text) {
  (void)text;
  pl_peer *peer = &peers->peer[rank];
  if (peer->begun != said->begun) peer->behind_since_ms = 0;
  peer->begun = said->begun;
}

static void hear_left(pl_peers *peers, int rank, const pl_said *said, const char *text) {
  hear_begun(peers, rank, said, text);
  peers->peer[rank].left = true;
  if (peers->peer[rank].control >= 0) shutdown(peers->peer[rank].control, SHUT_WR);
  if (peers->rank == 0) say(peers, PL_SAID_LEFT, rank, NULL, false);
}

static void hear_failed(pl_peers *peers, int rank, const pl_said *said, const char *text) {
  (void)said;
  pl_text what = {0};
  pl_text_print(&what, "failed: %s", text);
  fail_of(peers, rank, what.data);
  pl_text_release(&what);
}

static void hear_lost(pl_peers *peers, int rank, const pl_said *said, const char *text) {
  (void)said;
  fail(peers, rank, text);
}

static void (*const hear[])(pl_peers *, int, const pl_said *, const char *) = {[PL_SAID_BEGUN] = hear_begun,
                                                                               [PL_SAID_LEFT] = hear_left,
                                                                               [PL_SAID_FAILED] = hear_failed,
                                                                               [PL_SAID_LOST] = hear_lost};

static void listen_to(pl_peers *peers, int rank) {
  char text[PL_SAID_BYTES + 1];
  pl_said said;
  if (!pl_peers_hear(peers->peer[rank].control, &said, text)) {
    fail_of(peers, rank, "ended without a word: its connection closed");
    return;
  }
  peers->peer[rank].heard_ms = pl_now_ms();
  /* Rank 0 may speak of others. */
  int about = said.rank < (uint32_t)peers->world ? (int)said.rank : rank;
  if (said.kind < sizeof hear / sizeof *hear && hear[said.kind]) hear[said.kind](peers, about, &said, text);
}

/* ---- who is missing ---- */

/* The most that anybody has begun, and by whom. */
static uint64_t furthest(const pl_peers *peers, int *rank) {
  *rank = 0;
  for (int i = 1; i < peers->world; i++)
    if (peers->peer[i].begun > peers->peer[*rank].begun) *rank = i;
  return peers->peer[*rank].begun;
}

/* Rank 0 alone hears from all. */
static void look_for_laggards(pl_peers *peers) {
  int first;
  double now = pl_now_ms();
  peers->peer[0].begun = atomic_load(&peers->watch->begun);
  uint64_t most = furthest(peers, &first);
  for (int i = 0; i < peers->world; i++) {
    pl_peer *peer = &peers->peer[i];
    char what[256];
    if (peer->begun == most)
      peer->behind_since_ms = 0;
    else if (peer->left) {
      snprintf(what, sizeof what, "has left, but rank %d waits for it in another collective operation", first);
      fail_of(peers, i, what);
    } else if (peer->behind_since_ms == 0)
      peer->behind_since_ms = now;
    else if (now - peer->behind_since_ms > peers->timeout_ms) {
      snprintf(what, sizeof what, "did not come to collective operation %llu, where rank %d is, within %g s",
               (unsigned long long)peer->begun + 1, first, peers->timeout_ms / 1000);
      fail_of(peers, i, what);
    }
  }
}

static void look_for_silence(pl_peers *peers) {
  for (int i = 0; i < peers->world; i++) {
    const pl_peer *peer = &peers->peer[i];
    if (peer->control >= 0 && !peer->left && pl_now_ms() - peer->heard_ms > SILENCE_MS)
      fail_of(peers, i, "has not been heard of for 30 s: its host or network is gone, or it was stopped");
  }
}

/* ---- the thread ---- */

/* Waits until somebody speaks, the thread is woken, or it is time to speak. */
static void listen_to_all(pl_peers *peers, struct pollfd *sockets) {
  for (int i = 0; i < peers->world; i++) {
    const pl_peer *peer = &peers->peer[i];
    sockets[i] = (struct pollfd){.fd = peer->left ? -1 : peer->control, .events = POLLIN};
  }
  sockets[peers->world] = (struct pollfd){.fd = peers->watch->wake, .events = POLLIN};
  (void)poll(sockets, (nfds_t)peers->world + 1, BEAT_MS / 2);
  for (int i = 0; i < peers->world; i++)
    if (sockets[i].revents && !peers->peer[i].left) listen_to(peers, i);
}

static bool failed(const struct pl_peers_watch *w) { return atomic_load(&w->failure) || atomic_load(&w->own_failure); }

static bool ending(struct pl_peers_watch *w) { return atomic_load(&w->ending); }

static void end_in_time(pl_peers *peers) {
  struct pl_peers_watch *w = peers->watch;
  double until = pl_now_ms() + GRACE_MS;
  while (!ending(w) && pl_now_ms() < until)
    (void)poll(&(struct pollfd){.fd = w->wake, .events = POLLIN}, 1, BEAT_MS / 2);
  if (ending(w)) return;
  const char *failure = pl_peers_failure(peers);
  fprintf(stderr, "perilune: %s\n", failure ? failure : "the job failed, and this rank did not end by itself");
  _exit(1);
}

static void *run(void *context) {
  pl_peers *peers = context;
  struct pl_peers_watch *w = peers->watch;
  struct pollfd *sockets = pl_allocate((size_t)(peers->world + 1) * sizeof *sockets);
  double spoke_ms = 0;
  while (!ending(w) && !failed(w)) {
    listen_to_all(peers, sockets);
    if (pl_now_ms() - spoke_ms >= BEAT_MS) {
      say(peers, PL_SAID_BEGUN, peers->rank, NULL, false);
      spoke_ms = pl_now_ms();
    }
    if (peers->rank == 0) look_for_laggards(peers);
    look_for_silence(peers);
  }
  free(sockets);
  end_in_time(peers);
  return NULL;
}

pl_status pl_peers_watch_start(pl_peers *peers) {
  struct pl_peers_watch *w = pl_allocate(sizeof *w);
  pthread_mutex_init(&w->speaking, NULL);
  w->wake = eventfd(0, EFD_CLOEXEC);
  for (int i = 0; i < peers->world; i++) peers->peer[i].heard_ms = pl_now_ms();
  peers->watch = w;
  pl_status status = w->wake < 0 ? PL_FAIL("cannot make an eventfd") : pl_thread_start(&w->thread, run, peers);
  if (status == PL_OK) return PL_OK;
  if (w->wake >= 0) close(w->wake);
  free(w);
  peers->watch = NULL;
  return status;
}

void pl_peers_fail(pl_peers *peers, const char *why) {
  if (pl_peers_failure(peers)) return;
  atomic_store(&peers->watch->own_failure, true);
  if (peers->rank != 0) {
    say(peers, PL_SAID_FAILED, peers->rank, why, true);
    return;
  }
  pl_text text = {0};
  pl_text_print(&text, "%s failed: %s", pl_peers_name(peers, 0), why);
  say(peers, PL_SAID_LOST, 0, text.data, true);
  pl_text_release(&text);
}

/* Reads on until every other end has stopped speaking. */
static void part(pl_peers *peers) {
  double until = pl_now_ms() + PARTING_MS;
  for (int i = 0; i < peers->world; i++) {
    struct pollfd other = {.fd = peers->peer[i].control, .events = POLLIN};
    char rest[512];
    for (double left_ms; other.fd >= 0 && (left_ms = until - pl_now_ms()) > 0;)
      if (poll(&other, 1, (int)left_ms + 1) > 0 && recv(other.fd, rest, sizeof rest, 0) <= 0) break;
  }
}

void pl_peers_watch_end(pl_peers *peers) {
  struct pl_peers_watch *w = peers->watch;
  if (!w) return;
  if (!pl_peers_failure(peers)) say(peers, PL_SAID_LEFT, peers->rank, NULL, true);
  atomic_store(&w->ending, true);
  uint64_t one = 1;
  ssize_t put = write(w->wake, &one, sizeof one);
  (void)put;
  pthread_join(w->thread, NULL);
  part(peers);
  close(w->wake);
  pthread_mutex_destroy(&w->speaking);
  free(atomic_load(&w->failure));
  free(w);
  peers->watch = NULL;
}
