/* A growing byte string, and UTF-8 as JSON and terminals need it. */
#ifndef PL_BASE_TEXT_H
#define PL_BASE_TEXT_H

#include "host/base/status.h"
#include <stdbool.h>
#include <stddef.h>

/* {0} is an empty text. Appending never fails halfway: when memory is short the process-level allocator has nothing
 * left for a message either, so it ends the program with one line. */
typedef struct {
  char *data; /* always NUL-terminated once something was appended; NULL while empty */
  size_t length, capacity;
} pl_text;

void pl_text_append(pl_text *text, const char *data, size_t length);
void pl_text_print(pl_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool pl_text_equal(const pl_text *a, const pl_text *b);
void pl_text_clear(pl_text *text);   /* keeps the memory */
void pl_text_release(pl_text *text); /* back to {0} */

/* malloc and realloc for small host objects; they end the program when memory is exhausted. Never for tensor data. */
void *pl_allocate(size_t bytes);                 /* zeroed */
void *pl_reallocate(void *memory, size_t bytes); /* grown bytes are not zeroed */
char *pl_duplicate(const char *string);

/* Appends `data` as valid UTF-8: each invalid byte becomes U+FFFD. A sequence cut off at the end is repaired too. */
void pl_text_append_utf8(pl_text *text, const char *data, size_t length);
/* How many bytes at the end of `data` are the beginning of an unfinished UTF-8 sequence (0..3). */
size_t pl_utf8_unfinished(const char *data, size_t length);
/* Code points in `data`; invalid bytes count as one each. */
size_t pl_utf8_count(const char *data, size_t length);
/* Byte offset of code point `index` (0-based), clamped to the length. */
size_t pl_utf8_offset(const char *data, size_t length, size_t index);

#endif
