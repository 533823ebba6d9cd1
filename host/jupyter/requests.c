/* Answers to requests. To know another message type: one function and one row in the table at the end. */
#include "host/jupyter/kernel.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

static bool flag(const json_t *content, const char *name, bool otherwise) {
  const json_t *value = json_object_get(content, name);
  return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

/* The reply to a request that lacks something. */
static json_t *refuse(const char *ename, const char *evalue) {
  return json_pack("{s:s, s:s, s:s, s:[s]}", "status", "error", "ename", ename, "evalue", evalue, "traceback", evalue);
}

static json_t *kernel_info(pl_kernel *k, const pl_request *request) {
  (void)k, (void)request;
  return json_pack("{s:s, s:s, s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s}, s:s, s:[{s:s, s:s}], s:[]}", "status", "ok",
                   "protocol_version", PL_PROTOCOL, "implementation", "perilune", "implementation_version",
                   PERILUNE_VERSION, "language_info", "name", "lua", "version", pl_session_language_version(),
                   "mimetype", "text/x-lua", "file_extension", ".lua", "pygments_lexer", "lua", "codemirror_mode",
                   "lua", "banner", "Perilune " PERILUNE_VERSION " on Lua 5.4", "help_links", "text", "Lua 5.4", "url",
                   "https://www.lua.org/manual/5.4/", "supported_features");
}

/* ---- execute ---- */

typedef struct {
  const char *code;
  size_t length;
  bool silent, store, stop_on_error;
} execution;

static json_t *error_content(const pl_outcome *outcome) {
  return json_pack("{s:O, s:O, s:O}", "ename", outcome->ename, "evalue", outcome->evalue, "traceback",
                   outcome->traceback);
}

static void publish_outcome(pl_kernel *k, const execution *e, const pl_outcome *outcome) {
  if (e->silent || (outcome->ok && !outcome->data)) return;
  json_t *content = outcome->ok ? json_pack("{s:I, s:O, s:O}", "execution_count", (json_int_t)k->execution_count,
                                            "data", outcome->data, "metadata", outcome->metadata)
                                : error_content(outcome);
  pl_kernel_publish(k, outcome->ok ? "execute_result" : "error", content);
  json_decref(content);
}

static json_t *evaluate_expressions(pl_kernel *k, json_t *expressions) {
  json_t *results = json_object();
  const char *name;
  json_t *expression;
  json_object_foreach(expressions, name, expression) {
    if (!json_is_string(expression)) continue;
    pl_outcome outcome;
    pl_session_evaluate(k->session, json_string_value(expression), json_string_length(expression), &outcome);
    json_t *result = outcome.ok ? json_pack("{s:O?, s:{}}", "data", outcome.data, "metadata") : error_content(&outcome);
    json_object_set_new(result, "status", json_string(outcome.ok ? "ok" : "error"));
    json_object_set_new(results, name, result);
    pl_outcome_release(&outcome);
  }
  return results;
}

static json_t *execute_reply(pl_kernel *k, const execution *e, const pl_outcome *outcome, json_t *expressions) {
  json_t *reply;
  if (outcome->ok)
    reply = json_pack("{s:s, s:o, s:[]}", "status", "ok", "user_expressions", evaluate_expressions(k, expressions),
                      "payload");
  else {
    if (e->stop_on_error && !e->silent) pl_kernel_take_waiting(k);
    reply = error_content(outcome);
    json_object_set_new(reply, "status", json_string("error"));
  }
  json_object_set_new(reply, "execution_count", json_integer(k->execution_count));
  return reply;
}

static void store_input(pl_kernel *k, const json_t *code) {
  k->execution_count++;
  json_array_append_new(k->history, json_pack("[i, I, O]", 0, (json_int_t)k->execution_count, code));
}

static json_t *execute(pl_kernel *k, const pl_request *request) {
  const json_t *content = request->content, *code = json_object_get(content, "code");
  if (!json_is_string(code)) return refuse("ProtocolError", "execute_request: content has no string `code`");
  execution e = {.code = json_string_value(code), .length = json_string_length(code)};
  e.silent = flag(content, "silent", false);
  e.store = !e.silent && flag(content, "store_history", true);
  e.stop_on_error = flag(content, "stop_on_error", true);
  if (e.store) store_input(k, code);
  if (!e.silent) {
    json_t *input = json_pack("{s:O, s:I}", "code", code, "execution_count", (json_int_t)k->execution_count);
    pl_kernel_publish(k, "execute_input", input);
    json_decref(input);
  }
  char name[32] = "In [*]";
  if (e.store) snprintf(name, sizeof name, "In [%ld]", k->execution_count);
  pl_outcome outcome;
  pl_session_execute(k->session, e.code, e.length, name, &outcome);
  publish_outcome(k, &e, &outcome);
  json_t *reply = execute_reply(k, &e, &outcome, json_object_get(content, "user_expressions"));
  pl_outcome_release(&outcome);
  return reply;
}

/* ---- questions about code ---- */

static json_t *is_complete(pl_kernel *k, const pl_request *request) {
  static const char *const names[] = {"complete", "incomplete", "invalid"};
  const json_t *code = json_object_get(request->content, "code");
  if (!json_is_string(code)) return refuse("ProtocolError", "is_complete_request: content has no string `code`");
  pl_completeness state = pl_session_is_complete(k->session, json_string_value(code), json_string_length(code));
  json_t *reply = json_pack("{s:s}", "status", names[state]);
  if (state == PL_CODE_INCOMPLETE) json_object_set_new(reply, "indent", json_string("  "));
  return reply;
}

/* Positions in messages are code points, in the session bytes. */
static json_t *complete(pl_kernel *k, const pl_request *request) {
  const json_t *code = json_object_get(request->content, "code");
  const json_t *position = json_object_get(request->content, "cursor_pos");
  if (!json_is_string(code)) return refuse("ProtocolError", "complete_request: content has no string `code`");
  const char *text = json_string_value(code);
  size_t length = json_string_length(code), cursor = length, start;
  if (json_is_integer(position)) {
    json_int_t wanted = json_integer_value(position);
    cursor = pl_utf8_offset(text, length, wanted > 0 ? (size_t)wanted : 0);
  }
  json_t *matches = pl_session_complete(k->session, text, length, cursor, &start);
  return json_pack("{s:s, s:o, s:I, s:I, s:{}}", "status", "ok", "matches", matches, "cursor_start",
                   (json_int_t)pl_utf8_count(text, start), "cursor_end", (json_int_t)pl_utf8_count(text, cursor),
                   "metadata");
}

/* ---- history of this session ---- */

static long long integer(const json_t *content, const char *name, long long otherwise) {
  const json_t *value = json_object_get(content, name);
  return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static bool in_history(const json_t *entry, const json_t *content, const char *kind) {
  long long line = json_integer_value(json_array_get(entry, 1));
  if (strcmp(kind, "range") == 0)
    return integer(content, "session", 0) == 0 && line >= integer(content, "start", 1) &&
           line < integer(content, "stop", line + 1);
  const char *pattern = json_string_value(json_object_get(content, "pattern"));
  return strcmp(kind, "search") != 0 || !pattern ||
         fnmatch(pattern, json_string_value(json_array_get(entry, 2)), FNM_NOESCAPE) == 0;
}

static void remove_input(json_t *entries, const json_t *input) {
  for (size_t i = json_array_size(entries); i-- > 0;)
    if (json_equal(json_array_get(json_array_get(entries, i), 2), input)) json_array_remove(entries, i);
}

static json_t *history(pl_kernel *k, const pl_request *request) {
  const json_t *content = request->content;
  const char *kind = json_string_value(json_object_get(content, "hist_access_type"));
  json_t *entries = json_array(), *entry;
  size_t i;
  if (!kind) kind = "tail";
  json_array_foreach(k->history, i, entry) {
    if (!in_history(entry, content, kind)) continue;
    json_t *input = json_array_get(entry, 2);
    if (flag(content, "unique", false)) remove_input(entries, input);
    json_array_append_new(entries,
                          flag(content, "output", false)
                              ? json_pack("[O, O, [O, n]]", json_array_get(entry, 0), json_array_get(entry, 1), input)
                              : json_incref(entry));
  }
  long long last = strcmp(kind, "range") == 0 ? -1 : integer(content, "n", -1);
  while (last >= 0 && (long long)json_array_size(entries) > last) json_array_remove(entries, 0);
  return json_pack("{s:s, s:o}", "status", "ok", "history", entries);
}

/* ---- comms: this kernel opens none and knows no target ---- */

static json_t *comm_info(pl_kernel *k, const pl_request *request) {
  (void)k, (void)request;
  return json_pack("{s:s, s:{}}", "status", "ok", "comms");
}

static json_t *comm_open(pl_kernel *k, const pl_request *request) {
  json_t *id = json_object_get(request->content, "comm_id");
  if (!json_is_string(id)) return NULL;
  json_t *content = json_pack("{s:O, s:{}}", "comm_id", id, "data");
  pl_kernel_publish(k, "comm_close", content);
  json_decref(content);
  return NULL;
}

/* ---- control ---- */

static json_t *interrupt(pl_kernel *k, const pl_request *request) {
  (void)request;
  pl_session_interrupt(k->session);
  return json_pack("{s:s}", "status", "ok");
}

static json_t *shutdown(pl_kernel *k, const pl_request *request) {
  json_t *reply = json_pack("{s:s, s:b}", "status", "ok", "restart", flag(request->content, "restart", false));
  pl_publisher_send(k->publisher, "shutdown_reply", &request->header_bytes, reply); /* other front ends learn of it */
  atomic_store(&k->stopping, true);
  return reply;
}

enum { SHELL = 1 << PL_SHELL, CONTROL = 1 << PL_CONTROL };

static const pl_handler handlers[] = {
    {"kernel_info_request", "kernel_info_reply", SHELL | CONTROL, kernel_info},
    {"execute_request", "execute_reply", SHELL | PL_SPEAKS, execute},
    {"is_complete_request", "is_complete_reply", SHELL, is_complete},
    {"complete_request", "complete_reply", SHELL, complete},
    {"history_request", "history_reply", SHELL, history},
    {"comm_info_request", "comm_info_reply", SHELL | CONTROL, comm_info},
    {"comm_open", NULL, SHELL | PL_SPEAKS, comm_open},
    {"interrupt_request", "interrupt_reply", SHELL | CONTROL, interrupt},
    {"shutdown_request", "shutdown_reply", SHELL | CONTROL, shutdown},
};

const pl_handler *pl_handler_find(const char *type, pl_channel channel) {
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    if (strcmp(handlers[i].type, type) == 0) return handlers[i].channels & (1u << channel) ? &handlers[i] : NULL;
  return NULL;
}
