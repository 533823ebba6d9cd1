/* Whole files in and out, and lines at the end of one. */
#include "host/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

pl_status pl_file_read(const char *path, pl_text *text) {
  pl_text_clear(text);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  PL_REQUIRE(file >= 0, "cannot open '%s': %s", path, strerror(errno));
  char block[1 << 16];
  ssize_t got;
  while ((got = read(file, block, sizeof block)) > 0 || (got < 0 && errno == EINTR))
    if (got > 0) pl_text_append(text, block, (size_t)got);
  int error = errno;
  close(file);
  PL_REQUIRE(got == 0, "cannot read '%s': %s", path, strerror(error));
  pl_text_append(text, "", 0);
  return PL_OK;
}

static pl_status write_pieces(int file, const char *path, const pl_piece *pieces, int count) {
  for (int i = 0; i < count; i++) {
    const char *data = pieces[i].data;
    size_t left = pieces[i].bytes;
    while (left > 0) {
      ssize_t put = write(file, data, left);
      if (put < 0 && errno == EINTR) continue;
      PL_REQUIRE(put > 0, "cannot write '%s': %s", path, strerror(errno));
      data += put;
      left -= (size_t)put;
    }
  }
  PL_REQUIRE(fsync(file) == 0 || errno == EINVAL, "cannot write '%s': %s", path, strerror(errno)); /* a pipe has none */
  return PL_OK;
}

static pl_status replace_file(const char *path, const pl_piece *pieces, int count) {
  pl_text name = {0};
  pl_text_print(&name, "%s.XXXXXX", path);
  int file = mkstemp(name.data);
  pl_status status = PL_OK;
  if (file < 0)
    status = PL_FAIL("cannot create a file beside '%s': %s", path, strerror(errno));
  else {
    mode_t mask = umask(0);
    umask(mask);
    struct stat old;
    mode_t mode = stat(path, &old) == 0 ? old.st_mode & 07777 : 0666 & ~mask;
    status = write_pieces(file, path, pieces, count);
    if (fchmod(file, mode) != 0 && status == PL_OK) status = PL_FAIL("cannot set the mode of '%s'", path);
    if (close(file) != 0 && status == PL_OK) status = PL_FAIL("cannot write '%s': %s", path, strerror(errno));
    if (status == PL_OK && rename(name.data, path) != 0)
      status = PL_FAIL("cannot rename to '%s': %s", path, strerror(errno));
    if (status != PL_OK) unlink(name.data);
  }
  pl_text_release(&name);
  return status;
}

/* For pipes and devices, /dev/stdout among them, in whose place no file may come. */
static pl_status write_in_place(const char *path, const pl_piece *pieces, int count) {
  int file = open(path, O_WRONLY | O_CLOEXEC);
  PL_REQUIRE(file >= 0, "cannot open '%s': %s", path, strerror(errno));
  pl_status status = write_pieces(file, path, pieces, count);
  if (close(file) != 0 && status == PL_OK) status = PL_FAIL("cannot write '%s': %s", path, strerror(errno));
  return status;
}

pl_status pl_file_write(const char *path, const pl_piece *pieces, int count) {
  struct stat found;
  if (stat(path, &found) == 0 && !S_ISREG(found.st_mode) && !S_ISDIR(found.st_mode))
    return write_in_place(path, pieces, count);
  char *target = realpath(path, NULL); /* a symbolic link stays, and the file it names is replaced */
  pl_status status = replace_file(target ? target : path, pieces, count);
  free(target);
  return status;
}

/* Ends a last line that has no end. */
static pl_status end_line(int file, const char *path, off_t length) {
  char last = '\n';
  PL_REQUIRE(length == 0 || pread(file, &last, 1, length - 1) == 1, "cannot read '%s': %s", path, strerror(errno));
  PL_REQUIRE(last == '\n' || write(file, "\n", 1) == 1, "cannot write '%s': %s", path, strerror(errno));
  return PL_OK;
}

/* What does not fit is taken back. */
pl_status pl_file_append_locked(int file, const char *path, const char *lines, size_t bytes) {
  off_t length = lseek(file, 0, SEEK_END);
  PL_REQUIRE(length >= 0, "cannot tell the length of '%s': %s", path, strerror(errno));
  pl_status status = end_line(file, path, length);
  if (status == PL_OK) {
    ssize_t put = write(file, lines, bytes);
    if (put != (ssize_t)bytes)
      status = PL_FAIL("cannot write '%s': %s", path, put < 0 ? strerror(errno) : "no room for all of it");
  }
  if (status != PL_OK && ftruncate(file, length) != 0)
    return PL_FAIL("cannot take back what was half written to '%s': %s", path, strerror(errno));
  return status;
}

static pl_status create_directory_of(const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash || slash == path) return PL_OK;
  pl_text directory = {0};
  pl_text_append(&directory, path, (size_t)(slash - path));
  pl_status status = pl_directory_create(directory.data);
  pl_text_release(&directory);
  return status;
}

pl_status pl_file_open_shared(const char *path, unsigned mode, int *file) {
  PL_TRY(create_directory_of(path));
  *file = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, (mode_t)mode);
  PL_REQUIRE(*file >= 0, "cannot open '%s': %s", path, strerror(errno));
  return PL_OK;
}

pl_status pl_file_lock(int file, const char *path) {
  int locked;
  do locked = flock(file, LOCK_EX);
  while (locked != 0 && errno == EINTR);
  PL_REQUIRE(locked == 0, "cannot lock '%s': %s", path, strerror(errno));
  return PL_OK;
}

void pl_file_unlock(int file) { flock(file, LOCK_UN); }

pl_status pl_file_append(const char *path, const char *lines, size_t bytes) {
  int file;
  PL_TRY(pl_file_open_shared(path, 0666, &file));
  pl_status status = pl_file_lock(file, path);
  if (status == PL_OK) status = pl_file_append_locked(file, path, lines, bytes);
  if (close(file) != 0 && status == PL_OK) status = PL_FAIL("cannot write '%s': %s", path, strerror(errno));
  return status;
}

pl_status pl_directory_create(const char *path) {
  char *part = pl_duplicate(path);
  for (char *slash = part + 1;; slash++) {
    if (*slash != '/' && *slash != 0) continue;
    char end = *slash;
    *slash = 0;
    if (mkdir(part, 0777) != 0 && errno != EEXIST) {
      pl_status status = PL_FAIL("cannot create the directory '%s': %s", part, strerror(errno));
      free(part);
      return status;
    }
    *slash = end;
    if (end == 0) break;
  }
  free(part);
  return PL_OK;
}
