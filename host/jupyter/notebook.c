/* The notebook runner. */
#include "host/jupyter/notebook.h"
#include "host/base/file.h"
#include "host/base/json.h"
#include "host/jupyter/capture.h"
#include "host/jupyter/outputs.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

typedef struct {
  const char *path;
  const pl_notebook_options *options;
  pl_session *session;
  pl_capture *capture;
  pthread_mutex_t lock; /* guards outputs, which the capture's thread fills, too */
  pl_outputs outputs;
  long execution_count;
  pl_text *failure;
} runner;

/* ---- the session's front end ---- */

static void take_captured(void *context, const char *name, const char *data, size_t length) {
  runner *r = context;
  pthread_mutex_lock(&r->lock);
  pl_outputs_stream(&r->outputs, name, data, length);
  pthread_mutex_unlock(&r->lock);
}

static void stream(void *context, const char *name, const char *data, size_t length) {
  runner *r = context;
  pl_capture_drain(r->capture);
  take_captured(r, name, data, length);
}

static void display(void *context, const char *type, json_t *content) {
  runner *r = context;
  pl_capture_drain(r->capture);
  pthread_mutex_lock(&r->lock);
  pl_outputs_display(&r->outputs, type, content);
  pthread_mutex_unlock(&r->lock);
}

/* ---- time limit of a cell ---- */

static pl_session *timed_session;
static atomic_bool timed_out;

static void on_alarm(int number) {
  (void)number;
  atomic_store(&timed_out, true);
  pl_session_interrupt(timed_session);
}

/* seconds 0 takes the alarm away. It repeats, for the first one may come while the interrupt cannot be heard yet. */
static void set_alarm(double seconds) {
  struct itimerval timer = {
      .it_value = {.tv_sec = (time_t)seconds, .tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};
  if (seconds > 0) timer.it_interval.tv_usec = 100000;
  setitimer(ITIMER_REAL, &timer, NULL);
}

/* ---- one cell ---- */

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

static bool may_raise(const json_t *cell) {
  size_t i;
  json_t *tag;
  json_array_foreach(json_object_get(json_object_get(cell, "metadata"), "tags"), i, tag) {
    if (json_is_string(tag) && strcmp(json_string_value(tag), "raises-exception") == 0) return true;
  }
  return false;
}

static void describe_failure(runner *r, const pl_outcome *outcome) {
  size_t i;
  json_t *line;
  pl_text_print(r->failure, "'%s': cell In [%ld] failed%s", r->path, r->execution_count,
                timed_out ? ": it took longer than --timeout allows" : "");
  json_array_foreach(outcome->traceback, i, line) pl_text_print(r->failure, "\n%s", json_string_value(line));
}

/* Returns whether the run is to go on. */
static bool judge(runner *r, const json_t *cell, const pl_outcome *outcome) {
  if (outcome->ok) return true;
  bool stopped = !timed_out && strcmp(json_string_value(outcome->ename), "Interrupted") == 0; /* Ctrl-C ends the run */
  if (!stopped && (r->options->allow_errors || may_raise(cell))) return true;
  describe_failure(r, outcome);
  return false;
}

static void begin_outputs(runner *r, json_t *cell) {
  pthread_mutex_lock(&r->lock);
  json_object_set(cell, "outputs", pl_outputs_begin(&r->outputs));
  pthread_mutex_unlock(&r->lock);
}

static void end_outputs(runner *r, const pl_outcome *outcome) {
  pl_capture_drain(r->capture);
  pthread_mutex_lock(&r->lock);
  pl_outputs_outcome(&r->outputs, outcome, r->execution_count);
  pthread_mutex_unlock(&r->lock);
}

static bool run_cell(runner *r, json_t *cell, const pl_text *code) {
  begin_outputs(r, cell);
  if (strspn(code->data, " \t\r\n") == code->length) { /* front ends do not number empty cells */
    json_object_set_new(cell, "execution_count", json_null());
    return true;
  }
  json_object_set_new(cell, "execution_count", json_integer(++r->execution_count));
  char name[32];
  snprintf(name, sizeof name, "In [%ld]", r->execution_count);
  pl_outcome outcome;
  atomic_store(&timed_out, false);
  set_alarm(r->options->timeout_s);
  pl_session_execute(r->session, code->data, code->length, name, &outcome);
  set_alarm(0);
  end_outputs(r, &outcome);
  bool go_on = judge(r, cell, &outcome);
  pl_outcome_release(&outcome);
  return go_on;
}

/* ---- the file ---- */

static bool is_code(const json_t *cell) {
  const char *type = json_string_value(json_object_get(cell, "cell_type"));
  return type && strcmp(type, "code") == 0;
}

static pl_status check_language(const json_t *notebook, const char *path) {
  const json_t *metadata = json_object_get(notebook, "metadata");
  const char *language = json_string_value(json_object_get(json_object_get(metadata, "kernelspec"), "language"));
  if (!language) language = json_string_value(json_object_get(json_object_get(metadata, "language_info"), "name"));
  PL_REQUIRE(!language || strcmp(language, "lua") == 0, "notebook '%s' is written in %s, not in lua", path, language);
  return PL_OK;
}

static pl_status check_notebook(const json_t *notebook, const char *path) {
  const json_t *version = json_object_get(notebook, "nbformat"), *cells = json_object_get(notebook, "cells");
  PL_REQUIRE(json_is_integer(version), "'%s' is no notebook: it has no nbformat", path);
  PL_REQUIRE(json_integer_value(version) == 4, "notebook '%s' has nbformat %lld; 4 is expected", path,
             (long long)json_integer_value(version));
  PL_REQUIRE(json_is_array(cells), "notebook '%s' has no array of cells", path);
  size_t i;
  json_t *cell;
  json_array_foreach((json_t *)cells, i, cell) {
    pl_text code = {0};
    bool valid = json_is_object(cell) && join_source(json_object_get(cell, "source"), &code);
    pl_text_release(&code);
    PL_REQUIRE(valid, "notebook '%s': cell %zu has no source text", path, i + 1);
  }
  return check_language(notebook, path);
}

static pl_status load(const char *path, json_t **notebook) {
  pl_text text = {0};
  pl_status status = pl_file_read(path, &text);
  if (status == PL_OK) {
    json_error_t error;
    *notebook = json_loadb(text.data, text.length, JSON_ALLOW_NUL, &error);
    if (!*notebook)
      status =
          PL_FAIL("'%s' is not a whole notebook: line %d, column %d: %s", path, error.line, error.column, error.text);
    else if ((status = check_notebook(*notebook, path)) != PL_OK)
      json_decref(*notebook);
  }
  pl_text_release(&text);
  return status;
}

static pl_status save(const char *path, const json_t *notebook) {
  pl_text text = {0};
  pl_json_write(notebook, 1, &text);
  pl_text_print(&text, "\n");
  pl_piece piece = {text.data, text.length};
  pl_status status = pl_file_write(path, &piece, 1);
  pl_text_release(&text);
  return status;
}

static void run_cells(runner *r, const json_t *cells) {
  size_t i;
  json_t *cell;
  bool go_on = true;
  json_array_foreach((json_t *)cells, i, cell) {
    if (!is_code(cell) || !go_on) continue;
    pl_text code = {0};
    join_source(json_object_get(cell, "source"), &code);
    go_on = run_cell(r, cell, &code);
    pl_text_release(&code);
  }
}

static pl_status run_session(runner *r, const json_t *notebook) {
  pl_frontend frontend = {.context = r, .stream = stream, .display = display};
  pl_capture_sink sink = {.context = r, .take = take_captured};
  PL_TRY(pl_session_new(&frontend, &r->session));
  pthread_mutex_init(&r->lock, NULL);
  pl_outputs_open(&r->outputs);
  pl_status status = pl_capture_start(&sink, &r->capture);
  if (status == PL_OK) {
    timed_session = r->session;
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    run_cells(r, json_object_get(notebook, "cells"));
  }
  pl_session_free(r->session);
  pl_capture_stop(r->capture);
  pl_outputs_release(&r->outputs);
  pthread_mutex_destroy(&r->lock);
  return status;
}

pl_status pl_notebook_run(const char *path, const char *output, const pl_notebook_options *options, pl_text *failure) {
  json_t *notebook;
  PL_TRY(load(path, &notebook));
  runner r = {.path = path, .options = options, .failure = failure};
  pl_status status = run_session(&r, notebook);
  if (status == PL_OK) status = save(output, notebook);
  json_decref(notebook);
  return status;
}
