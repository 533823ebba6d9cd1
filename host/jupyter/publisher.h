/* The iopub channel: one thread owns the socket, sends what other threads queue, gathers streams, welcomes subscribers.
 */
#ifndef PL_JUPYTER_PUBLISHER_H
#define PL_JUPYTER_PUBLISHER_H

#include "host/jupyter/wire.h"

typedef struct pl_publisher pl_publisher;

/* Takes over the bound XPUB socket and closes it in the end. */
pl_status pl_publisher_start(pl_wire *wire, void *socket, pl_publisher **publisher);
/* Sends what is left and ends the thread. */
void pl_publisher_stop(pl_publisher *publisher);

/* Queues a message; content is borrowed, `attached` may be NULL. The order of calls is the order on the wire. */
void pl_publisher_send(pl_publisher *publisher, const char *type, const pl_text *parent, const json_t *content,
                       const pl_attachment *attached);
/* Adds to what the stream `name` has to say; sent after a moment, as one message with what follows. */
void pl_publisher_stream(pl_publisher *publisher, const pl_text *parent, const char *name, const char *data,
                         size_t length);
/* Puts gathered stream text before whatever is queued next. */
void pl_publisher_flush(pl_publisher *publisher);

#endif
