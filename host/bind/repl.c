/* The interactive prompt, on libedit when there is a terminal. */
#include "host/bind/repl.h"
#include "host/base/file.h"
#include "host/bind/evaluate.h"
#include "host/bind/interrupt.h"

#include <errno.h>
#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HISTORY_LINES = 2000 };

typedef struct {
  lua_State *L;
  EditLine *edit; /* NULL when input is no terminal */
  History *history;
  pl_text history_file, code;
} repl;

static const char *prompt_text(const repl *r) { return r->code.length ? ">> " : "> "; }

static char *prompt(EditLine *edit) {
  repl *r;
  el_get(edit, EL_CLIENTDATA, &r);
  return (char *)prompt_text(r);
}

/* ---- completion ---- */

static const char *name_at(const json_t *names, size_t i) {
  return json_string_value(json_object_get(json_array_get(names, i), "text"));
}

/* How many bytes all names have in common. */
static size_t common_length(const json_t *names) {
  const char *first = name_at(names, 0);
  size_t length = strlen(first);
  for (size_t i = 1; i < json_array_size(names); i++) {
    const char *name = name_at(names, i);
    size_t same = 0;
    while (same < length && name[same] == first[same]) same++;
    length = same;
  }
  return length;
}

static void list_names(const json_t *names) {
  size_t count = json_array_size(names), shown = count < 60 ? count : 60;
  putchar('\n');
  for (size_t i = 0; i < shown; i++) printf("%-18s%s", name_at(names, i), i % 4 == 3 || i + 1 == shown ? "\n" : " ");
  if (shown < count) printf("... %zu more\n", count - shown);
}

static unsigned char complete(EditLine *edit, int key) {
  (void)key;
  repl *r;
  el_get(edit, EL_CLIENTDATA, &r);
  const LineInfo *line = el_line(edit);
  pl_text code = {0};
  pl_text_append(&code, r->code.data ? r->code.data : "", r->code.length);
  size_t before = code.length, cursor = before + (size_t)(line->cursor - line->buffer), start;
  pl_text_append(&code, line->buffer, (size_t)(line->lastchar - line->buffer));
  if (cursor == before) { /* nothing to complete: a Tab indents */
    pl_text_release(&code);
    return el_insertstr(edit, "  ") == 0 ? CC_REFRESH : CC_ERROR;
  }
  json_t *names = pl_evaluate_complete(r->L, code.data, code.length, cursor, &start);
  size_t count = json_array_size(names), typed = cursor - start;
  unsigned char action = CC_ERROR;
  if (count > 0) {
    size_t common = common_length(names);
    pl_text more = {0};
    pl_text_append(&more, name_at(names, 0) + typed, common - typed);
    if (common > typed && el_insertstr(edit, more.data) == 0)
      action = CC_REFRESH;
    else if (count > 1) {
      list_names(names);
      action = CC_REDISPLAY;
    }
    pl_text_release(&more);
  }
  json_decref(names);
  pl_text_release(&code);
  return action;
}

/* ---- history ---- */

static void open_history(repl *r) {
  const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
  HistEvent event;
  r->history = history_init();
  history(r->history, &event, H_SETSIZE, HISTORY_LINES);
  history(r->history, &event, H_SETUNIQUE, 1);
  if (data && *data)
    pl_text_print(&r->history_file, "%s/perilune", data);
  else if (home && *home)
    pl_text_print(&r->history_file, "%s/.local/share/perilune", home);
  else
    return;
  if (pl_directory_create(r->history_file.data) != PL_OK) {
    pl_text_clear(&r->history_file); /* a prompt without a memory is still a prompt */
    return;
  }
  pl_text_print(&r->history_file, "/history");
  history(r->history, &event, H_LOAD, r->history_file.data);
}

static void close_history(repl *r) {
  HistEvent event;
  if (r->history_file.length) history(r->history, &event, H_SAVE, r->history_file.data);
  history_end(r->history);
  pl_text_release(&r->history_file);
}

static void open_editor(repl *r) {
  if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return;
  r->edit = el_init("perilune", stdin, stdout, stderr);
  if (!r->edit) return;
  open_history(r);
  el_set(r->edit, EL_CLIENTDATA, r);
  el_set(r->edit, EL_PROMPT, prompt);
  el_set(r->edit, EL_SIGNAL, 0); /* Ctrl-C reaches the program's own handler */
  el_set(r->edit, EL_EDITOR, "emacs");
  el_set(r->edit, EL_HIST, history, r->history);
  el_set(r->edit, EL_ADDFN, "complete", "Complete a name", complete);
  el_set(r->edit, EL_BIND, "\t", "complete", NULL);
  el_set(r->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
  el_source(r->edit, NULL);
}

static void close_editor(repl *r) {
  if (!r->edit) return;
  close_history(r);
  el_end(r->edit);
}

/* ---- one line, one chunk ---- */

typedef enum { LINE, CLEARED, ENDED } reading;

/* Appends the next line to the code read so far. Ctrl-C clears that code. */
static reading read_terminal(repl *r) {
  int count = 0;
  errno = 0;
  const char *line = el_gets(r->edit, &count);
  if (!line || count <= 0) {
    bool signalled = count < 0 && errno == EINTR;
    putchar('\n');
    if (signalled) el_reset(r->edit);
    return signalled ? CLEARED : ENDED;
  }
  HistEvent event;
  if (strspn(line, " \t\n") < (size_t)count) history(r->history, &event, H_ENTER, line);
  pl_text_append(&r->code, line, (size_t)count);
  return LINE;
}

static reading read_pipe(repl *r) {
  char *line = NULL;
  size_t room = 0;
  fputs(prompt_text(r), stdout);
  fflush(stdout);
  ssize_t length = getline(&line, &room, stdin);
  if (length > 0) pl_text_append(&r->code, line, (size_t)length);
  free(line);
  if (length <= 0) putchar('\n');
  return length > 0 ? LINE : ENDED;
}

static void evaluate(repl *r) {
  pl_outcome outcome;
  pl_evaluate(r->L, PL_CELL, r->code.data, r->code.length, "stdin", &outcome);
  fflush(stdout);
  const char *text = json_string_value(json_object_get(outcome.data, "text/plain"));
  if (text) printf("%s\n", text);
  for (size_t i = 0; i < json_array_size(outcome.traceback); i++)
    fprintf(stderr, "%s\n", json_string_value(json_array_get(outcome.traceback, i)));
  pl_outcome_release(&outcome);
}

pl_status pl_repl_run(lua_State *L) {
  pl_evaluate_open(L);
  pl_interrupt_install(false);
  repl r = {.L = L};
  printf("Perilune %s, %s\n", PERILUNE_VERSION, LUA_RELEASE);
  open_editor(&r);
  reading got;
  while ((got = r.edit ? read_terminal(&r) : read_pipe(&r)) != ENDED) {
    if (got == LINE && pl_evaluate_is_complete(L, r.code.data, r.code.length) == PL_CODE_INCOMPLETE) continue;
    if (got == LINE) evaluate(&r);
    pl_text_clear(&r.code);
  }
  if (r.code.length) evaluate(&r); /* unfinished at the end of input: its error says so */
  close_editor(&r);
  pl_text_release(&r.code);
  return PL_OK;
}
