/* Growing byte strings and UTF-8. */
#include "host/base/text.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void exhausted(size_t bytes) {
  fprintf(stderr, "perilune: out of host memory (%zu bytes)\n", bytes);
  exit(1);
}

void *pl_allocate(size_t bytes) {
  void *memory = calloc(1, bytes ? bytes : 1);
  if (!memory) exhausted(bytes);
  return memory;
}

void *pl_reallocate(void *memory, size_t bytes) {
  memory = realloc(memory, bytes ? bytes : 1);
  if (!memory) exhausted(bytes);
  return memory;
}

char *pl_duplicate(const char *string) {
  size_t bytes = strlen(string) + 1;
  return memcpy(pl_allocate(bytes), string, bytes);
}

static void reserve(pl_text *text, size_t more) {
  size_t needed = text->length + more + 1;
  if (needed <= text->capacity) return;
  size_t capacity = text->capacity ? text->capacity : 64;
  while (capacity < needed) capacity *= 2;
  text->data = pl_reallocate(text->data, capacity);
  text->capacity = capacity;
}

void pl_text_append(pl_text *text, const char *data, size_t length) {
  reserve(text, length);
  if (length) memcpy(text->data + text->length, data, length);
  text->length += length;
  text->data[text->length] = 0;
}

void pl_text_print(pl_text *text, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  char most[256]; /* of what is written fits: it is formatted once */
  int length = vsnprintf(most, sizeof most, format, arguments);
  if (length >= 0 && (size_t)length < sizeof most)
    pl_text_append(text, most, (size_t)length);
  else if (length >= 0) {
    reserve(text, (size_t)length);
    vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
    text->length += (size_t)length;
  }
  va_end(again);
  va_end(arguments);
}

bool pl_text_equal(const pl_text *a, const pl_text *b) {
  return a->length == b->length && (a->length == 0 || memcmp(a->data, b->data, a->length) == 0);
}

void pl_text_clear(pl_text *text) {
  text->length = 0;
  if (text->data) text->data[0] = 0;
}

void pl_text_release(pl_text *text) {
  free(text->data);
  *text = (pl_text){0};
}

/* Length of the valid sequence at `s` (1..4), or 0 when the bytes there are not UTF-8. Sets *cut when they are a proper
 * beginning that the end of the data cuts off. */
static size_t sequence(const unsigned char *s, size_t left, bool *cut) {
  *cut = false;
  if (s[0] < 0x80) return 1;
  if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
  size_t length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; i++) {
    if (i == left) {
      *cut = true;
      return 0;
    }
    /* Overlong forms, surrogates and values past U+10FFFF show in the second byte. */
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1) {
      if (s[0] == 0xE0) low = 0xA0;
      if (s[0] == 0xED) high = 0x9F;
      if (s[0] == 0xF0) low = 0x90;
      if (s[0] == 0xF4) high = 0x8F;
    }
    if (s[i] < low || s[i] > high) return 0;
  }
  return length;
}

/* How many bytes at the beginning of `s` are ASCII, in whole words. */
static size_t ascii_words(const char *s, size_t length) {
  uint64_t word;
  size_t at = 0;
  for (; at + sizeof word <= length; at += sizeof word) {
    memcpy(&word, s + at, sizeof word);
    if (word & 0x8080808080808080u) break;
  }
  return at;
}

void pl_text_append_utf8(pl_text *text, const char *data, size_t length) {
  size_t start = 0, i = 0;
  bool cut;
  while ((i += ascii_words(data + i, length - i)) < length) {
    size_t step = sequence((const unsigned char *)data + i, length - i, &cut);
    if (step == 0) {
      pl_text_append(text, data + start, i - start);
      pl_text_append(text, "\xEF\xBF\xBD", 3);
      start = i = i + 1;
    } else
      i += step;
  }
  pl_text_append(text, data + start, length - start);
}

size_t pl_utf8_unfinished(const char *data, size_t length) {
  bool cut;
  for (size_t back = 1; back <= 3 && back <= length; back++) {
    sequence((const unsigned char *)data + length - back, back, &cut);
    if (cut) return back;
  }
  return 0;
}

static size_t next(const char *data, size_t length, size_t at) {
  bool cut;
  size_t step = sequence((const unsigned char *)data + at, length - at, &cut);
  return at + (step ? step : 1);
}

size_t pl_utf8_count(const char *data, size_t length) {
  size_t count = 0;
  for (size_t i = 0; i < length; i = next(data, length, i)) count++;
  return count;
}

size_t pl_utf8_offset(const char *data, size_t length, size_t index) {
  size_t i = 0;
  while (index-- > 0 && i < length) i = next(data, length, i);
  return i;
}
