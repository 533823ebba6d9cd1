/* Whole files in and out, where writing is atomic (a temporary file beside the target, then rename); and lines at the
 * end of a file that several processes share. */
#ifndef PL_BASE_FILE_H
#define PL_BASE_FILE_H

#include "host/base/text.h"

/* Reads all of `path` into *text (which is overwritten). */
pl_status pl_file_read(const char *path, pl_text *text);

/* Writes the pieces, one after the other, as the new content of `path`: either all of them or nothing, unless it is a
 * pipe or a device. Symbolic links are followed. */
typedef struct {
  const void *data;
  size_t bytes;
} pl_piece;
pl_status pl_file_write(const char *path, const pl_piece *pieces, int count);

/* Puts whole lines, the last of them ended, at the end of `path`, which is created, with its directory, if need be: all
 * of them or nothing, none between two of another process, and none behind a line that somebody left unfinished. */
pl_status pl_file_append(const char *path, const char *lines, size_t bytes);

/* The same in steps, for who does more with the file while no other process does: opens it (mode as open takes it),
 * waits for its lock, appends with the lock held, gives the lock back. */
pl_status pl_file_open_shared(const char *path, unsigned mode, int *file);
pl_status pl_file_lock(int file, const char *path);
pl_status pl_file_append_locked(int file, const char *path, const char *lines, size_t bytes);
void pl_file_unlock(int file);

/* Creates a directory and its parents. */
pl_status pl_directory_create(const char *path);

#endif
