/* Whole files in and out; writing is atomic (a temporary file beside the target, then rename). */
#ifndef PL_BASE_FILE_H
#define PL_BASE_FILE_H

#include "host/base/text.h"

/* Reads all of `path` into *text (which is overwritten). */
pl_status pl_file_read(const char *path, pl_text *text);

/* Writes the pieces, one after the other, as the new content of `path`: either all of them or nothing. */
typedef struct {
  const void *data;
  size_t bytes;
} pl_piece;
pl_status pl_file_write(const char *path, const pl_piece *pieces, int count);

/* Creates a directory and its parents. */
pl_status pl_directory_create(const char *path);

#endif
