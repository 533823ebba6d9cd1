/* The notebook runner. Which cells run, and what becomes of them, is as in nbclient; so are the words in which it tells
 * that a cell failed. */
#include "host/jupyter/notebook.h"
#include "host/bind/session.h"
#include "host/jupyter/language.h"
#include "host/jupyter/notebook_file.h"
#include "host/jupyter/outputs.h"
#include "host/jupyter/process.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

typedef struct {
  const char *path;
  const pl_notebook_options *options;
  pl_session *session;
  pl_outputs outputs;
  long execution_count;
  pl_text *failure;
} runner;

/* ---- the session's front end ---- */

static void stream(void *context, const char *name, const char *data, size_t length) {
  runner *r = context;
  pl_outputs_stream(&r->outputs, name, data, length);
}

static void display(void *context, const char *type, json_t *content) {
  runner *r = context;
  pl_outputs_display(&r->outputs, type, content);
}

static pl_status input(void *context, const char *prompt, bool password, pl_text *answer) {
  (void)context, (void)prompt, (void)password, (void)answer;
  return PL_FAIL("this front end does not support input"); /* as the kernel says it to nbclient */
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
  if (seconds > 0 && timer.it_value.tv_sec == 0 && timer.it_value.tv_usec == 0) timer.it_value.tv_usec = 1;
  setitimer(ITIMER_REAL, &timer, NULL);
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
  if (timed_out)
    describe_timeout(r, cell);
  else
    describe_error(r, cell, outcome);
}

/* ---- one cell ---- */

/* Returns whether the run is to go on. */
static bool judge(runner *r, const pl_notebook_cell *cell, const pl_outcome *outcome) {
  if (outcome->ok) return true;
  bool stopped = !timed_out && strcmp(json_string_value(outcome->ename), "Interrupted") == 0; /* Ctrl-C ends the run */
  if (!stopped && (r->options->allow_errors || pl_notebook_cell_has_tag(cell, "raises-exception"))) return true;
  describe_failure(r, cell, outcome);
  return false;
}

static bool is_to_run(const pl_notebook_cell *cell) {
  return cell->code && strspn(cell->source.data, " \t\r\n\v\f") < cell->source.length &&
         !pl_notebook_cell_has_tag(cell, "skip-execution");
}

static bool run_cell(runner *r, pl_notebook_cell *cell) {
  cell->outputs = json_incref(pl_outputs_begin(&r->outputs));
  cell->execution_count = ++r->execution_count;
  char name[32];
  snprintf(name, sizeof name, "In [%ld]", r->execution_count);
  pl_outcome outcome;
  atomic_store(&timed_out, false);
  set_alarm(r->options->timeout_s);
  pl_session_execute(r->session, cell->source.data, cell->source.length, name, &outcome);
  set_alarm(0);
  pl_outputs_outcome(&r->outputs, &outcome, r->execution_count);
  bool go_on = judge(r, cell, &outcome);
  pl_outcome_release(&outcome);
  return go_on;
}

static void run_cells(runner *r, pl_notebook_file *file) {
  bool go_on = true;
  for (size_t i = 0; i < file->count && go_on; i++)
    if (is_to_run(&file->cells[i])) go_on = run_cell(r, &file->cells[i]);
}

static pl_status run_session(runner *r, pl_notebook_file *file) {
  pl_frontend frontend = {.context = r, .stream = stream, .display = display, .input = input};
  PL_TRY(pl_session_new(&frontend, &r->session));
  pl_outputs_open(&r->outputs);
  timed_session = r->session;
  struct sigaction action = {.sa_handler = on_alarm};
  sigaction(SIGALRM, &action, NULL);
  run_cells(r, file);
  pl_session_free(r->session);
  pl_children_end();
  pl_outputs_release(&r->outputs);
  return PL_OK;
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

static pl_status run_file(runner *r, pl_notebook_file *file, const char *output) {
  PL_TRY(check_writable(output));
  PL_TRY(enter_folder(r->path));
  pl_children_mark();
  PL_TRY(run_session(r, file));
  json_t *language_info = pl_language_info();
  pl_status status = pl_notebook_file_write(file, output, language_info);
  json_decref(language_info);
  return status;
}

pl_status pl_notebook_run(const char *path, const char *output, const pl_notebook_options *options, pl_text *failure) {
  pl_notebook_file file;
  pl_process_open_standard_files();
  PL_TRY(pl_notebook_file_read(path, &file));
  runner r = {.path = path, .options = options, .failure = failure};
  pl_text target = {0};
  pl_status status = make_absolute(output, &target);
  if (status == PL_OK) status = run_file(&r, &file, target.data);
  pl_text_release(&target);
  pl_notebook_file_release(&file);
  return status;
}
