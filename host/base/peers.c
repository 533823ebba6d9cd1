/* Bytes between rank 0 and the others, and the words of the control connections. */
#include "host/base/peers.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int pl_peers_rank(const pl_peers *peers) { return peers->rank; }
int pl_peers_world(const pl_peers *peers) { return peers->world; }

const char *pl_peers_name(const pl_peers *peers, int rank) {
  enum { TURNS = 4 };
  static _Thread_local char text[TURNS][PL_HOST_BYTES + 64];
  static _Thread_local int turn;
  turn = (turn + 1) % TURNS;
  snprintf(text[turn], sizeof text[turn], "rank %d (host %s, process %d)", rank, peers->peer[rank].host,
           (int)peers->peer[rank].process);
  return text[turn];
}

/* ---- words ---- */

bool pl_peers_say(int socket, uint32_t kind, int rank, uint64_t begun, const char *text) {
  char bytes[sizeof(pl_said) + PL_SAID_BYTES];
  size_t length = text ? strlen(text) : 0;
  if (length > PL_SAID_BYTES) {
    length = PL_SAID_BYTES;
    length -= pl_utf8_unfinished(text, length);
  }
  memcpy(bytes, &(pl_said){.kind = kind, .rank = (uint32_t)rank, .begun = begun, .length = (uint32_t)length},
         sizeof(pl_said));
  if (length) memcpy(bytes + sizeof(pl_said), text, length);
  length += sizeof(pl_said);
  return send(socket, bytes, length, MSG_NOSIGNAL) == (ssize_t)length;
}

bool pl_peers_hear(int socket, pl_said *said, char text[PL_SAID_BYTES + 1]) {
  if (recv(socket, said, sizeof *said, MSG_WAITALL) != sizeof *said || said->length > PL_SAID_BYTES) return false;
  text[said->length] = 0;
  return !said->length || recv(socket, text, said->length, MSG_WAITALL) == (ssize_t)said->length;
}

/* ---- data ---- */

static pl_status check(const pl_peers *peers) {
  const char *failure = pl_peers_failure(peers);
  return failure ? PL_FAIL("%s", failure) : PL_OK;
}

pl_status pl_peers_begin(pl_peers *peers) {
  PL_TRY(check(peers));
  PL_REQUIRE(!peers->broken, "distributed: an earlier operation of ranks failed here in its middle; leave the job with "
                             "pl.distributed.destroy");
  uint64_t before = pl_peers_watch_begun(peers);
  /* Who did its part of this one, which may be quicker than this rank's, may have left since. */
  for (int i = 0; i < peers->world; i++)
    PL_REQUIRE(!peers->peer[i].left || peers->peer[i].begun > before, "%s has left: it takes part in no more",
               pl_peers_name(peers, i));
  pl_peers_watch_count(peers);
  return PL_OK;
}

void pl_peers_break(pl_peers *peers) { peers->broken = true; }

/* A data connection that broke: the control connections, or those of rank 0, soon tell more. */
static pl_status broken(pl_peers *peers, int rank) {
  enum { PATIENCE_MS = 3000 };
  const struct timespec nap = {.tv_nsec = 5000000};
  for (double until = pl_now_ms() + PATIENCE_MS; pl_now_ms() < until && !peers->peer[rank].left;) {
    PL_TRY(check(peers));
    nanosleep(&nap, NULL);
  }
  if (peers->peer[rank].left) return PL_FAIL("%s has left: it takes part in no more", pl_peers_name(peers, rank));
  return PL_FAIL("the connection to %s broke", pl_peers_name(peers, rank));
}

/* Waits until the socket can be read from, or written to. */
static pl_status ready(pl_peers *peers, int socket, short events) {
  enum { LOOK_MS = 50 };
  for (;;) {
    PL_TRY(check(peers));
    PL_TRY(pl_check_interrupt());
    if (poll(&(struct pollfd){.fd = socket, .events = events}, 1, LOOK_MS) > 0) return PL_OK;
  }
}

static bool would_wait(ssize_t moved) {
  return moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

pl_status pl_peers_send(pl_peers *peers, int rank, const void *data, size_t bytes) {
  const char *at = data;
  int to = peers->peer[rank].data;
  while (bytes > 0) {
    ssize_t moved = send(to, at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (would_wait(moved)) {
      PL_TRY(ready(peers, to, POLLOUT));
      continue;
    }
    if (moved < 0) return broken(peers, rank);
    at += moved, bytes -= (size_t)moved;
  }
  return PL_OK;
}

pl_status pl_peers_receive(pl_peers *peers, int rank, void *data, size_t bytes) {
  char *at = data;
  int from = peers->peer[rank].data;
  while (bytes > 0) {
    ssize_t moved = recv(from, at, bytes, MSG_DONTWAIT);
    if (would_wait(moved)) {
      PL_TRY(ready(peers, from, POLLIN));
      continue;
    }
    if (moved <= 0) return broken(peers, rank);
    at += moved, bytes -= (size_t)moved;
  }
  return PL_OK;
}

void pl_peers_leave(pl_peers *peers) {
  if (!peers) return;
  pl_peers_watch_end(peers);
  for (int i = 0; i < peers->world; i++) {
    if (peers->peer[i].control >= 0) close(peers->peer[i].control);
    if (peers->peer[i].data >= 0) close(peers->peer[i].data);
  }
  free(peers->peer);
  free(peers);
}
