/* Running a notebook file from top to bottom, without Jupyter. */
#ifndef PL_JUPYTER_NOTEBOOK_H
#define PL_JUPYTER_NOTEBOOK_H

#include "host/base/text.h"
#include <stdbool.h>

typedef struct {
  double timeout_s;  /* for each cell; 0: none */
  bool allow_errors; /* go on after a cell that fails */
} pl_notebook_options;

/* Executes the code cells of `path`, in its folder, and writes the notebook with their outputs to `output` (which may
 * be the same file), also when a cell failed: then *failure says so, with the traceback of the first one that did. The
 * run ends there unless errors are allowed, by the option or by the cell's tag "raises-exception". Cells without code
 * or with the tag "skip-execution" stay as they are. An error status means that the file could not be read, understood
 * or written. */
pl_status pl_notebook_run(const char *path, const char *output, const pl_notebook_options *options, pl_text *failure);

#endif
