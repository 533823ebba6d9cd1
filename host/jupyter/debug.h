/* Requests to the debugger on their way between two threads: the control thread takes them from its socket and sends
 * the replies, the main thread, which owns the session, answers them in the order in which they came. The control
 * thread never waits for it. */
#ifndef PL_JUPYTER_DEBUG_H
#define PL_JUPYTER_DEBUG_H

#include "host/jupyter/wire.h"

typedef struct pl_debug pl_debug;
pl_status pl_debug_new(pl_debug **debug);
void pl_debug_free(pl_debug *debug);

/* File descriptors that are readable while there is something to answer, and something to send. */
int pl_debug_asked_file(const pl_debug *debug);
int pl_debug_answered_file(const pl_debug *debug);

/* ---- of the control thread ---- */

/* Takes the request over and leaves it empty. */
void pl_debug_ask(pl_debug *debug, pl_request *request);
/* Whether requests wait for the main thread. */
bool pl_debug_pending(pl_debug *debug);
/* The next reply and the request that it is to, both the caller's from now on; false when there is none. */
bool pl_debug_collect(pl_debug *debug, pl_request *request, json_t **reply);

/* ---- of the main thread ---- */

/* Answers all that was asked: `answer` makes a new reply from a request's content. */
void pl_debug_answer(pl_debug *debug, json_t *(*answer)(void *context, const pl_request *request), void *context);

#endif
