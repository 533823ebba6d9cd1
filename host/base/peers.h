/* The processes of one job, called ranks 0 .. world - 1: how they find each other over TCP, how they learn that one of
 * them failed, and bytes between rank 0 and the others. Knows nothing of what the bytes are.
 *
 * Every rank has two connections to rank 0: one for data, used by the thread that computes, and one for control, used
 * by a thread of its own. Over this each rank says every half second how many collective operations it has begun, so
 * that rank 0 sees who lags behind; it says when it leaves, and why it failed; and its end is seen when it closes. The
 * first failure is told to all. */
#ifndef PL_BASE_PEERS_H
#define PL_BASE_PEERS_H

#include "host/base/status.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pl_peers pl_peers;

typedef struct {
  int rank, world;     /* world: 2 or more */
  const char *address; /* a name or number of rank 0's host */
  int port;            /* at which rank 0 listens until all have come */
  double timeout_ms;   /* how long ranks wait for each other: to come, and in a collective operation */
  /* Called, on another thread, when another rank failed: whatever is computed should come to an end. The process is
   * ended a few seconds later if pl_peers_leave was not called by then. */
  void (*alarm)(void);
} pl_peers_plan;

/* Waits for all ranks. A failure says who did not come, or what this rank could not reach. */
pl_status pl_peers_join(const pl_peers_plan *plan, pl_peers **peers);
int pl_peers_rank(const pl_peers *peers);
int pl_peers_world(const pl_peers *peers);
/* "rank 2 (host node7, process 4711)"; one of a few rotating static buffers. */
const char *pl_peers_name(const pl_peers *peers, int rank);

/* To be called at the beginning of each collective operation, by every rank in the same order: counts it, and fails
 * where a rank has failed, or left without it. */
pl_status pl_peers_begin(pl_peers *peers);
/* An operation that began has failed in its middle on this rank. What lies in the connections belongs to it, so that
 * this rank begins no other. */
void pl_peers_break(pl_peers *peers);
/* Data between rank 0 and another; waits until all of it has gone or come, or somebody failed, or an interrupt. */
pl_status pl_peers_send(pl_peers *peers, int rank, const void *data, size_t bytes);
pl_status pl_peers_receive(pl_peers *peers, int rank, void *data, size_t bytes);

/* Why the job failed, as another rank's name and words; NULL while it has not. */
const char *pl_peers_failure(const pl_peers *peers);
/* Tells all others that this rank failed, unless the job has failed already. */
void pl_peers_fail(pl_peers *peers, const char *why);
/* Says good-bye, closes everything and frees. NULL is fine. */
void pl_peers_leave(pl_peers *peers);

/* ---- private to peers.c, rendezvous.c and watch.c ---- */

enum { PL_HOST_BYTES = 64 };

typedef struct {
  char host[PL_HOST_BYTES];
  int32_t process;
  int control, data; /* sockets; -1 where there is none: a rank other than 0 has those to rank 0 only */
  atomic_bool left;
  uint64_t begun; /* collective operations, as it said last: private to the watch's thread until it has left */
  double heard_ms,
      behind_since_ms; /* when it said anything; since when it has begun no more while others did (0: not) */
} pl_peer;

struct pl_peers {
  int rank, world;
  double timeout_ms;
  void (*alarm)(void);
  pl_peer *peer; /* [world] */
  struct pl_peers_watch *watch;
  bool broken; /* by pl_peers_break */
};

/* What is said over a control connection. */
enum { PL_SAID_WELCOME = 1, PL_SAID_BEGUN, PL_SAID_LEFT, PL_SAID_FAILED, PL_SAID_LOST };
typedef struct {
  uint32_t kind, rank; /* whom it is about */
  uint64_t begun;
  uint32_t length; /* of the text that follows */
  uint32_t unused;
} pl_said;
enum { PL_SAID_BYTES = 4096 };

/* Seconds that half a word may take to arrive. */
enum { PL_WORD_S = 5 };
/* Sends a word and its text (may be NULL); whether it went out. */
bool pl_peers_say(int socket, uint32_t kind, int rank, uint64_t begun, const char *text);
/* Reads a word and its text, which ends with a NUL; false when the connection closed or is silent in the middle. */
bool pl_peers_hear(int socket, pl_said *said, char text[PL_SAID_BYTES + 1]);

/* The thread that listens to the control connections. */
pl_status pl_peers_watch_start(pl_peers *peers);
void pl_peers_watch_end(pl_peers *peers);             /* says good-bye */
uint64_t pl_peers_watch_begun(const pl_peers *peers); /* how many collective operations this rank has begun */
void pl_peers_watch_count(pl_peers *peers);           /* it begins one more */

#endif
