/* How ranks find each other: rank 0 listens, the others connect to it twice, and it tells all who all are. */
#include "host/base/peers.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONTROL, DATA, CHANNELS, LOOK_MS = 50, BACKLOG = 1024, CONNECT_MS = 5000 };

static const char MAGIC[] = "perilune ranks 1";

/* What a rank says first on each of its connections. */
typedef struct {
  char magic[sizeof MAGIC];
  int32_t rank, world, channel, process;
  char host[PL_HOST_BYTES];
} hello;

typedef struct {
  char host[PL_HOST_BYTES];
  int32_t process;
} roster_line;

static hello hello_of(const pl_peers *peers, int channel) {
  hello h = {.rank = peers->rank, .world = peers->world, .channel = channel, .process = (int32_t)getpid()};
  memcpy(h.magic, MAGIC, sizeof MAGIC);
  if (gethostname(h.host, sizeof h.host - 1) != 0) h.host[0] = 0;
  return h;
}

static void prepare(int socket) {
  const struct timeval patience = {.tv_sec = PL_WORD_S};
  const int on = 1;
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK);
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static pl_status look_up(const pl_peers_plan *plan, bool listen, struct addrinfo **found) {
  char port[16];
  bool loopback = strcmp(plan->address, "localhost") == 0 || strncmp(plan->address, "127.", 4) == 0 ||
                  strcmp(plan->address, "::1") == 0;
  struct addrinfo wanted = {.ai_socktype = SOCK_STREAM, .ai_flags = listen ? AI_PASSIVE : 0};
  snprintf(port, sizeof port, "%d", plan->port);
  /* Rank 0's own name may stand for an address that other hosts cannot reach, so it listens at all of its addresses,
   * unless no other host is meant. */
  int error = getaddrinfo(listen && !loopback ? NULL : plan->address, port, &wanted, found);
  return error ? PL_FAIL("MASTER_ADDR '%s': %s", plan->address, gai_strerror(error)) : PL_OK;
}

/* Waits a moment for something to read. */
static pl_status moment(int socket, bool *readable) {
  PL_TRY(pl_check_interrupt());
  *readable = poll(&(struct pollfd){.fd = socket, .events = POLLIN}, 1, LOOK_MS) > 0;
  return PL_OK;
}

/* ---- rank 0 ---- */

static int open_listener(const struct addrinfo *at) {
  const int on = 1, off = 0;
  int made = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (made < 0) return -1;
  setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (at->ai_family == AF_INET6) setsockopt(made, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (bind(made, at->ai_addr, at->ai_addrlen) == 0 && listen(made, BACKLOG) == 0) return made;
  int error = errno;
  close(made);
  errno = error;
  return -1;
}

/* IPv6 first: such a socket takes IPv4's connections, too. */
static pl_status open_listeners(const pl_peers_plan *plan, int *listener) {
  struct addrinfo *found;
  PL_TRY(look_up(plan, true, &found));
  *listener = -1;
  for (int turn = 0; turn < 2; turn++)
    for (const struct addrinfo *at = found; at && *listener < 0; at = at->ai_next)
      if ((at->ai_family == AF_INET6) == (turn == 0)) *listener = open_listener(at);
  int error = errno;
  freeaddrinfo(found);
  PL_REQUIRE(*listener >= 0, "rank 0 cannot listen at MASTER_ADDR '%s', MASTER_PORT %d: %s", plan->address, plan->port,
             strerror(error));
  return PL_OK;
}

/* Takes a newcomer in. Whoever is no rank of a job is sent away; a rank that cannot be right is a failure. */
static pl_status greet(pl_peers *peers, int newcomer, bool *taken) {
  hello h;
  *taken = false;
  prepare(newcomer);
  if (recv(newcomer, &h, sizeof h, MSG_WAITALL) != sizeof h || memcmp(h.magic, MAGIC, sizeof MAGIC) != 0) return PL_OK;
  h.host[sizeof h.host - 1] = 0;
  PL_REQUIRE(h.world == peers->world, "host %s, process %d is a rank of %d (WORLD_SIZE), but rank 0 is one of %d",
             h.host, (int)h.process, (int)h.world, peers->world);
  PL_REQUIRE(h.rank > 0 && h.rank < peers->world && h.channel >= 0 && h.channel < CHANNELS,
             "host %s, process %d says it is rank %d of %d", h.host, (int)h.process, (int)h.rank, peers->world);
  pl_peer *peer = &peers->peer[h.rank];
  int *place = h.channel == CONTROL ? &peer->control : &peer->data;
  bool same = peer->process == h.process && strcmp(peer->host, h.host) == 0;
  bool other = peer->process && (!same || *place >= 0);
  PL_REQUIRE(!other, "%s is there twice: host %s, process %d says it is, too", pl_peers_name(peers, h.rank), h.host,
             (int)h.process);
  snprintf(peer->host, sizeof peer->host, "%s", h.host);
  peer->process = h.process;
  *place = newcomer;
  *taken = true;
  return PL_OK;
}

static int missing(const pl_peers *peers, pl_text *names) {
  int count = 0;
  for (int i = 1; i < peers->world; i++) {
    if (peers->peer[i].control >= 0 && peers->peer[i].data >= 0) continue;
    pl_text_print(names, "%s%d", count++ ? ", " : "", i);
  }
  return count;
}

static pl_status gather(pl_peers *peers, const pl_peers_plan *plan, int listener) {
  double until = pl_now_ms() + plan->timeout_ms;
  for (;;) {
    pl_text names = {0};
    int count = missing(peers, &names);
    pl_status status = PL_OK;
    if (count > 0 && pl_now_ms() > until)
      status = PL_FAIL("rank%s %s of %d did not come to %s, port %d, within %g s", count > 1 ? "s" : "", names.data,
                       peers->world, plan->address, plan->port, plan->timeout_ms / 1000);
    pl_text_release(&names);
    if (count == 0 || status != PL_OK) return status;
    bool readable, taken = false;
    PL_TRY(moment(listener, &readable));
    int newcomer = readable ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    if (newcomer < 0) continue;
    status = greet(peers, newcomer, &taken);
    if (!taken) close(newcomer);
    PL_TRY(status);
  }
}

static pl_status receive_all(pl_peers *peers, const pl_peers_plan *plan) {
  int listener;
  PL_TRY(open_listeners(plan, &listener));
  pl_status status = gather(peers, plan, listener);
  close(listener);
  size_t bytes = (size_t)peers->world * sizeof(roster_line);
  roster_line *roster = pl_allocate(bytes);
  for (int i = 0; i < peers->world; i++) {
    memcpy(roster[i].host, peers->peer[i].host, PL_HOST_BYTES);
    roster[i].process = peers->peer[i].process;
  }
  for (int i = 1; i < peers->world; i++) {
    int to = peers->peer[i].control;
    if (to < 0) continue;
    if (status == PL_OK) {
      (void)pl_peers_say(to, PL_SAID_WELCOME, i, 0, NULL);
      (void)send(to, roster, bytes, MSG_NOSIGNAL); /* whoever is gone by now is missed by the watch */
    } else
      (void)pl_peers_say(to, PL_SAID_LOST, 0, 0, pl_message_text());
  }
  free(roster);
  return status;
}

/* ---- the others ---- */

/* One attempt; -1 and errno. */
static int connect_once(const struct addrinfo *at) {
  int made = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
  if (made < 0) return -1;
  if (connect(made, at->ai_addr, at->ai_addrlen) != 0) {
    socklen_t length = sizeof error;
    error = errno;
    if (error == EINPROGRESS) {
      error = ETIMEDOUT;
      if (poll(&(struct pollfd){.fd = made, .events = POLLOUT}, 1, CONNECT_MS) > 0)
        getsockopt(made, SOL_SOCKET, SO_ERROR, &error, &length);
    }
  }
  if (error == 0) return made;
  close(made);
  errno = error;
  return -1;
}

static pl_status reach(const pl_peers_plan *plan, double until, int *made) {
  const struct timespec nap = {.tv_nsec = LOOK_MS * 1000000};
  for (*made = -1; *made < 0; nanosleep(&nap, NULL)) {
    struct addrinfo *found;
    pl_status status = look_up(plan, false, &found);
    if (status == PL_OK) {
      for (const struct addrinfo *at = found; at && *made < 0; at = at->ai_next) *made = connect_once(at);
      int error = errno;
      freeaddrinfo(found);
      if (*made >= 0) return PL_OK;
      status = PL_FAIL("rank %d cannot reach rank 0 at MASTER_ADDR '%s', MASTER_PORT %d, within %g s: %s", plan->rank,
                       plan->address, plan->port, plan->timeout_ms / 1000, strerror(error));
    }
    if (pl_now_ms() > until) return status; /* until then rank 0 may not have begun, nor its name be known */
    PL_TRY(pl_check_interrupt());
  }
  return PL_OK;
}

static pl_status introduce(pl_peers *peers, const pl_peers_plan *plan, double until, int channel, int *place) {
  hello h = hello_of(peers, channel);
  PL_TRY(reach(plan, until, place));
  prepare(*place);
  PL_REQUIRE(send(*place, &h, sizeof h, MSG_NOSIGNAL) == sizeof h, "rank %d cannot speak to rank 0: %s", plan->rank,
             strerror(errno));
  return PL_OK;
}

/* Rank 0 gives up first, and says who is missing; a second more is for its word to arrive. */
static pl_status await_welcome(pl_peers *peers, const pl_peers_plan *plan, double until) {
  char text[PL_SAID_BYTES + 1];
  pl_said said;
  bool readable = false;
  int from = peers->peer[0].control;
  while (!readable) {
    PL_REQUIRE(pl_now_ms() < until + 1000, "rank 0 was reached at %s, port %d, but not all ranks came within %g s",
               plan->address, plan->port, plan->timeout_ms / 1000);
    PL_TRY(moment(from, &readable));
  }
  PL_REQUIRE(pl_peers_hear(from, &said, text), "rank 0 at %s, port %d closed the connection before all ranks had come",
             plan->address, plan->port);
  PL_REQUIRE(said.kind == PL_SAID_WELCOME, "%s", text);
  for (int i = 0; i < peers->world; i++) {
    roster_line line;
    PL_REQUIRE(recv(from, &line, sizeof line, MSG_WAITALL) == sizeof line, "rank 0 broke off while it told who is who");
    memcpy(peers->peer[i].host, line.host, PL_HOST_BYTES);
    peers->peer[i].process = line.process;
  }
  return PL_OK;
}

static pl_status visit(pl_peers *peers, const pl_peers_plan *plan) {
  double until = pl_now_ms() + plan->timeout_ms;
  pl_peer *zero = &peers->peer[0];
  PL_TRY(introduce(peers, plan, until, CONTROL, &zero->control));
  PL_TRY(introduce(peers, plan, until, DATA, &zero->data));
  return await_welcome(peers, plan, until);
}

pl_status pl_peers_join(const pl_peers_plan *plan, pl_peers **made) {
  pl_peers *peers = pl_allocate(sizeof *peers);
  *peers = (pl_peers){.rank = plan->rank, .world = plan->world, .timeout_ms = plan->timeout_ms, .alarm = plan->alarm};
  peers->peer = pl_allocate((size_t)plan->world * sizeof *peers->peer);
  for (int i = 0; i < plan->world; i++) peers->peer[i].control = peers->peer[i].data = -1;
  hello own = hello_of(peers, CONTROL);
  memcpy(peers->peer[plan->rank].host, own.host, PL_HOST_BYTES);
  peers->peer[plan->rank].process = own.process;
  pl_status status = plan->rank == 0 ? receive_all(peers, plan) : visit(peers, plan);
  if (status == PL_OK) status = pl_peers_watch_start(peers);
  if (status == PL_OK)
    *made = peers;
  else
    pl_peers_leave(peers);
  return status;
}
