/* Answers to requests. To know another message type: one function and one row in the table at the end. */
#include "host/jupyter/kernel.h"
#include "host/jupyter/language.h"
#include "host/jupyter/outputs.h"

#include <stdint.h>
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
  return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:[{s:s, s:s}], s:[s], s:b}", "status", "ok", "protocol_version",
                   PL_PROTOCOL, "implementation", "perilune", "implementation_version", PERILUNE_VERSION,
                   "language_info", pl_language_info(), "banner", "Perilune " PERILUNE_VERSION " on Lua 5.4",
                   "help_links", "text", "Lua 5.4", "url", "https://www.lua.org/manual/5.4/", "supported_features",
                   "debugger", "debugger", 1); /* as it was said before 5.5 */
}

static json_t *connect(pl_kernel *k, const pl_request *request) {
  (void)request;
  json_t *reply = json_pack("{s:s}", "status", "ok");
  for (int i = 0; i < PL_CHANNELS; i++)
    json_object_set_new(reply, pl_port_fields[i], json_integer(k->connection.port[i]));
  return reply;
}

/* ---- execute ---- */

typedef struct {
  const char *code;
  size_t length;
  bool silent, store, stop_on_error;
} execution;

static void publish_outcome(pl_kernel *k, const execution *e, const pl_outcome *outcome) {
  if (e->silent || (outcome->ok && !outcome->data)) return;
  json_t *content = outcome->ok ? json_pack("{s:I, s:O, s:O}", "execution_count", (json_int_t)k->execution_count,
                                            "data", outcome->data, "metadata", outcome->metadata)
                                : pl_outcome_error(outcome);
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
    json_t *result =
        outcome.ok ? json_pack("{s:O?, s:{}}", "data", outcome.data, "metadata") : pl_outcome_error(&outcome);
    json_object_set_new(result, "status", json_string(outcome.ok ? "ok" : "error"));
    json_object_set_new(results, name, result);
    pl_outcome_release(&outcome);
  }
  return results;
}

static json_t *execute_reply(pl_kernel *k, const execution *e, const pl_outcome *outcome, json_t *expressions) {
  json_t *reply;
  if (outcome->ok)
    reply = json_pack("{s:s, s:o, s:O}", "status", "ok", "user_expressions", evaluate_expressions(k, expressions),
                      "payload", k->payload);
  else {
    if (e->stop_on_error && !e->silent) pl_kernel_take_waiting(k);
    reply = pl_outcome_error(outcome);
    json_object_set_new(reply, "status", json_string("error"));
  }
  json_object_set_new(reply, "execution_count", json_integer(k->execution_count));
  return reply;
}

static void store_input(pl_kernel *k, const json_t *code) {
  k->execution_count++;
  pl_history_add(k->history, k->execution_count, code);
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
  json_array_clear(k->payload);
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
  pl_text indent = {0};
  pl_completeness state =
      pl_session_is_complete(k->session, json_string_value(code), json_string_length(code), &indent);
  json_t *reply = json_pack("{s:s}", "status", names[state]);
  if (state == PL_CODE_INCOMPLETE) json_object_set_new(reply, "indent", json_stringn(indent.data, indent.length));
  pl_text_release(&indent);
  return reply;
}

/* The byte that the cursor of a request lies before: positions in messages are code points, in the session bytes. One
 * outside the code counts as the nearest inside, one that is missing as the end. */
static size_t cursor_of(const json_t *content, const json_t *code) {
  const json_t *position = json_object_get(content, "cursor_pos");
  size_t length = json_string_length(code);
  if (!json_is_integer(position)) return length;
  json_int_t wanted = json_integer_value(position);
  return pl_utf8_offset(json_string_value(code), length, wanted > 0 ? (size_t)wanted : 0);
}

static json_t *complete(pl_kernel *k, const pl_request *request) {
  const json_t *code = json_object_get(request->content, "code");
  if (!json_is_string(code)) return refuse("ProtocolError", "complete_request: content has no string `code`");
  const char *text = json_string_value(code);
  size_t cursor = cursor_of(request->content, code), start, i;
  json_t *typed = pl_session_complete(k->session, text, json_string_length(code), cursor, &start), *one;
  json_int_t from = (json_int_t)pl_utf8_count(text, start), to = (json_int_t)pl_utf8_count(text, cursor);
  json_t *matches = json_array();
  json_array_foreach(typed, i, one) {
    json_array_append(matches, json_object_get(one, "text"));
    json_object_set_new(one, "start", json_integer(from));
    json_object_set_new(one, "end", json_integer(to));
  }
  return json_pack("{s:s, s:o, s:I, s:I, s:{s:o}}", "status", "ok", "matches", matches, "cursor_start", from,
                   "cursor_end", to, "metadata", "_jupyter_types_experimental", typed);
}

static json_t *inspect(pl_kernel *k, const pl_request *request) {
  const json_t *content = request->content, *code = json_object_get(content, "code");
  if (!json_is_string(code)) return refuse("ProtocolError", "inspect_request: content has no string `code`");
  int detail = json_integer_value(json_object_get(content, "detail_level")) > 0;
  json_t *data = pl_session_inspect(k->session, json_string_value(code), json_string_length(code),
                                    cursor_of(content, code), detail);
  bool found = data != NULL;
  return json_pack("{s:s, s:b, s:o, s:{}}", "status", "ok", "found", found, "data", found ? data : json_object(),
                   "metadata");
}

/* ---- history ---- */

static json_int_t integer(const json_t *content, const char *name, json_int_t otherwise) {
  const json_t *value = json_object_get(content, name);
  return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static json_t *history(pl_kernel *k, const pl_request *request) {
  static const char *const kinds[] = {[PL_HISTORY_TAIL] = "tail", "range", "search"};
  const json_t *content = request->content;
  const char *kind = json_string_value(json_object_get(content, "hist_access_type"));
  const json_t *pattern = json_object_get(content, "pattern");
  pl_history_query query = {.n = integer(content, "n", -1),
                            .session = integer(content, "session", 0),
                            .start = integer(content, "start", 1),
                            .stop = integer(content, "stop", INT64_MAX),
                            .pattern = json_is_string(pattern) ? json_string_value(pattern) : "*",
                            .unique = flag(content, "unique", false),
                            .output = flag(content, "output", false)};
  while (kind && query.kind < 3 && strcmp(kind, kinds[query.kind]) != 0) query.kind++;
  if (query.kind == 3)
    return refuse("ProtocolError", "history_request: hist_access_type is none of tail, range and search");
  return json_pack("{s:s, s:o}", "status", "ok", "history", pl_history_find(k->history, &query));
}

/* ---- comms ---- */

static json_t *comm_info(pl_kernel *k, const pl_request *request) {
  const json_t *target = json_object_get(request->content, "target_name");
  return json_pack("{s:s, s:o}", "status", "ok", "comms", pl_session_comms(k->session, json_string_value(target)));
}

/* comm_open, comm_msg and comm_close have no reply: a failing handler is told of as a failing cell is. */
static json_t *comm(pl_kernel *k, const pl_request *request) {
  pl_comm_message message = {request->type, request->content, request->metadata, request->buffers,
                             request->buffer_count};
  pl_outcome outcome;
  pl_session_comm(k->session, &message, &outcome);
  if (!outcome.ok) {
    json_t *content = pl_outcome_error(&outcome);
    pl_kernel_publish(k, "error", content);
    json_decref(content);
  }
  pl_outcome_release(&outcome);
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
  pl_publisher_send(k->publisher, "shutdown_reply", &request->header_bytes, reply,
                    NULL); /* other front ends learn of it */
  pl_kernel_stop(k);
  return reply;
}

static json_t *usage(pl_kernel *k, const pl_request *request) {
  (void)request;
  return pl_usage_read(&k->usage);
}

enum { SHELL = 1 << PL_SHELL, CONTROL = 1 << PL_CONTROL };

static const pl_handler handlers[] = {
    {"kernel_info_request", "kernel_info_reply", SHELL | CONTROL, kernel_info},
    {"connect_request", "connect_reply", SHELL | CONTROL, connect},
    {"execute_request", "execute_reply", SHELL | PL_SPEAKS, execute},
    {"is_complete_request", "is_complete_reply", SHELL, is_complete},
    {"complete_request", "complete_reply", SHELL, complete},
    {"inspect_request", "inspect_reply", SHELL, inspect},
    {"history_request", "history_reply", SHELL, history},
    {"comm_info_request", "comm_info_reply", SHELL, comm_info},
    {"comm_open", NULL, SHELL | PL_SPEAKS, comm},
    {"comm_msg", NULL, SHELL | PL_SPEAKS, comm},
    {"comm_close", NULL, SHELL | PL_SPEAKS, comm},
    {"interrupt_request", "interrupt_reply", SHELL | CONTROL, interrupt},
    {"usage_request", "usage_reply", CONTROL, usage},
    {"debug_request", "debug_reply", CONTROL | PL_LATER, NULL},
    {"shutdown_request", "shutdown_reply", SHELL | CONTROL, shutdown},
};

const pl_handler *pl_handler_find(const char *type, pl_channel channel) {
  for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
    if (strcmp(handlers[i].type, type) == 0) return handlers[i].channels & (1u << channel) ? &handlers[i] : NULL;
  return NULL;
}
