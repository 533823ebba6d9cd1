/* The connection file with which a Jupyter front end starts a kernel. */
#ifndef PL_JUPYTER_CONNECTION_H
#define PL_JUPYTER_CONNECTION_H

#include "host/base/text.h"

typedef enum { PL_SHELL, PL_CONTROL, PL_STDIN, PL_IOPUB, PL_HEARTBEAT, PL_CHANNELS } pl_channel;

typedef struct {
  char *address[PL_CHANNELS]; /* of ZeroMQ, one per channel */
  long port[PL_CHANNELS];
  char *key; /* empty: messages are not signed */
} pl_connection;

/* Reads the file; the error names it and the field that is missing or wrong. */
pl_status pl_connection_read(const char *path, pl_connection *connection);
void pl_connection_release(pl_connection *connection);

/* Names of the ports, by channel, in connection files and in connect_reply. */
extern const char *const pl_port_fields[PL_CHANNELS];

#endif
