/* Jupyter messages on ZeroMQ sockets: frames, signatures, headers. Section and field names are those of the messaging
 * specification (https://jupyter-client.readthedocs.io/en/stable/messaging.html, version 5.5). */
#ifndef PL_JUPYTER_WIRE_H
#define PL_JUPYTER_WIRE_H

#include "host/base/text.h"
#include <jansson.h>
#include <stdbool.h>

#define PL_PROTOCOL "5.5"

/* Signs and numbers messages; may be used by several threads at once. */
typedef struct pl_wire pl_wire;
pl_wire *pl_wire_new(const char *key);
void pl_wire_free(pl_wire *wire);

/* A message that arrived. {0} is empty. */
typedef struct {
  pl_text *identities; /* routing frames, to be sent back before the reply */
  size_t identity_count;
  pl_text header_bytes; /* as they came: the parent header of everything that follows from this message */
  json_t *header, *metadata, *content;
  const char *type; /* msg_type of the header */
  pl_text *buffers; /* binary frames behind the content */
  size_t buffer_count;
} pl_request;
void pl_request_release(pl_request *request);

typedef enum { PL_RECEIVED, PL_DROPPED, PL_NOTHING } pl_reception;
/* Takes one message from the socket without waiting. PL_DROPPED: it was malformed, not signed with the key or a signed
 * message that came before, and has vanished; PL_NOTHING: there is none. */
pl_reception pl_wire_receive(pl_wire *wire, void *socket, pl_request *request);
/* Sleeps until the socket may have a message, the file `wake` (then true) or `other` (-1: none) is readable, a signal
 * comes or patience_ms are over (-1: never). Only where a receive has just found nothing: ZeroMQ tells of an arrival
 * once. With zmq_poll, which allows more, each message would cost twice the system calls. */
bool pl_wire_wait(void *socket, int wake, int other, long patience_ms);

/* The signed frames of an outgoing message, from the signature on. */
enum { PL_SIGNATURE, PL_HEADER, PL_PARENT, PL_METADATA, PL_CONTENT, PL_FRAMES };
typedef struct {
  pl_text frames[PL_FRAMES];
  pl_text *buffers;
  size_t buffer_count;
} pl_packet;
/* What few messages carry besides their content; all borrowed. metadata NULL is an empty object. */
typedef struct {
  const json_t *metadata;
  const pl_text *buffers;
  size_t buffer_count;
} pl_attachment;
/* `parent` is the header of the request that caused it, NULL when none did; content is borrowed, `attached` may be
 * NULL.
 */
void pl_wire_compose(pl_wire *wire, const char *type, const pl_text *parent, const json_t *content,
                     const pl_attachment *attached, pl_packet *packet);
void pl_packet_release(pl_packet *packet);

/* Sends a packet behind the given routing frames (or topic). False when the socket's queue is full, which that of a
 * ROUTER here never is: nothing was sent. */
bool pl_wire_send(void *socket, const pl_text *prefix, size_t prefix_count, const pl_packet *packet);

/* Composes and sends the reply to a request. */
void pl_wire_reply(pl_wire *wire, void *socket, const pl_request *request, const char *type, const json_t *content);

#endif
