/* The history file. Kernels take turns by a lock on it; the file is never replaced by another, which would leave those
 * that have it open with one that nobody reads. */
#include "host/jupyter/history.h"
#include "host/base/file.h"
#include "host/base/home.h"
#include "host/base/json.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEPT_BYTES = 4 << 20, FILE_BYTES_MAX = 2 * KEPT_BYTES, INPUT_BYTES_MAX = 1 << 20, SESSION_MAX = 1 << 30 };

struct pl_history {
  int file;     /* -1 before the first use */
  pl_text path; /* for messages */
  long session; /* 0 before the first input: only then has this kernel a place in the order of sessions */
};

pl_history *pl_history_new(void) {
  pl_history *history = pl_allocate(sizeof *history);
  history->file = -1;
  return history;
}

void pl_history_free(pl_history *h) {
  if (h->file >= 0) close(h->file);
  pl_text_release(&h->path);
  free(h);
}

/* ---- the file ---- */

/* Tries the lock, too: there are file systems without any. */
static pl_status open_file(pl_history *h) {
  const char *wanted = getenv("PERILUNE_HISTORY");
  PL_REQUIRE(!wanted || strcmp(wanted, "0") != 0, "PERILUNE_HISTORY is 0");
  PL_TRY(pl_home_data(&h->path));
  pl_text_print(&h->path, "/history.jsonl");
  PL_TRY(pl_file_open_shared(h->path.data, 0600, &h->file)); /* people type passwords into cells */
  struct stat about;
  PL_REQUIRE(fstat(h->file, &about) == 0 && S_ISREG(about.st_mode), "'%s' is no file", h->path.data);
  return pl_file_lock(h->file, h->path.data);
}

/* Opens and locks the file, or memory in its place; false when there is neither. */
static bool lock(pl_history *h) {
  if (h->file >= 0) return pl_file_lock(h->file, h->path.data) == PL_OK;
  if (open_file(h) == PL_OK) return true;
  if (h->file >= 0) close(h->file);
  h->file = memfd_create("history", MFD_CLOEXEC);
  return h->file >= 0;
}

/* The last bytes of the file, from the beginning of a line on. */
static void read_end(const pl_history *h, size_t bytes_max, pl_text *text) {
  off_t length = lseek(h->file, 0, SEEK_END), at = length > (off_t)bytes_max ? length - (off_t)bytes_max : 0;
  bool cut = at > 0;
  char block[1 << 16];
  ssize_t got;
  while ((got = pread(h->file, block, sizeof block, at)) > 0 || (got < 0 && errno == EINTR)) {
    if (got < 0) continue;
    pl_text_append(text, block, (size_t)got);
    at += got;
  }
  pl_text_append(text, "", 0);
  if (!cut) return;
  const char *start = memchr(text->data, '\n', text->length);
  size_t gone = start ? (size_t)(start + 1 - text->data) : text->length;
  memmove(text->data, text->data + gone, text->length - gone + 1);
  text->length -= gone;
}

typedef struct {
  long session, line;
  const char *start; /* of the whole line in the file */
  size_t length;
} entry;

/* Takes the last line off the text; false when there is none. */
static bool next_back(const char *text, size_t *length, entry *e) {
  while (*length > 0 && text[*length - 1] == '\n') --*length;
  if (*length == 0) return false;
  const char *before = memrchr(text, '\n', *length);
  e->start = before ? before + 1 : text;
  e->length = (size_t)(text + *length - e->start);
  *length -= e->length;
  e->session = e->line = 0;
  if (*e->start != '[') return true;
  char *end;
  long session = strtol(e->start + 1, &end, 10);
  if (*end != ',' || session < 1 || session > SESSION_MAX) return true;
  e->session = session;
  e->line = strtol(end + 1, NULL, 10);
  return true;
}

static long last_session(const pl_text *text) {
  long last = 0;
  entry e;
  for (size_t left = text->length; next_back(text->data, &left, &e);)
    if (e.session > last) last = e.session;
  return last;
}

/* Leaves the end of a file that has become too long, behind a line that keeps the last session's number from being
 * given again. It is shortened in place; what a crash just then would spoil are lines, not the file. */
static void shorten(const pl_history *h) {
  pl_text all = {0}, kept = {0}, end = {0};
  read_end(h, 2 * FILE_BYTES_MAX, &all);
  read_end(h, KEPT_BYTES, &end);
  pl_text_print(&kept, "[%ld, 0, null]\n", last_session(&all));
  pl_text_append(&kept, end.data, end.length);
  if (ftruncate(h->file, 0) == 0) pl_file_append_locked(h->file, h->path.data, kept.data, kept.length);
  pl_text_release(&all);
  pl_text_release(&kept);
  pl_text_release(&end);
}

static void begin_session(pl_history *h) {
  pl_text text = {0};
  read_end(h, FILE_BYTES_MAX, &text);
  h->session = last_session(&text) + 1;
  pl_text_release(&text);
}

void pl_history_add(pl_history *h, long line, const json_t *input) {
  if (json_string_length(input) > INPUT_BYTES_MAX || !lock(h)) return;
  if (lseek(h->file, 0, SEEK_END) > FILE_BYTES_MAX) shorten(h);
  if (h->session == 0) begin_session(h);
  pl_text text = {0};
  pl_text_print(&text, "[%ld, %ld, ", h->session, line);
  pl_json_write(input, 0, &text);
  pl_text_print(&text, "]\n");
  pl_file_append_locked(h->file, h->path.data, text.data, text.length); /* a full disk is no failure of the cell */
  pl_file_unlock(h->file);
  pl_text_release(&text);
}

/* ---- queries ---- */

/* Goes back to the last '*' only, which is enough, and keeps hostile patterns from taking for ever. */
static bool matches(const char *pattern, const char *text, const char *end) {
  const char *star = NULL, *retry = NULL;
  while (text < end) {
    bool character = ((unsigned char)*text & 0xC0) != 0x80; /* the first byte of one */
    if (*pattern == '*') {
      star = ++pattern;
      retry = text;
    } else if (*pattern == '?' && character) {
      pattern++;
      for (text++; text < end && ((unsigned char)*text & 0xC0) == 0x80;) text++;
    } else if (*pattern && *pattern == *text) {
      pattern++;
      text++;
    } else if (star) {
      pattern = star;
      text = ++retry;
    } else
      return false;
  }
  while (*pattern == '*') pattern++;
  return *pattern == 0;
}

/* The entry's input when the query asks for it, NULL otherwise. `seen` has the inputs found so far as keys. */
static json_t *wanted(const entry *e, const pl_history_query *q, long current, json_t *seen) {
  json_int_t session = q->session > 0 ? q->session : current + q->session;
  if (e->session == 0) return NULL;
  if (q->kind == PL_HISTORY_RANGE && (e->session != session || e->line < q->start || e->line >= q->stop)) return NULL;
  bool search = q->kind == PL_HISTORY_SEARCH;
  json_t *whole = json_loadb(e->start, e->length, JSON_ALLOW_NUL, NULL), *input = json_array_get(whole, 2);
  const char *text = json_string_value(input);
  size_t length = json_string_length(input);
  if (search && text && !matches(q->pattern, text, text + length)) text = NULL;
  if (search && text && q->unique) {
    if (json_object_getn(seen, text, length))
      text = NULL;
    else
      json_object_setn_new_nocheck(seen, text, length, json_true());
  }
  json_t *found = text ? json_incref(input) : NULL;
  json_decref(whole);
  return found;
}

json_t *pl_history_find(pl_history *h, const pl_history_query *query) {
  json_t *backwards = json_array(), *seen = json_object(), *found = json_array();
  pl_text text = {0};
  if (lock(h)) {
    read_end(h, FILE_BYTES_MAX, &text);
    pl_file_unlock(h->file);
  }
  long current = h->session ? h->session : last_session(&text) + 1;
  size_t most = query->kind == PL_HISTORY_RANGE || query->n < 0 ? SIZE_MAX : (size_t)query->n;
  entry e;
  for (size_t left = text.length; json_array_size(backwards) < most && next_back(text.data, &left, &e);) {
    json_t *input = wanted(&e, query, current, seen);
    if (input)
      json_array_append_new(
          backwards, json_pack(query->output ? "[i, i, [o, n]]" : "[i, i, o]", (int)e.session, (int)e.line, input));
  }
  for (size_t i = json_array_size(backwards); i-- > 0;) json_array_append(found, json_array_get(backwards, i));
  json_decref(backwards);
  json_decref(seen);
  pl_text_release(&text);
  return found;
}
