/* Measuring a kernel from outside. */
#include "experiments/kernel_latency/measure.h"
#include "host/base/clock.h"
#include "host/base/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum { STARTS = 15, REPLIES = 2000, PIPELINES = 3, PIPELINED = 10000 };
enum { EXECUTES = 100000, AT_ONCE = 10, EXECUTES_MS_MAX = 100000 };
enum { OUTPUTS = 3, INTERRUPTS = 20, BEATS = 200, IDLE_S = 5, LINE_BYTES = 100, MB = 1000000 };

const struct quantity_words quantities[QUANTITIES] = {
    [START] = {"start to first kernel_info_reply", "ms"},
    [REPLY] = {"1+1 to its reply", "ms"},
    [IDLE] = {"1+1 to its idle", "ms"},
    [RATE] = {"executes, 10,000 sent at once", "1/s"},
    [LOST] = {"replies and idles lost of these", ""},
    [TEN_MB] = {"10 MB in lines, to idle", "ms"},
    [HUNDRED_MB] = {"100 MB in lines, to idle", "ms"},
    [LOST_BYTES] = {"bytes lost of these", ""},
    [INTERRUPT] = {"interrupt of an endless loop", "ms"},
    [HEARTBEAT] = {"heartbeat while all cores compute", "ms"},
    [CONTROL] = {"kernel_info on control meanwhile", "ms"},
    [RESIDENT] = {"resident at start", "MB"},
    [RESIDENT_AFTER] = {"resident, each 10,000 of 100,000 executes", "MB"},
    [RESIDENT_PEAK] = {"resident at most, 100 MB of output", "MB"},
    [IDLE_TICKS] = {"processor time while idle, 5 s", "ticks"},
    [IDLE_SWITCHES] = {"voluntary context switches, 5 s", ""},
};

static const language languages[] = {
    {"lua", "local line = ('x'):rep(99) for i = 1, %d do print(line) end", "while true do end",
     "local found, pl = pcall(require, 'perilune') local a = found and pl.rand{1024, 1024}\n"
     "while true do if found then a:matmul(a) end end"},
    {"python", "line = 'x' * 99\nfor i in range(%d): print(line)", "while True: pass", "while True: pass"},
};

pl_status subject_open(const char *path, subject *s) {
  PL_TRY(kernel_spec_read(path, &s->spec));
  for (size_t i = 0; i < sizeof languages / sizeof *languages; i++)
    if (strcasecmp(languages[i].name, s->spec.language) == 0) s->words = languages[i];
  PL_REQUIRE(s->words.name, "%s: there is no code in the language '%s' here", s->spec.name, s->spec.language);
  return PL_OK;
}

void subject_release(subject *s) {
  for (int q = 0; q < QUANTITIES; q++) free(s->all[q].values);
  json_decref(s->spec.file);
}

static void note(subject *s, quantity what, double value) {
  series *all = &s->all[what];
  all->values = pl_reallocate(all->values, (all->count + 1) * sizeof *all->values);
  all->values[all->count++] = value;
}

/* ---- the process, as the system sees it ---- */

/* The number behind `name` in a file of lines "name: number"; 0 when there is none. */
static double number_in(const char *path, const char *name) {
  pl_text text = {0};
  double value = 0;
  if (pl_file_read(path, &text) == PL_OK) {
    const char *at = strstr(text.data, name);
    if (at) value = strtod(at + strlen(name), NULL);
  }
  pl_text_release(&text);
  return value;
}

static double process_number(const client *c, const char *name) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/status", (int)c->process);
  return number_in(path, name);
}

static double resident_mb(const client *c, const char *name) { return process_number(c, name) * 1024 / MB; }

static void forget_peak(const client *c) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/clear_refs", (int)c->process);
  FILE *file = fopen(path, "w");
  if (!file || fputs("5", file) < 0) fprintf(stderr, "kernel_latency: the peak before 100 MB counts, too\n");
  if (file) fclose(file);
}

/* Of all its threads. */
static double switches(const client *c) {
  char folder[64], path[400];
  snprintf(folder, sizeof folder, "/proc/%d/task", (int)c->process);
  DIR *threads = opendir(folder);
  double sum = 0;
  for (struct dirent *entry; threads && (entry = readdir(threads));) {
    snprintf(path, sizeof path, "%s/%s/status", folder, entry->d_name);
    if (*entry->d_name != '.') sum += number_in(path, "\nvoluntary_ctxt_switches:");
  }
  if (threads) closedir(threads);
  return sum;
}

/* User and system time of the process, in the system's ticks. */
static double ticks(const client *c) {
  char path[64];
  pl_text text = {0};
  double user = 0, system = 0;
  snprintf(path, sizeof path, "/proc/%d/stat", (int)c->process);
  if (pl_file_read(path, &text) == PL_OK) {
    const char *behind_name = strrchr(text.data, ')');
    if (behind_name) sscanf(behind_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lf %lf", &user, &system);
  }
  pl_text_release(&text);
  return user + system;
}

/* ---- measuring: each function leaves the kernel idle, and says false when it does not answer ---- */

static pl_status measure_starts(subject *s) {
  for (int i = 0; i < STARTS; i++) {
    client c;
    double ms;
    pl_status status = client_start(&c, &s->spec, &ms);
    if (status == PL_OK) note(s, START, ms), note(s, RESIDENT, resident_mb(&c, "VmRSS:"));
    client_stop(&c);
    PL_TRY(status);
  }
  return PL_OK;
}

static bool measure_rest(subject *s, client *c) {
  double ticks_before = ticks(c), switches_before = switches(c);
  sleep(IDLE_S);
  note(s, IDLE_TICKS, ticks(c) - ticks_before);
  note(s, IDLE_SWITCHES, switches(c) - switches_before);
  return true;
}

static bool measure_replies(subject *s, client *c) {
  for (int i = 0; i < REPLIES; i++) {
    double start = pl_now_ms();
    client_execute(c, "1+1");
    if (!client_wait(c, PL_SHELL, "execute_reply", NULL, NULL)) return false;
    note(s, REPLY, pl_now_ms() - start);
    if (!client_wait(c, PL_IOPUB, "status", "idle", NULL)) return false;
    note(s, IDLE, pl_now_ms() - start);
  }
  return true;
}

/* Sends `many` at once, up to the last reply and idle. Returns how many of these did not come. */
static double execute_at_once(client *c, int many) {
  double lost = 0;
  for (int i = 0; i < many; i++) client_execute(c, "1+1");
  for (int i = 0; i < many; i++)
    lost += !client_wait(c, PL_SHELL, "execute_reply", NULL, NULL) + !client_wait(c, PL_IOPUB, "status", "idle", NULL);
  return lost;
}

static bool measure_pipeline(subject *s, client *c) {
  for (int i = 0; i < PIPELINES; i++) {
    double start = pl_now_ms(), lost = execute_at_once(c, PIPELINED);
    note(s, RATE, 1000 * PIPELINED / (pl_now_ms() - start));
    note(s, LOST, lost);
    if (lost > 0) return false;
  }
  return true;
}

/* Few at once, so that what waits takes no room. */
static bool measure_memory(subject *s, client *c) {
  double start = pl_now_ms();
  for (int done = 0; done < EXECUTES && pl_now_ms() - start < EXECUTES_MS_MAX; done += AT_ONCE) {
    if (execute_at_once(c, AT_ONCE) > 0) return false;
    if ((done + AT_ONCE) % (EXECUTES / 10) == 0) note(s, RESIDENT_AFTER, resident_mb(c, "VmRSS:"));
  }
  return true;
}

static bool measure_output(subject *s, client *c, quantity what, int bytes) {
  char code[200];
  size_t seen = 0;
  snprintf(code, sizeof code, s->words.lines, bytes / LINE_BYTES);
  double start = pl_now_ms();
  client_execute(c, code);
  bool ended = client_wait(c, PL_IOPUB, "status", "idle", &seen);
  note(s, what, pl_now_ms() - start);
  note(s, LOST_BYTES, (double)bytes - (double)seen);
  return ended && client_wait(c, PL_SHELL, "execute_reply", NULL, NULL);
}

static bool measure_outputs(subject *s, client *c) {
  for (int i = 0; i < OUTPUTS; i++)
    if (!measure_output(s, c, TEN_MB, 10 * MB)) return false;
  forget_peak(c);
  bool ended = measure_output(s, c, HUNDRED_MB, 100 * MB);
  note(s, RESIDENT_PEAK, resident_mb(c, "VmHWM:"));
  return ended;
}

/* Long enough for an endless cell to be at work. */
static void let_it_run(void) { usleep(200 * 1000); }

static bool measure_interrupts(subject *s, client *c) {
  for (int i = 0; i < INTERRUPTS; i++) {
    client_execute(c, s->words.endless);
    if (!client_wait(c, PL_IOPUB, "execute_input", NULL, NULL)) return false;
    let_it_run();
    double start = pl_now_ms();
    client_interrupt(c);
    if (!client_wait(c, PL_SHELL, "execute_reply", NULL, NULL)) return false;
    note(s, INTERRUPT, pl_now_ms() - start);
    client_drain(c);
  }
  return true;
}

static bool measure_while_busy(subject *s, client *c) {
  json_t *nothing = json_object();
  bool answers = true;
  client_execute(c, s->words.busy);
  let_it_run();
  for (int i = 0; answers && i < BEATS; i++) {
    char beat[8];
    zmq_pollitem_t item = {.socket = c->sockets[PL_HEARTBEAT], .events = ZMQ_POLLIN};
    double start = pl_now_ms();
    zmq_send(c->sockets[PL_HEARTBEAT], "beat", 4, 0);
    answers = zmq_poll(&item, 1, 30000) > 0 && zmq_recv(c->sockets[PL_HEARTBEAT], beat, sizeof beat, 0) == 4;
    note(s, HEARTBEAT, pl_now_ms() - start);
    start = pl_now_ms();
    client_send(c, PL_CONTROL, "kernel_info_request", nothing);
    answers = answers && client_wait(c, PL_CONTROL, "kernel_info_reply", NULL, NULL);
    note(s, CONTROL, pl_now_ms() - start);
    usleep(5000);
  }
  json_decref(nothing);
  client_interrupt(c);
  bool ended = client_wait(c, PL_SHELL, "execute_reply", NULL, NULL);
  client_drain(c);
  return answers && ended;
}

pl_status subject_measure(subject *s) {
  static bool (*const all[])(subject *, client *) = {measure_rest,      measure_memory,  measure_replies,
                                                     measure_pipeline,  measure_outputs, measure_interrupts,
                                                     measure_while_busy};
  client c;
  double ms;
  PL_TRY(measure_starts(s));
  pl_status status = client_start(&c, &s->spec, &ms);
  for (size_t i = 0; status == PL_OK && i < sizeof all / sizeof *all; i++)
    if (!all[i](s, &c)) status = PL_FAIL("%s: an answer did not come", s->spec.name);
  client_stop(&c);
  return status;
}
