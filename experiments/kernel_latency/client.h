/* A kernel in a process of its own, and a front end's sockets to it. What comes is read without checking signatures or
 * all of the JSON, which tests do: the kernel is to be measured, not its client. */
#ifndef EXPERIMENTS_KERNEL_LATENCY_CLIENT_H
#define EXPERIMENTS_KERNEL_LATENCY_CLIENT_H

#include "host/jupyter/connection.h"
#include "host/jupyter/wire.h"

#include <sys/types.h>

/* What kernel.json says. {0} is empty. */
typedef struct {
  json_t *file;
  const char *name, *language;
  bool by_message; /* how it is interrupted; otherwise by SIGINT */
} kernel_spec;
/* Reads a kernel.json; `path` that is a program is taken for perilune itself. */
pl_status kernel_spec_read(const char *path, kernel_spec *spec);

typedef struct {
  const kernel_spec *spec;
  pl_wire *wire;
  pl_connection connection;
  void *context, *sockets[PL_CHANNELS];
  pid_t process;
  char folder[64];         /* of the connection file; also the kernel's home */
  pl_text header, content; /* of the message that came last */
} client;

/* Starts the kernel and waits for its first answer to kernel_info_request, then for its idle. *ms is the time up to the
 * answer, from before the process was made. */
pl_status client_start(client *c, const kernel_spec *spec, double *ms);
/* Ends the kernel, also after a failed start. */
void client_stop(client *c);

void client_send(client *c, pl_channel channel, const char *type, const json_t *content);
void client_execute(client *c, const char *code);
void client_interrupt(client *c);

/* Takes the next message of a channel into c->header and c->content; false when none comes for so long. */
bool client_receive(client *c, pl_channel channel, long patience_ms);
/* Waits for a message of this type, where `state` is not NULL with this execution_state; false when none comes. What
 * comes before is passed over; the text of streams among it is counted in *text_bytes unless that is NULL. */
bool client_wait(client *c, pl_channel channel, const char *type, const char *state, size_t *text_bytes);
/* Passes over what is published until nothing comes any more. */
void client_drain(client *c);
/* Runs code, up to its idle. False when an answer is missing. */
bool client_run(client *c, const char *code);

#endif
