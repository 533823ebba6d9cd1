/* JSON writer. */
#include "host/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int indent, depth;
  pl_text *text;
} writer;

static void write_value(writer *w, const json_t *value);

static void write_string(pl_text *text, const char *data, size_t length) {
  pl_text_append(text, "\"", 1);
  size_t start = 0;
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)data[i];
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    pl_text_append(text, data + start, i - start);
    start = i + 1;
    static const char digits[] = "0123456789abcdef", plain[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    const char *found = c ? strchr(plain, c) : NULL;
    if (found)
      pl_text_append(text, (char[]){'\\', letters[found - plain]}, 2);
    else
      pl_text_append(text, (char[]){'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]}, 6);
  }
  pl_text_append(text, data + start, length - start);
  pl_text_append(text, "\"", 1);
}

static void write_real(pl_text *text, double number) {
  char digits[40];
  for (int precision = 15; precision <= 17; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, number);
    if (strtod(digits, NULL) == number) break;
  }
  /* Exponents from 16 digits on, as Python does; %g begins one earlier. */
  if (strchr(digits, 'e') && fabs(number) >= 1e15 && fabs(number) < 1e16)
    snprintf(digits, sizeof digits, "%.0f", number);
  pl_text_print(text, strpbrk(digits, ".en") ? "%s" : "%s.0", digits);
}

static void new_line(writer *w) {
  if (w->indent) pl_text_print(w->text, "\n%*s", w->indent * w->depth, "");
}

/* Between two items: after the first one a comma; compact text keeps a space for the eye. */
static void separate(writer *w, size_t index) {
  if (index) pl_text_append(w->text, ", ", w->indent ? 1 : 2);
  new_line(w);
}

static void write_array(writer *w, const json_t *array) {
  size_t size = json_array_size(array);
  pl_text_append(w->text, "[", 1);
  w->depth++;
  for (size_t i = 0; i < size; i++) {
    separate(w, i);
    write_value(w, json_array_get(array, i));
  }
  w->depth--;
  if (size) new_line(w);
  pl_text_append(w->text, "]", 1);
}

static void write_object(writer *w, const json_t *object) {
  json_t *items = (json_t *)object;
  size_t count = 0;
  pl_text_append(w->text, "{", 1);
  w->depth++;
  for (void *at = json_object_iter(items); at; at = json_object_iter_next(items, at)) {
    separate(w, count++);
    write_string(w->text, json_object_iter_key(at), json_object_iter_key_len(at));
    pl_text_append(w->text, ": ", 2);
    write_value(w, json_object_iter_value(at));
  }
  w->depth--;
  if (count) new_line(w);
  pl_text_append(w->text, "}", 1);
}

static void write_value(writer *w, const json_t *value) {
  switch (json_typeof(value)) {
  case JSON_OBJECT:
    write_object(w, value);
    break;
  case JSON_ARRAY:
    write_array(w, value);
    break;
  case JSON_STRING:
    write_string(w->text, json_string_value(value), json_string_length(value));
    break;
  case JSON_INTEGER:
    pl_text_print(w->text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    break;
  case JSON_REAL:
    write_real(w->text, json_real_value(value));
    break;
  case JSON_TRUE:
    pl_text_append(w->text, "true", 4);
    break;
  case JSON_FALSE:
    pl_text_append(w->text, "false", 5);
    break;
  case JSON_NULL:
    pl_text_append(w->text, "null", 4);
    break;
  }
}

void pl_json_write(const json_t *value, int indent, pl_text *text) {
  writer w = {.indent = indent, .text = text};
  write_value(&w, value);
}

/* ---- order ---- */

static int by_key(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

json_t *pl_json_sorted(json_t *object) {
  size_t count = json_object_size(object), i = 0;
  const char **keys = pl_allocate(count * sizeof *keys);
  json_t *sorted = json_object();
  for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at))
    keys[i++] = json_object_iter_key(at);
  qsort(keys, count, sizeof *keys, by_key);
  for (i = 0; i < count; i++) json_object_set_nocheck(sorted, keys[i], json_object_get(object, keys[i]));
  free(keys);
  json_decref(object);
  return sorted;
}
