/* Reading and changing the text of a notebook. */
#include "host/jupyter/notebook_file.h"
#include "host/base/file.h"
#include "host/base/json.h"
#include "host/base/uuid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MINOR_WITH_IDS = 5 }; /* of nbformat 4; older notebooks stay without, as Jupyter leaves them */

/* ---- reading ---- */

/* The value in the span; NULL with a message when jansson cannot hold it, as a lone surrogate. */
static json_t *value_of(const pl_text *text, pl_json_span span, pl_status *status, const char *what) {
  json_error_t error;
  json_t *value = json_loadb(text->data + span.begin, span.end - span.begin, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
  if (!value) *status = PL_FAIL("has a %s that cannot be read: %s", what, error.text);
  return value;
}

/* The member's value, NULL when there is none or it cannot be read; the latter also fails. */
static json_t *member(const pl_text *text, pl_json_span object, const char *key, pl_status *status) {
  pl_json_span span;
  return pl_json_find(text, object, key, &span) ? value_of(text, span, status, key) : NULL;
}

/* The text of a cell: one string or an array of them. */
static bool join_source(const json_t *source, pl_text *code) {
  size_t i;
  json_t *line;
  pl_text_append(code, "", 0);
  if (json_is_string(source)) pl_text_append(code, json_string_value(source), json_string_length(source));
  json_array_foreach((json_t *)source, i, line) {
    if (!json_is_string(line)) return false;
    pl_text_append(code, json_string_value(line), json_string_length(line));
  }
  return json_is_string(source) || json_is_array(source);
}

static pl_status read_cell(const pl_text *text, pl_notebook_cell *cell) {
  pl_status status = PL_OK;
  json_t *type = member(text, cell->place, "cell_type", &status);
  cell->code = json_is_string(type) && strcmp(json_string_value(type), "code") == 0;
  json_decref(type);
  json_t *source = member(text, cell->place, "source", &status);
  bool readable = join_source(source, &cell->source);
  json_decref(source);
  PL_TRY(status);
  PL_REQUIRE(readable, "has no source text");
  pl_json_span metadata;
  if (pl_json_find(text, cell->place, "metadata", &metadata)) cell->tags = member(text, metadata, "tags", &status);
  return status;
}

static pl_status read_cells(pl_notebook_file *file, pl_json_span cells, const char *path) {
  size_t capacity = 0;
  for (pl_json_walk w = pl_json_walk_in(&file->text, cells); pl_json_walk_next(&w);) {
    if (file->count == capacity) {
      capacity = capacity ? 2 * capacity : 64;
      file->cells = pl_reallocate(file->cells, capacity * sizeof *file->cells);
    }
    pl_notebook_cell *cell = &file->cells[file->count++];
    *cell = (pl_notebook_cell){.place = w.value};
    if (read_cell(&file->text, cell) != PL_OK)
      return PL_FAIL("notebook '%s': cell %zu %s", path, file->count, pl_message_text());
  }
  return PL_OK;
}

static pl_status check_language(const pl_notebook_file *file, const char *path) {
  static const char *const places[][2] = {{"kernelspec", "language"}, {"language_info", "name"}};
  pl_json_span metadata, place;
  if (!pl_json_find(&file->text, file->object, "metadata", &metadata)) return PL_OK;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    if (!pl_json_find(&file->text, metadata, places[i][0], &place)) continue;
    pl_status status = PL_OK;
    json_t *language = member(&file->text, place, places[i][1], &status);
    if (!json_is_string(language)) {
      json_decref(language);
      continue;
    }
    if (strcmp(json_string_value(language), "lua") != 0)
      status = PL_FAIL("notebook '%s' is written in %s, not in lua", path, json_string_value(language));
    json_decref(language);
    return status;
  }
  return PL_OK;
}

static pl_status read_notebook(pl_notebook_file *file, const char *path) {
  if (pl_json_text_check(&file->text, &file->object) != PL_OK)
    return PL_FAIL("'%s' is not a whole notebook: %s", path, pl_message_text());
  pl_status status = PL_OK;
  json_t *version = member(&file->text, file->object, "nbformat", &status);
  long long number = json_is_integer(version) ? json_integer_value(version) : -1;
  json_decref(version);
  PL_REQUIRE(status == PL_OK && number >= 0, "'%s' is no notebook: it has no nbformat", path);
  PL_REQUIRE(number == 4, "notebook '%s' has nbformat %lld; 4 is expected", path, number);
  pl_json_span cells;
  bool found = pl_json_find(&file->text, file->object, "cells", &cells);
  PL_REQUIRE(found && file->text.data[cells.begin] == '[', "notebook '%s' has no array of cells", path);
  PL_TRY(read_cells(file, cells, path));
  return check_language(file, path);
}

pl_status pl_notebook_file_read(const char *path, pl_notebook_file *file) {
  *file = (pl_notebook_file){0};
  pl_status status = pl_file_read(path, &file->text);
  if (status == PL_OK) status = read_notebook(file, path);
  if (status != PL_OK) pl_notebook_file_release(file);
  return status;
}

void pl_notebook_file_release(pl_notebook_file *file) {
  for (size_t i = 0; i < file->count; i++) {
    pl_text_release(&file->cells[i].source);
    json_decref(file->cells[i].tags);
    json_decref(file->cells[i].outputs);
  }
  free(file->cells);
  pl_text_release(&file->text);
  *file = (pl_notebook_file){0};
}

bool pl_notebook_cell_has_tag(const pl_notebook_cell *cell, const char *tag) {
  size_t i;
  json_t *item;
  json_array_foreach(cell->tags, i, item) {
    if (json_is_string(item) && strcmp(json_string_value(item), tag) == 0) return true;
  }
  return false;
}

/* ---- changes ---- */

typedef struct {
  pl_json_span place; /* what is replaced; empty where something is put in */
  size_t order;       /* among those put in at one place */
  pl_text text;
} change;

typedef struct {
  const pl_text *text;
  pl_text unit, colon; /* by which a level is indented, and what stands between a key and its value */
  change *list;
  size_t count, capacity;
} changes;

static change *new_change(changes *c, size_t begin, size_t end) {
  if (c->count == c->capacity) {
    c->capacity = c->capacity ? 2 * c->capacity : 64;
    c->list = pl_reallocate(c->list, c->capacity * sizeof *c->list);
  }
  c->list[c->count] = (change){.place = {begin, end}, .order = c->count};
  return &c->list[c->count++];
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* The blanks that end before `end`. */
static pl_json_span blank_before(const pl_text *text, size_t end) {
  size_t begin = end;
  while (begin > 0 && is_blank(text->data[begin - 1])) begin--;
  return (pl_json_span){begin, end};
}

/* The last line end of the blanks and what follows it: how a line of this depth begins. Empty in compact text. */
static pl_json_span line_start(const pl_text *text, pl_json_span blank) {
  size_t begin = blank.end;
  while (begin > blank.begin && text->data[begin - 1] != '\n') begin--;
  if (begin == blank.begin) return (pl_json_span){blank.end, blank.end};
  begin--;
  if (begin > blank.begin && text->data[begin - 1] == '\r') begin--;
  return (pl_json_span){begin, blank.end};
}

/* Takes over the file's style from its first member. */
static void learn_style(changes *c, pl_json_span object) {
  pl_json_walk w = pl_json_walk_in(c->text, object);
  pl_json_walk_next(&w);
  pl_json_span start = line_start(c->text, blank_before(c->text, w.key.begin));
  const char *data = c->text->data + start.begin;
  size_t line_end = strspn(data, "\r\n");
  pl_text_append(&c->unit, data + line_end, start.end - start.begin - line_end);
  pl_text_append(&c->colon, c->text->data + w.key.end, w.value.begin - w.key.end);
}

/* Appends the value as it stands behind a line that begins with `start`. */
static void write_value(const changes *c, pl_json_span start, const json_t *value, pl_text *text) {
  pl_text plain = {0};
  bool pretty = start.end > start.begin;
  pl_json_write(value, pretty ? 1 : 0, &plain);
  for (const char *at = plain.data, *end; *at; at = end) {
    if (*at == '\n') {
      pl_text_append(text, c->text->data + start.begin, start.end - start.begin);
      for (at++; *at == ' '; at++) pl_text_append(text, c->unit.data, c->unit.length);
    }
    end = at + strcspn(at, "\n");
    pl_text_append(text, at, (size_t)(end - at));
  }
  pl_text_release(&plain);
}

static void write_member(const changes *c, pl_json_span start, const char *key, const json_t *value, pl_text *text) {
  pl_text_print(text, "\"%s\"", key);
  pl_text_append(text, c->colon.data, c->colon.length);
  write_value(c, start, value, text);
}

static int compare_key(const pl_text *text, pl_json_span key, const char *with) {
  size_t length = key.end - key.begin - 2, other = strlen(with);
  int order = memcmp(text->data + key.begin + 1, with, length < other ? length : other);
  return order ? order : (length > other) - (length < other);
}

/* Sets a member of an object that is not empty; takes over `value`. A new key is put before the first greater one,
 * which is its place in files that Jupyter wrote, for they are sorted. */
static void set_member(changes *c, pl_json_span object, const char *key, json_t *value) {
  pl_json_span found = {0, 0}, greater = {0, 0}, last = {0, 0}, first = {0, 0}, place;
  size_t last_end = 0;
  bool exists = pl_json_find(c->text, object, key, &place);
  for (pl_json_walk w = pl_json_walk_in(c->text, object); pl_json_walk_next(&w);) {
    int order = compare_key(c->text, w.key, key);
    if (order == 0) found = w.key;
    if (order > 0 && greater.end == 0) greater = w.key;
    if (first.end == 0) first = w.key;
    last = w.key;
    last_end = w.value.end;
  }
  if (exists) {
    pl_json_span start = line_start(c->text, blank_before(c->text, found.begin));
    change *new = new_change(c, place.begin, place.end);
    write_value(c, start, value, &new->text);
  } else if (greater.end) {
    pl_json_span blank = blank_before(c->text, greater.begin);
    change *new = new_change(c, greater.begin, greater.begin);
    write_member(c, line_start(c->text, blank), key, value, &new->text);
    pl_text_append(&new->text, ",", 1);
    if (greater.begin == first.begin && blank.begin == blank.end) /* compact: commas are spaced as colons are */
      pl_text_print(&new->text, "%s", strchr(c->colon.data, ':') + 1);
    pl_text_append(&new->text, c->text->data + blank.begin, blank.end - blank.begin);
  } else {
    pl_json_span blank = blank_before(c->text, last.begin);
    change *new = new_change(c, last_end, last_end);
    pl_text_append(&new->text, ",", 1);
    pl_text_append(&new->text, c->text->data + blank.begin, blank.end - blank.begin);
    write_member(c, line_start(c->text, blank), key, value, &new->text);
  }
  json_decref(value);
}

static bool is_empty(const pl_text *text, pl_json_span container) {
  pl_json_walk w = pl_json_walk_in(text, container);
  return !pl_json_walk_next(&w);
}

/* Sets a member of the metadata, unless it has this value. */
static void change_metadata(changes *c, pl_json_span metadata, const char *key, json_t *value) {
  json_t *old = NULL;
  pl_json_span place;
  pl_status status = PL_OK;
  if (pl_json_find(c->text, metadata, key, &place)) old = value_of(c->text, place, &status, key);
  if (!json_equal(old, value)) set_member(c, metadata, key, json_incref(value));
  json_decref(old);
}

static void change_all_metadata(changes *c, pl_json_span object, json_t *language_info, json_t *widgets) {
  pl_json_span metadata;
  bool found = pl_json_find(c->text, object, "metadata", &metadata);
  if (!found || c->text->data[metadata.begin] != '{' || is_empty(c->text, metadata)) {
    json_t *new = json_pack("{s:O, s:O*}", "language_info", language_info, "widgets", widgets);
    set_member(c, object, "metadata", new);
    return;
  }
  change_metadata(c, metadata, "language_info", language_info);
  if (widgets) change_metadata(c, metadata, "widgets", widgets);
}

/* Gives the cell an id where it has none, or one that is among `ids` already. */
static void change_id(changes *c, pl_json_span cell, json_t *ids) {
  pl_json_span place;
  pl_text id = {0};
  bool found = pl_json_find(c->text, cell, "id", &place);
  if (found) pl_text_append(&id, c->text->data + place.begin, place.end - place.begin);
  if (!found || json_object_get(ids, id.data)) {
    char fresh[PL_UUID_BYTES];
    pl_uuid(fresh);
    fresh[8] = 0; /* as long as nbformat makes them */
    set_member(c, cell, "id", json_string(fresh));
    pl_text_clear(&id);
    pl_text_print(&id, "\"%s\"", fresh);
  }
  json_object_set_new_nocheck(ids, id.data, json_true());
  pl_text_release(&id);
}

/* Whether the notebook is of a version in which cells have ids; one that names no version becomes so. */
static bool has_ids(changes *c, pl_json_span object) {
  pl_status status = PL_OK;
  json_t *minor = member(c->text, object, "nbformat_minor", &status);
  bool known = json_is_integer(minor), ids = !known || json_integer_value(minor) >= MINOR_WITH_IDS;
  json_decref(minor);
  if (!known) set_member(c, object, "nbformat_minor", json_integer(MINOR_WITH_IDS));
  return ids;
}

static void change_all(changes *c, const pl_notebook_file *file, json_t *language_info, json_t *widgets) {
  json_t *ids = json_object();
  learn_style(c, file->object);
  bool with_ids = has_ids(c, file->object);
  for (size_t i = 0; i < file->count; i++) {
    const pl_notebook_cell *cell = &file->cells[i];
    if (cell->outputs) set_member(c, cell->place, "execution_count", json_integer(cell->execution_count));
    if (with_ids) change_id(c, cell->place, ids);
    if (cell->outputs) set_member(c, cell->place, "outputs", json_incref(cell->outputs));
  }
  change_all_metadata(c, file->object, language_info, widgets);
  json_decref(ids);
}

/* ---- writing ---- */

static int by_place(const void *a, const void *b) {
  const change *one = a, *other = b;
  if (one->place.begin != other->place.begin) return one->place.begin < other->place.begin ? -1 : 1;
  return (one->order > other->order) - (one->order < other->order);
}

/* The pieces of old and new text, one after the other; a line end closes the file. */
static pl_status write_pieces(const changes *c, const char *path) {
  pl_piece *pieces = pl_allocate((2 * c->count + 2) * sizeof *pieces);
  const char *old = c->text->data;
  size_t at = 0;
  int count = 0;
  for (size_t i = 0; i < c->count; i++) {
    const change *new = &c->list[i];
    pieces[count++] = (pl_piece){old + at, new->place.begin - at};
    pieces[count++] = (pl_piece){new->text.data, new->text.length};
    at = new->place.end;
  }
  pieces[count++] = (pl_piece){old + at, c->text->length - at};
  if (old[c->text->length - 1] != '\n') pieces[count++] = (pl_piece){"\n", 1};
  pl_status status = pl_file_write(path, pieces, count);
  free(pieces);
  return status;
}

pl_status pl_notebook_file_write(const pl_notebook_file *file, const char *path, json_t *language_info,
                                 json_t *widgets) {
  changes c = {.text = &file->text};
  change_all(&c, file, language_info, widgets);
  qsort(c.list, c.count, sizeof *c.list, by_place);
  pl_status status = write_pieces(&c, path);
  for (size_t i = 0; i < c.count; i++) pl_text_release(&c.list[i].text);
  free(c.list);
  pl_text_release(&c.unit);
  pl_text_release(&c.colon);
  return status;
}
