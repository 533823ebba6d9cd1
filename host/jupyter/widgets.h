/* Widgets of a notebook that runs without a browser: their states, which the file keeps, and the outputs that Output
 * widgets take from cells, as nbclient's do. */
#ifndef PL_JUPYTER_WIDGETS_H
#define PL_JUPYTER_WIDGETS_H

#include "host/bind/session.h"
#include "host/jupyter/outputs.h"

typedef struct pl_output_widget pl_output_widget;

typedef struct {
  json_t *states;           /* by id: what the kernel told of a widget, the last of each trait */
  json_t *buffers;          /* by id: an object from paths, as JSON text, to { data, encoding, path } */
  pl_output_widget *first;  /* Output widgets */
  pl_output_widget *taking; /* the innermost of those that take the running cell's output; NULL: the cell does */
} pl_widgets;

void pl_widgets_open(pl_widgets *widgets);
void pl_widgets_release(pl_widgets *widgets);

/* Takes a comm message that code of the message with the id `running` sent. */
void pl_widgets_comm(pl_widgets *widgets, const pl_comm_message *message, const char *running);
/* Where output goes in place of the cell; NULL: to the cell. */
pl_outputs *pl_widgets_taker(pl_widgets *widgets);
/* The cell ended: no widget takes output any more. */
void pl_widgets_end_cell(pl_widgets *widgets);

/* The content of a comm message that tells the kernel what an Output widget shows; NULL when it knows of all. */
json_t *pl_widgets_news(pl_widgets *widgets);

/* What the notebook's metadata keep under "widgets"; NULL when there was none. */
json_t *pl_widgets_metadata(const pl_widgets *widgets);

#endif
