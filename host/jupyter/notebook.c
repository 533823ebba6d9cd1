/* The notebook runner. Which cells run, and what becomes of them, is as in nbclient; so are the words in which it tells
 * that a cell failed. */
#include "host/jupyter/notebook.h"
#include "host/base/clock.h"
#include "host/bind/session.h"
#include "host/jupyter/capture.h"
#include "host/jupyter/language.h"
#include "host/jupyter/notebook_file.h"
#include "host/jupyter/outputs.h"
#include "host/jupyter/process.h"
#include "host/base/thread.h"
#include "host/jupyter/widgets.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct {
  const char *path, *output;
  const pl_notebook_options *options;
  pl_session *session;
  pl_capture *capture;
  pl_notebook_file *file;
  long execution_count;
  pl_text *failure;

  /* Of what follows: the capture's thread fills outputs, too, and the one that keeps the time limit writes the file if
   * it must. */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pl_outputs outputs;
  pl_widgets widgets;
  char message_id[32];       /* of the running cell, as widgets know it; also the name of its chunk */
  pl_notebook_cell *running; /* NULL between cells */
  double deadline_ms;        /* of the running cell, by pl_now_ms */
  bool timed_out, over;
} runner;

/* ---- the session's front end ---- */

/* What output goes to now: the cell, or a widget that takes it. With the lock held. */
static pl_outputs *taker(runner *r) {
  pl_outputs *of_widget = pl_widgets_taker(&r->widgets);
  return of_widget ? of_widget : &r->outputs;
}

static void take_captured(void *context, const char *name, const char *data, size_t length) {
  runner *r = context;
  pthread_mutex_lock(&r->lock);
  pl_outputs_stream(taker(r), name, data, length);
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
  pl_outputs *cell = &r->outputs, *shown = strcmp(type, "update_display_data") == 0 ? cell : taker(r);
  if (shown != cell && strcmp(type, "display_data") == 0) pl_outputs_display(cell, "update_display_data", content);
  pl_outputs_display(shown, type, content);
  pthread_mutex_unlock(&r->lock);
}

/* What handlers between cells send is nobody's, as to nbclient. */
static void comm(void *context, const pl_comm_message *message) {
  runner *r = context;
  pl_capture_drain(r->capture);
  pthread_mutex_lock(&r->lock);
  if (r->running) pl_widgets_comm(&r->widgets, message, r->message_id);
  pthread_mutex_unlock(&r->lock);
}

static const char *message_id(void *context) {
  runner *r = context;
  return r->message_id;
}

static pl_status input(void *context, const char *prompt, bool password, pl_text *answer) {
  (void)context, (void)prompt, (void)password, (void)answer;
  return PL_FAIL("this front end does not support input"); /* as the kernel says it to nbclient */
}

/* ---- what is said about a cell that failed ---- */

enum { PREVIEW_LINES = 5 }; /* at the beginning and at the end of a long cell */

/* Where line `index`, counted from 0, begins. */
static size_t line_begin(const pl_text *text, size_t index) {
  size_t at = 0;
  for (; index > 0; index--) {
    const char *end = strchr(text->data + at, '\n');
    if (!end) return text->length;
    at = (size_t)(end - text->data) + 1;
  }
  return at;
}

static void preview(const pl_text *source, pl_text *text) {
  size_t lines = 1;
  for (size_t i = 0; i < source->length; i++) lines += source->data[i] == '\n';
  if (lines <= 2 * PREVIEW_LINES)
    pl_text_print(text, "%s", source->data);
  else
    pl_text_print(text, "%.*s...\n%s", (int)line_begin(source, PREVIEW_LINES), source->data,
                  source->data + line_begin(source, lines - PREVIEW_LINES));
}

static void describe_timeout(runner *r, const pl_notebook_cell *cell) {
  pl_text_print(r->failure,
                "it took longer than --timeout allows\n"
                "CellTimeoutError: A cell timed out while it was being executed, after %g seconds.\n"
                "The message was: Cell execution timed out.\n"
                "Here is a preview of the cell contents:\n-------------------\n",
                r->options->timeout_s);
  preview(&cell->source, r->failure);
  pl_text_print(r->failure, "\n-------------------");
}

static void describe_error(runner *r, const pl_notebook_cell *cell, const pl_outcome *outcome) {
  size_t i;
  json_t *line;
  pl_text_print(r->failure,
                "it failed\n"
                "CellExecutionError: An error occurred while executing the following cell:\n"
                "------------------\n%s\n------------------\n\n",
                cell->source.data);
  json_array_foreach(outcome->traceback, i, line) pl_text_print(r->failure, "%s\n", json_string_value(line));
  pl_text_print(r->failure, "%s: %s", json_string_value(outcome->ename), json_string_value(outcome->evalue));
}

static void describe_failure(runner *r, const pl_notebook_cell *cell, const pl_outcome *outcome) {
  pl_text_print(r->failure, "'%s', In [%ld]: ", r->path, r->execution_count);
  if (r->timed_out)
    describe_timeout(r, cell);
  else
    describe_error(r, cell, outcome);
}

static pl_status write_result(const runner *r) {
  json_t *language_info = pl_language_info(), *widgets = pl_widgets_metadata(&r->widgets);
  pl_status status = pl_notebook_file_write(r->file, r->output, language_info, widgets);
  json_decref(language_info);
  json_decref(widgets);
  return status;
}

/* ---- time limit of a cell ---- */

/* An interrupt is repeated, for the first one may come while it cannot be heard yet. Code that does not heed it at all,
 * a long search by string.find say, is given up with the process. */
enum { REPEAT_MS = 100, PATIENCE_MS = 10000 };

/* With the lock held: writes what there is, and ends. */
static void give_up(runner *r) {
  pl_outcome outcome = {.ename = json_string("Interrupted"),
                        .evalue = json_string("interrupted"),
                        .traceback = json_pack("[s]", "interrupted: the code did not heed it, and the process ended")};
  pl_outputs_outcome(&r->outputs, &outcome, r->execution_count);
  describe_failure(r, r->running, &outcome);
  pl_capture_leave(r->capture);
  if (write_result(r) != PL_OK) fprintf(stderr, "perilune: %s\n", pl_message());
  fprintf(stderr, "perilune: %s\n", r->failure->data);
  pl_children_end();
  _exit(1);
}

/* With the lock held: waits for a change, no longer than until `until_ms`. */
static void wait_until(runner *r, double until_ms) {
  double left_ms = until_ms - pl_now_ms();
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  if (left_ms < 0) left_ms = 0;
  until.tv_sec += (time_t)(left_ms / 1e3);
  until.tv_nsec += (long)(fmod(left_ms, 1e3) * 1e6);
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  pthread_cond_timedwait(&r->changed, &r->lock, &until);
}

/* The thread's whole life. */
static void *keep_time(void *data) {
  runner *r = data;
  pthread_mutex_lock(&r->lock);
  while (!r->over) {
    double now_ms = pl_now_ms();
    if (!r->running)
      pthread_cond_wait(&r->changed, &r->lock);
    else if (now_ms < r->deadline_ms)
      wait_until(r, r->deadline_ms);
    else if (now_ms >= r->deadline_ms + PATIENCE_MS)
      give_up(r);
    else {
      r->timed_out = true;
      pl_session_interrupt(r->session);
      wait_until(r, now_ms + REPEAT_MS);
    }
  }
  pthread_mutex_unlock(&r->lock);
  return NULL;
}

/* ---- one cell ---- */

/* Returns whether the run is to go on. */
static bool judge(runner *r, const pl_notebook_cell *cell, const pl_outcome *outcome) {
  if (outcome->ok) return true;
  bool stopped =
      !r->timed_out && strcmp(json_string_value(outcome->ename), "Interrupted") == 0; /* Ctrl-C ends the run */
  if (!stopped && (r->options->allow_errors || pl_notebook_cell_has_tag(cell, "raises-exception"))) return true;
  describe_failure(r, cell, outcome);
  return false;
}

static bool is_to_run(const pl_notebook_cell *cell) {
  return cell->code && strspn(cell->source.data, " \t\r\n\v\f") < cell->source.length &&
         !pl_notebook_cell_has_tag(cell, "skip-execution");
}

/* From now on the time counts; NULL: no longer. With the lock held. */
static void set_running(runner *r, pl_notebook_cell *cell) {
  r->running = cell;
  if (cell) r->timed_out = false;
  r->deadline_ms = pl_now_ms() + 1e3 * r->options->timeout_s;
  pthread_cond_signal(&r->changed);
}

static void end_outputs(runner *r, const pl_outcome *outcome) {
  pl_capture_drain(r->capture);
  pthread_mutex_lock(&r->lock);
  pl_widgets_end_cell(&r->widgets);
  set_running(r, NULL);
  pl_outputs_outcome(&r->outputs, outcome, r->execution_count);
  pthread_mutex_unlock(&r->lock);
}

/* As a front end does after a cell, though not before it: the kernel takes messages only then. */
static void tell_widgets(runner *r) {
  json_t *content;
  pthread_mutex_lock(&r->lock);
  pl_outputs_begin(&r->outputs); /* what handlers print is nobody's */
  pthread_mutex_unlock(&r->lock);
  while ((content = pl_widgets_news(&r->widgets))) {
    pl_outcome outcome;
    pl_session_comm(r->session, &(pl_comm_message){.type = "comm_msg", .content = content}, &outcome);
    pl_outcome_release(&outcome);
    json_decref(content);
  }
}

static bool run_cell(runner *r, pl_notebook_cell *cell) {
  pl_outcome outcome;
  pthread_mutex_lock(&r->lock);
  cell->outputs = json_incref(pl_outputs_begin(&r->outputs));
  cell->execution_count = ++r->execution_count;
  set_running(r, cell);
  snprintf(r->message_id, sizeof r->message_id, "In [%ld]", r->execution_count);
  pthread_mutex_unlock(&r->lock);
  pl_session_execute(r->session, cell->source.data, cell->source.length, r->message_id, &outcome);
  end_outputs(r, &outcome);
  tell_widgets(r);
  bool go_on = judge(r, cell, &outcome);
  pl_outcome_release(&outcome);
  return go_on;
}

static void run_cells(runner *r) {
  bool go_on = true;
  for (size_t i = 0; i < r->file->count && go_on; i++)
    if (is_to_run(&r->file->cells[i])) go_on = run_cell(r, &r->file->cells[i]);
}

static pl_status run_timed(runner *r) {
  pthread_t thread;
  if (r->options->timeout_s > 0) PL_TRY(pl_thread_start(&thread, keep_time, r));
  run_cells(r);
  if (r->options->timeout_s > 0) {
    pthread_mutex_lock(&r->lock);
    r->over = true;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
    pthread_join(thread, NULL);
  }
  return PL_OK;
}

static pl_status run_session(runner *r) {
  pl_frontend frontend = {
      .context = r, .stream = stream, .display = display, .comm = comm, .message_id = message_id, .input = input};
  PL_TRY(pl_session_new(&frontend, &r->session));
  pl_outputs_open(&r->outputs);
  pl_capture_sink sink = {.context = r, .take = take_captured};
  pl_status status = pl_capture_start(&sink, &r->capture);
  if (status == PL_OK) status = run_timed(r);
  pl_session_free(r->session);
  pl_children_end();
  pl_capture_stop(r->capture);
  pl_outputs_release(&r->outputs);
  return status;
}

/* ---- files and folders ---- */

/* The folder of `path`, "." when it names none. */
static void folder_of(const char *path, pl_text *folder) {
  const char *slash = strrchr(path, '/');
  if (!slash)
    pl_text_print(folder, ".");
  else
    pl_text_append(folder, path, slash == path ? 1 : (size_t)(slash - path));
}

/* A run may take hours: that its result can be written is looked at before. */
static pl_status check_writable(const char *output) {
  struct stat found;
  if (stat(output, &found) == 0 && !S_ISREG(found.st_mode)) {
    PL_REQUIRE(access(output, W_OK) == 0, "cannot write '%s': %s", output, strerror(errno));
    PL_REQUIRE(!S_ISDIR(found.st_mode), "cannot write '%s': it is a folder", output);
    return PL_OK;
  }
  pl_text folder = {0};
  folder_of(output, &folder);
  pl_status status = PL_OK;
  if (access(folder.data, W_OK | X_OK) != 0)
    status = PL_FAIL("cannot write '%s': '%s': %s", output, folder.data, strerror(errno));
  pl_text_release(&folder);
  return status;
}

/* Cells run where the notebook lies, as Jupyter starts its kernels there. */
static pl_status enter_folder(const char *path) {
  pl_text folder = {0};
  folder_of(path, &folder);
  pl_status status = PL_OK;
  if (chdir(folder.data) != 0) status = PL_FAIL("cannot enter the folder '%s': %s", folder.data, strerror(errno));
  pl_text_release(&folder);
  return status;
}

/* Makes the path independent of the folder that cells run in. */
static pl_status make_absolute(const char *path, pl_text *absolute) {
  char here[PATH_MAX];
  if (path[0] != '/') {
    PL_REQUIRE(getcwd(here, sizeof here), "cannot tell the current folder: %s", strerror(errno));
    pl_text_print(absolute, "%s/", here);
  }
  pl_text_print(absolute, "%s", path);
  return PL_OK;
}

static pl_status run_file(runner *r) {
  PL_TRY(check_writable(r->output));
  PL_TRY(enter_folder(r->path));
  pl_children_mark();
  PL_TRY(run_session(r));
  return write_result(r);
}

static void open_lock(runner *r) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&r->changed, &attributes);
  pthread_condattr_destroy(&attributes);
  pthread_mutex_init(&r->lock, NULL);
}

pl_status pl_notebook_run(const char *path, const char *output, const pl_notebook_options *options, pl_text *failure) {
  pl_notebook_file file;
  PL_TRY(pl_notebook_file_read(path, &file));
  runner r = {.path = path, .options = options, .file = &file, .failure = failure};
  pl_text target = {0};
  open_lock(&r);
  pl_widgets_open(&r.widgets);
  pl_status status = make_absolute(output, &target);
  r.output = target.data;
  if (status == PL_OK) status = run_file(&r);
  pthread_cond_destroy(&r.changed);
  pthread_mutex_destroy(&r.lock);
  pl_widgets_release(&r.widgets);
  pl_text_release(&target);
  pl_notebook_file_release(&file);
  return status;
}
