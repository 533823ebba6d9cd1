/* Collecting the outputs of a cell. */
#include "host/jupyter/outputs.h"

#include <string.h>

void pl_outputs_open(pl_outputs *o) { *o = (pl_outputs){.cells = json_object(), .outputs = json_array()}; }

void pl_outputs_release(pl_outputs *o) {
  json_decref(o->cells);
  json_decref(o->outputs);
  pl_text_release(&o->tail);
  *o = (pl_outputs){0};
}

json_t *pl_outputs_begin(pl_outputs *o) {
  json_decref(o->outputs);
  o->clear_next = false;
  return o->outputs = json_array();
}

static void forget(json_t *shown, const json_t *output) {
  for (size_t i = json_array_size(shown); i-- > 0;)
    if (json_array_get(shown, i) == output) json_array_remove(shown, i);
}

/* Takes the cell's outputs away; updates pass them over from now on. */
static void clear_outputs(pl_outputs *o) {
  size_t i;
  json_t *output, *shown;
  const char *id;
  json_array_foreach(o->outputs, i, output) json_object_foreach(o->cells, id, shown) forget(shown, output);
  json_array_clear(o->outputs);
}

/* What a clear_output left to the next output. */
static void clear_if_due(pl_outputs *o) {
  if (o->clear_next) clear_outputs(o);
  o->clear_next = false;
}

static void add(pl_outputs *o, json_t *output) {
  clear_if_due(o);
  json_array_append_new(o->outputs, output);
}

/* The length of the line that `text` begins with, its end included. Lines end where Python's str.splitlines, which
 * writes Jupyter's files, lets them end. */
static size_t line_length(const char *text, size_t length) {
  static const char *const ends[] = {"\r\n", "\n",   "\r",       "\v",           "\f",          "\x1c",
                                     "\x1d", "\x1e", "\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xa9"};
  for (size_t at = 0; at < length; at++) {
    unsigned char c = (unsigned char)text[at];
    if (c > 0x1e && c != 0xc2 && c != 0xe2) continue;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
      size_t bytes = strlen(ends[i]);
      if (length - at >= bytes && memcmp(text + at, ends[i], bytes) == 0) return at + bytes;
    }
  }
  return length;
}

/* Text as files keep it: an array of lines, each with its end. */
static json_t *split_lines(const char *text, size_t length) {
  json_t *lines = json_array();
  while (length > 0) {
    size_t line = line_length(text, length);
    json_array_append_new(lines, json_stringn_nocheck(text, line));
    text += line;
    length -= line;
  }
  return lines;
}

/* The types whose texts Jupyter's files hold as lines. */
static bool is_split(const char *type) {
  return strncmp(type, "text/", 5) == 0 || strcmp(type, "application/javascript") == 0 ||
         strcmp(type, "image/svg+xml") == 0;
}

static json_t *file_bundle(const json_t *data) {
  json_t *bundle = json_object(), *value;
  const char *type;
  json_object_foreach((json_t *)data, type, value) {
    bool text = json_is_string(value) && is_split(type);
    json_object_set_new(bundle, type,
                        text ? split_lines(json_string_value(value), json_string_length(value)) : json_incref(value));
  }
  return bundle;
}

/* ---- streams ---- */

/* Adds lines to the array `lines`; only its last one can grow, so that long outputs stay cheap. */
static void extend_lines(json_t *lines, const pl_text *text) {
  pl_text whole = {0};
  size_t count = json_array_size(lines);
  const json_t *last = json_array_get(lines, count - 1);
  size_t length = json_string_length(last);
  if (length > 0 && json_string_value(last)[length - 1] != '\n') {
    pl_text_append(&whole, json_string_value(last), length);
    json_array_remove(lines, count - 1);
  }
  pl_text_append(&whole, text->data, text->length);
  json_t *more = split_lines(whole.data, whole.length);
  json_array_extend(lines, more);
  json_decref(more);
  pl_text_release(&whole);
}

static void add_text(pl_outputs *o, const char *name, const char *data, size_t length) {
  if (length == 0) return;
  pl_text valid = {0};
  pl_text_append_utf8(&valid, data, length);
  clear_if_due(o);
  json_t *last = json_array_get(o->outputs, json_array_size(o->outputs) - 1);
  const char *last_name = json_string_value(json_object_get(last, "name"));
  if (last_name && strcmp(last_name, name) == 0)
    extend_lines(json_object_get(last, "text"), &valid);
  else
    json_array_append_new(o->outputs, json_pack("{s:s, s:s, s:o}", "name", name, "output_type", "stream", "text",
                                                split_lines(valid.data, valid.length)));
  pl_text_release(&valid);
}

/* Nothing more comes for the unfinished sequence: it is repaired. */
static void end_tail(pl_outputs *o) {
  if (o->tail.length) add_text(o, o->tail_name, o->tail.data, o->tail.length);
  pl_text_clear(&o->tail);
}

void pl_outputs_stream(pl_outputs *o, const char *name, const char *data, size_t length) {
  name = strcmp(name, "stderr") == 0 ? "stderr" : "stdout";
  if (o->tail.length && o->tail_name != name) end_tail(o);
  pl_text bytes = o->tail;
  o->tail = (pl_text){0};
  o->tail_name = name;
  pl_text_append(&bytes, data, length);
  size_t held = pl_utf8_unfinished(bytes.data, bytes.length);
  add_text(o, name, bytes.data, bytes.length - held);
  pl_text_append(&o->tail, bytes.data + bytes.length - held, held);
  pl_text_release(&bytes);
}

/* ---- displays ---- */

static json_t *display_output(const json_t *content) {
  const json_t *metadata = json_object_get(content, "metadata");
  return json_pack("{s:o, s:o, s:s}", "data", file_bundle(json_object_get(content, "data")), "metadata",
                   metadata ? json_deep_copy(metadata) : json_object(), "output_type", "display_data");
}

static const char *display_id(const json_t *content) {
  return json_string_value(json_object_get(json_object_get(content, "transient"), "display_id"));
}

/* Remembers an output under its id, for updates. */
static void remember(pl_outputs *o, const char *id, json_t *output) {
  json_t *same = json_object_get(o->cells, id);
  if (!same) {
    same = json_array();
    json_object_set_new(o->cells, id, same);
  }
  json_array_append(same, output);
}

static void update(pl_outputs *o, const json_t *content) {
  const char *id = display_id(content);
  if (!id) return;
  json_t *new = display_output(content), *output;
  size_t i;
  json_array_foreach(json_object_get(o->cells, id), i, output) {
    json_object_set(output, "data", json_object_get(new, "data"));
    json_object_set(output, "metadata", json_object_get(new, "metadata"));
  }
  json_decref(new);
}

/* A display under an id that is shown already also replaces what is shown. */
static void show(pl_outputs *o, const json_t *content) {
  const char *id = display_id(content);
  update(o, content);
  json_t *output = display_output(content);
  add(o, output);
  if (id) remember(o, id, output);
}

static void clear(pl_outputs *o, const json_t *content) {
  o->clear_next = json_is_true(json_object_get(content, "wait"));
  if (!o->clear_next) clear_outputs(o);
}

void pl_outputs_display(pl_outputs *o, const char *type, const json_t *content) {
  static const struct {
    const char *type;
    void (*take)(pl_outputs *, const json_t *);
  } kinds[] = {{"display_data", show}, {"update_display_data", update}, {"clear_output", clear}};
  end_tail(o);
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(type, kinds[i].type) == 0) kinds[i].take(o, content);
}

json_t *pl_coloured_traceback(const pl_outcome *outcome) {
  static const char red[] = "\x1b[1;31m", plain[] = "\x1b[0m";
  const json_t *message = json_array_get(outcome->traceback, 0);
  json_t *lines = json_copy(outcome->traceback);
  pl_text coloured = {0};
  pl_text_append(&coloured, red, sizeof red - 1);
  pl_text_append(&coloured, json_string_value(message), json_string_length(message));
  pl_text_append(&coloured, plain, sizeof plain - 1);
  json_array_set_new(lines, 0, json_stringn_nocheck(coloured.data, coloured.length));
  pl_text_release(&coloured);
  return lines;
}

void pl_outputs_outcome(pl_outputs *o, const pl_outcome *outcome, long execution_count) {
  end_tail(o);
  if (!outcome->ok)
    add(o, json_pack("{s:O, s:O, s:s, s:o}", "ename", outcome->ename, "evalue", outcome->evalue, "output_type", "error",
                     "traceback", pl_coloured_traceback(outcome)));
  else if (outcome->data)
    add(o, json_pack("{s:o, s:I, s:O, s:s}", "data", file_bundle(outcome->data), "execution_count",
                     (json_int_t)execution_count, "metadata", outcome->metadata, "output_type", "execute_result"));
}
