/* States of widgets, gathered from comm messages. */
#include "host/jupyter/widgets.h"
#include "host/base/base64.h"
#include "host/base/json.h"

#include <stdlib.h>
#include <string.h>

struct pl_output_widget {
  json_t *id;
  pl_outputs outputs;
  bool changed;            /* since the kernel was told */
  bool took;               /* output, since the kernel said what the widget shows */
  pl_output_widget *next;  /* of all */
  pl_output_widget *outer; /* who took the cell's output before, while this one does */
  bool taking;
};

void pl_widgets_open(pl_widgets *w) { *w = (pl_widgets){.states = json_object(), .buffers = json_object()}; }

void pl_widgets_release(pl_widgets *w) {
  for (pl_output_widget *o = w->first, *next; o; o = next) {
    next = o->next;
    json_decref(o->id);
    pl_outputs_release(&o->outputs);
    free(o);
  }
  json_decref(w->states);
  json_decref(w->buffers);
  *w = (pl_widgets){0};
}

/* ---- Output widgets ---- */

static void add_output(pl_widgets *w, json_t *id) {
  pl_output_widget *o = pl_allocate(sizeof *o);
  *o = (pl_output_widget){.id = json_incref(id), .next = w->first};
  pl_outputs_open(&o->outputs);
  w->first = o;
}

static pl_output_widget *find_output(const pl_widgets *w, const json_t *id) {
  pl_output_widget *o = w->first;
  while (o && !json_equal(o->id, id)) o = o->next;
  return o;
}

static void stop_taking(pl_widgets *w, pl_output_widget *o) {
  pl_output_widget **at = &w->taking;
  while (*at && *at != o) at = &(*at)->outer;
  if (*at) *at = o->outer;
  o->outer = NULL;
  o->taking = false;
  pl_outputs_settle(&o->outputs);
}

static void heed_message_id(pl_widgets *w, pl_output_widget *o, const char *id, const char *running) {
  if (o->taking) stop_taking(w, o);
  if (strcmp(id, running) != 0) return; /* "", or a message whose output is past */
  o->outer = w->taking;
  o->taking = true;
  w->taking = o;
}

pl_outputs *pl_widgets_taker(pl_widgets *w) {
  if (!w->taking) return NULL;
  w->taking->changed = w->taking->took = true;
  return &w->taking->outputs;
}

void pl_widgets_end_cell(pl_widgets *w) {
  while (w->taking) stop_taking(w, w->taking);
}

json_t *pl_widgets_news(pl_widgets *w) {
  pl_output_widget *o = w->first;
  while (o && !o->changed) o = o->next;
  if (!o) return NULL;
  o->changed = false;
  return json_pack("{s:O, s:{s:s, s:{s:o}, s:[]}}", "comm_id", o->id, "data", "method", "update", "state", "outputs",
                   pl_outputs_joined(&o->outputs), "buffer_paths");
}

/* ---- states ---- */

static json_t *member_of(json_t *object, const char *key) {
  json_t *member = json_object_get(object, key);
  if (!member) {
    member = json_object();
    json_object_set_new(object, key, member);
  }
  return member;
}

static void take_buffers(pl_widgets *w, const char *id, const json_t *paths, const pl_comm_message *message) {
  size_t i;
  json_t *path;
  json_array_foreach(paths, i, path) {
    if (i >= message->buffer_count) return;
    pl_text key = {0}, data = {0};
    pl_json_write(path, 0, &key);
    pl_base64_append(&data, message->buffers[i].data, message->buffers[i].length);
    json_object_set_new(member_of(w->buffers, id), key.data,
                        json_pack("{s:o, s:s, s:O}", "data",
                                  json_stringn_nocheck(data.length ? data.data : "", data.length), "encoding", "base64",
                                  "path", path));
    pl_text_release(&key);
    pl_text_release(&data);
  }
}

void pl_widgets_comm(pl_widgets *w, const pl_comm_message *message, const char *running) {
  json_t *id = json_object_get(message->content, "comm_id"), *data = json_object_get(message->content, "data");
  json_t *state = json_object_get(data, "state");
  if (!json_is_object(state)) return;
  const char *name = json_string_value(id);
  json_object_update(member_of(w->states, name), state);
  take_buffers(w, name, json_object_get(data, "buffer_paths"), message);
  const char *model = json_string_value(json_object_get(state, "_model_name"));
  bool opens = strcmp(message->type, "comm_open") == 0;
  if (opens && model && strcmp(model, "OutputModel") == 0) add_output(w, id);
  pl_output_widget *o = find_output(w, id);
  if (o && json_object_get(state, "outputs")) o->took = false;
  const char *message_id = json_string_value(json_object_get(state, "msg_id"));
  if (o && message_id) heed_message_id(w, o, message_id, running);
}

json_t *pl_widgets_metadata(const pl_widgets *w) {
  if (json_object_size(w->states) == 0) return NULL;
  for (const pl_output_widget *o = w->first; o; o = o->next)
    if (o->took)
      json_object_set_new(json_object_get(w->states, json_string_value(o->id)), "outputs",
                          pl_outputs_joined(&o->outputs));
  json_t *models = json_object(), *state, *buffer;
  const char *id, *path;
  json_object_foreach(w->states, id, state) {
    json_t *name = json_object_get(state, "_model_name");
    if (!name) continue;
    json_t *model = json_object();
    json_t *buffers = json_object_get(w->buffers, id);
    if (buffers) json_object_set_new(model, "buffers", json_array());
    json_object_foreach(buffers, path, buffer) json_array_append(json_object_get(model, "buffers"), buffer);
    json_object_set(model, "model_module", json_object_get(state, "_model_module"));
    json_object_set(model, "model_module_version", json_object_get(state, "_model_module_version"));
    json_object_set(model, "model_name", name);
    json_object_set_new(model, "state", pl_json_sorted(json_incref(state)));
    json_object_set_new(models, id, model);
  }
  return json_pack("{s:{s:o, s:i, s:i}}", "application/vnd.jupyter.widget-state+json", "state", pl_json_sorted(models),
                   "version_major", 2, "version_minor", 0);
}
