/* A notebook file (nbformat 4): its code cells as they are to be run, and its text, of which only what a run changes is
 * written anew. Everything else, metadata, attachments, other cells, keeps its bytes. */
#ifndef PL_JUPYTER_NOTEBOOK_FILE_H
#define PL_JUPYTER_NOTEBOOK_FILE_H

#include "host/base/json_text.h"
#include <jansson.h>

typedef struct {
  pl_json_span place;
  bool code;
  pl_text source;
  json_t *tags; /* array, NULL when there are none */

  /* ---- of the run ---- */
  json_t *outputs; /* NULL: the cell did not run and stays as it is */
  long execution_count;
} pl_notebook_cell;

typedef struct {
  pl_text text;
  pl_json_span object;
  pl_notebook_cell *cells;
  size_t count;
} pl_notebook_file;

/* Reads and checks a notebook written in Lua. */
pl_status pl_notebook_file_read(const char *path, pl_notebook_file *file);

/* Writes the text to `path`, atomically, with the outputs and counts of the cells that ran, and with `language_info`
 * and, unless it is NULL, `widgets` among the metadata. From nbformat 4.5 on, cells have ids: those that have none, or
 * one that an earlier cell has, get one. */
pl_status pl_notebook_file_write(const pl_notebook_file *file, const char *path, json_t *language_info,
                                 json_t *widgets);

void pl_notebook_file_release(pl_notebook_file *file);

bool pl_notebook_cell_has_tag(const pl_notebook_cell *cell, const char *tag);

#endif
