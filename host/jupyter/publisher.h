/* The iopub channel: one thread owns the socket, sends what other threads queue, gathers streams, welcomes subscribers.
 * Nothing is lost when a front end reads slowly: messages wait, and who makes more of them than PL_PUBLISHER_BYTES_MAX
 * is to wait, too. */
#ifndef PL_JUPYTER_PUBLISHER_H
#define PL_JUPYTER_PUBLISHER_H

#include "host/jupyter/wire.h"

typedef struct pl_publisher pl_publisher;

enum {
  PL_PUBLISHER_BYTES_MAX = 16 << 20, /* in the publisher's own queue */
  PL_PUBLISHER_MESSAGES_MAX = 256    /* in ZeroMQ's: the socket's high-water mark; a stream's messages are 64 KiB */
};

/* Takes over the bound XPUB socket and closes it in the end. */
pl_status pl_publisher_start(pl_wire *wire, void *socket, pl_publisher **publisher);
/* Sends what is left and ends the thread. */
void pl_publisher_stop(pl_publisher *publisher);

/* Queues a message of the given parent (NULL: none); content is borrowed, `attached` may be NULL. The order of calls is
 * the order on the wire. */
void pl_publisher_send(pl_publisher *publisher, const char *type, const pl_text *parent, const json_t *content,
                       const pl_attachment *attached);

/* Output from now on belongs to the request with this header, until the next one. */
void pl_publisher_begin(pl_publisher *publisher, const pl_text *parent);
/* Queues a message of output behind the stream text so far. */
void pl_publisher_publish(pl_publisher *publisher, const char *type, const json_t *content,
                          const pl_attachment *attached);
/* Adds to what the stream `name` has to say; sent after a moment, as one message with what follows. */
void pl_publisher_stream(pl_publisher *publisher, const char *name, const char *data, size_t length);
/* Puts gathered stream text before whatever is queued next. */
void pl_publisher_flush(pl_publisher *publisher);

/* Whether more waits to be sent than should. */
bool pl_publisher_full(pl_publisher *publisher);
/* Waits until it is no longer full; an interrupt ends the wait. */
void pl_publisher_wait(pl_publisher *publisher);

#endif
