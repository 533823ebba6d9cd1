/* Messages of a running cell as the outputs that a notebook file keeps (nbformat 4). */
#ifndef PL_JUPYTER_OUTPUTS_H
#define PL_JUPYTER_OUTPUTS_H

#include "host/bind/session.h"

typedef struct {
  json_t *cells;   /* displays by id: object of arrays of outputs, so that an update finds those of earlier cells */
  json_t *outputs; /* array being filled for the current cell (owned) */
  bool clear_next; /* a clear_output that waits for the next output */
  pl_text tail;    /* beginning of a UTF-8 sequence at the end of the stream `tail_name` */
  const char *tail_name;
} pl_outputs;

void pl_outputs_open(pl_outputs *outputs);
void pl_outputs_release(pl_outputs *outputs);

/* Begins a cell: a new empty array, also returned (borrowed). */
json_t *pl_outputs_begin(pl_outputs *outputs);
void pl_outputs_stream(pl_outputs *outputs, const char *name, const char *data, size_t length);
/* As the session's display callback gives them. */
void pl_outputs_display(pl_outputs *outputs, const char *type, const json_t *content);
/* The result or error that ends a cell. */
void pl_outputs_outcome(pl_outputs *outputs, const pl_outcome *outcome, long execution_count);

/* The traceback of an error as messages and notebooks hold it: its message is red, by a terminal's escape sequences. */
json_t *pl_coloured_traceback(const pl_outcome *outcome);

#endif
