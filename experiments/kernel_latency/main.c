/* How quick a kernel is, seen by a front end: start, replies, output, interrupts, memory. Prints a table and, with
 * --out, writes JSON lines. See usage below. */
#include "experiments/kernel_latency/client.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/home.h"
#include "host/base/json.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

static const char usage[] =
    "usage: kernel_latency [--out FILE.jsonl] [KERNEL.json...]\n"
    "Measures the perilune that lies beside this program, and the kernels of the given files, one after the other.\n";

/* ---- what is measured ---- */

enum { STARTS = 15, REPLIES = 2000, PIPELINED = 10000, ALL_EXECUTES = 100000, EXECUTING_MS_MAX = 60000 };
enum { OUTPUTS = 3, INTERRUPTS = 20, BEATS = 200, IDLE_S = 5, LINE_BYTES = 100, MB = 1000000 };

typedef enum {
  START,
  REPLY,
  IDLE,
  RATE,
  LOST,
  TEN_MB,
  HUNDRED_MB,
  LOST_BYTES,
  INTERRUPT,
  HEARTBEAT,
  CONTROL,
  RESIDENT,
  RESIDENT_AFTER,
  RESIDENT_PEAK,
  IDLE_TICKS,
  IDLE_SWITCHES,
  QUANTITIES
} quantity;
static const struct {
  const char *name, *unit;
} quantities[QUANTITIES] = {
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
    [RESIDENT_AFTER] = {"resident after 10,000 executes each", "MB"},
    [RESIDENT_PEAK] = {"resident at most, 100 MB of output", "MB"},
    [IDLE_TICKS] = {"processor time while idle, 5 s", "ticks"},
    [IDLE_SWITCHES] = {"voluntary context switches, 5 s", ""},
};

/* What the table shows of them: a quantile, 0 to 1. */
static const struct {
  quantity what;
  double quantile;
  const char *aim;
} rows[] = {
    {START, 0.5, "15"},     {REPLY, 0.5, "0.3"},     {REPLY, 0.99, "1"},
    {IDLE, 0.5, ""},        {RATE, 1, "10000"},      {LOST, 1, "0"},
    {TEN_MB, 0.5, "200"},   {HUNDRED_MB, 0.5, ""},   {LOST_BYTES, 1, "0"},
    {INTERRUPT, 0.5, "5"},  {INTERRUPT, 1, "5"},     {HEARTBEAT, 0.5, "5"},
    {HEARTBEAT, 1, "5"},    {CONTROL, 0.5, "5"},     {CONTROL, 1, "5"},
    {RESIDENT, 0.5, "14"},  {RESIDENT_AFTER, 0, ""}, {RESIDENT_AFTER, 1, "flat"},
    {RESIDENT_PEAK, 1, ""}, {IDLE_TICKS, 1, "0"},    {IDLE_SWITCHES, 1, "0"},
};
enum { ROWS = sizeof rows / sizeof *rows, KERNELS_MAX = 8 };

/* Code in the kernel's language. */
typedef struct {
  const char *name, *lines /* of LINE_BYTES, %d of them */, *endless, *busy /* on all cores, for ever */;
} language;
static const language languages[] = {
    {"lua", "local line = ('x'):rep(99) for i = 1, %d do print(line) end", "while true do end",
     "local found, pl = pcall(require, 'perilune') local a = found and pl.rand{1024, 1024}\n"
     "while true do if found then a:matmul(a) end end"},
    {"python", "line = 'x' * 99\nfor i in range(%d): print(line)", "while True: pass", "while True: pass"},
};

/* The values of one quantity, in the order measured. */
typedef struct {
  double *values;
  size_t count;
} series;

typedef struct {
  kernel_spec spec;
  language words;
  series all[QUANTITIES];
} subject;

static void note(subject *s, quantity what, double value) {
  series *all = &s->all[what];
  all->values = pl_reallocate(all->values, (all->count + 1) * sizeof *all->values);
  all->values[all->count++] = value;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Of at least one value. */
static double quantile_of(const series *all, double quantile) {
  double *sorted = pl_allocate(all->count * sizeof *sorted);
  memcpy(sorted, all->values, all->count * sizeof *sorted);
  qsort(sorted, all->count, sizeof *sorted, by_value);
  double value = sorted[(size_t)lround(quantile * (double)(all->count - 1))];
  free(sorted);
  return value;
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

static bool pipeline(subject *s, client *c) {
  double start = pl_now_ms(), lost = 0;
  for (int i = 0; i < PIPELINED; i++) client_execute(c, "1+1");
  for (int i = 0; i < PIPELINED; i++)
    lost += !client_wait(c, PL_SHELL, "execute_reply", NULL, NULL) + !client_wait(c, PL_IOPUB, "status", "idle", NULL);
  note(s, RATE, 1000 * PIPELINED / (pl_now_ms() - start));
  note(s, LOST, lost);
  note(s, RESIDENT_AFTER, resident_mb(c, "VmRSS:"));
  return lost == 0;
}

static bool measure_pipeline(subject *s, client *c) {
  double start = pl_now_ms();
  for (int done = 0; done < ALL_EXECUTES && pl_now_ms() - start < EXECUTING_MS_MAX; done += PIPELINED)
    if (!pipeline(s, c)) return false;
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

static pl_status measure(subject *s) {
  static bool (*const all[])(subject *, client *) = {measure_rest,    measure_replies,    measure_pipeline,
                                                     measure_outputs, measure_interrupts, measure_while_busy};
  client c;
  double ms;
  PL_TRY(measure_starts(s));
  pl_status status = client_start(&c, &s->spec, &ms);
  for (size_t i = 0; status == PL_OK && i < sizeof all / sizeof *all; i++)
    if (!all[i](s, &c)) status = PL_FAIL("%s: an answer did not come", s->spec.name);
  client_stop(&c);
  return status;
}

/* ---- telling ---- */

static void print_table(const subject *subjects, int count) {
  printf("%-36s %-6s %5s", "", "", "aim");
  for (int i = 0; i < count; i++) printf(" %12.12s", subjects[i].spec.name);
  for (int r = 0; r < ROWS; r++) {
    double quantile = rows[r].quantile;
    const char *which = quantile == 0.5 ? "median" : quantile == 1 ? "most" : quantile == 0 ? "least" : "p99";
    printf("\n%-36s %-6s %5s", quantities[rows[r].what].name, which, rows[r].aim);
    for (int i = 0; i < count; i++) {
      const series *all = &subjects[i].all[rows[r].what];
      if (all->count)
        printf(" %12.4g", quantile_of(all, quantile));
      else
        printf(" %12s", "none");
    }
    printf(" %s", quantities[rows[r].what].unit);
  }
  printf("\n");
}

static void append_line(pl_text *text, json_t *record) {
  pl_json_write(record, 0, text);
  pl_text_append(text, "\n", 1);
  json_decref(record);
}

static void write_run(pl_text *text, int argc, char **argv) {
  char date[32], processor[128] = "processor unknown";
  time_t now = time(NULL);
  double load = 0;
  pl_text command = {0}, cpuinfo = {0}, device = {0};
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
  if (pl_file_read("/proc/cpuinfo", &cpuinfo) == PL_OK) {
    const char *model = strstr(cpuinfo.data, "model name");
    if (model) sscanf(model, "model name : %127[^\n]", processor);
  }
  pl_text_print(&device, "cpu: %s, %ld threads", processor, sysconf(_SC_NPROCESSORS_ONLN));
  for (int i = 0; i < argc; i++) pl_text_print(&command, "%s%s", i ? " " : "", argv[i]);
  getloadavg(&load, 1);
  append_line(text, json_pack("{s:s, s:s, s:s, s:s, s:f}", "kind", "run", "command", command.data, "date", date,
                              "device", device.data, "load", load));
  pl_text_release(&command), pl_text_release(&cpuinfo), pl_text_release(&device);
}

static void write_series(pl_text *text, const subject *s) {
  for (int q = 0; q < QUANTITIES; q++) {
    const series *all = &s->all[q];
    if (all->count)
      append_line(text, json_pack("{s:s, s:s, s:s, s:s, s:I, s:f, s:f, s:f, s:f}", "kind", "latency", "kernel",
                                  s->spec.name, "quantity", quantities[q].name, "unit", quantities[q].unit, "count",
                                  (json_int_t)all->count, "least", quantile_of(all, 0), "median", quantile_of(all, 0.5),
                                  "p99", quantile_of(all, 0.99), "most", quantile_of(all, 1)));
  }
}

/* ---- the program ---- */

static pl_status open_subject(const char *path, subject *s) {
  PL_TRY(kernel_spec_read(path, &s->spec));
  for (size_t i = 0; i < sizeof languages / sizeof *languages; i++)
    if (strcasecmp(languages[i].name, s->spec.language) == 0) s->words = languages[i];
  PL_REQUIRE(s->words.name, "%s: there is no code in the language '%s' here", s->spec.name, s->spec.language);
  return PL_OK;
}

static pl_status run(const char *out, const char *const paths[], int count, int argc, char **argv) {
  subject subjects[KERNELS_MAX] = {0};
  pl_text text = {0};
  pl_status status = PL_OK;
  write_run(&text, argc, argv);
  for (int i = 0; status == PL_OK && i < count; i++) status = open_subject(paths[i], &subjects[i]);
  for (int i = 0; status == PL_OK && i < count; i++) {
    if (measure(&subjects[i]) != PL_OK) fprintf(stderr, "kernel_latency: %s\n", pl_message());
    write_series(&text, &subjects[i]);
  }
  if (status == PL_OK) print_table(subjects, count);
  if (status == PL_OK && out) status = pl_file_write(out, &(pl_piece){text.data, text.length}, 1);
  for (int i = 0; i < count; i++) {
    for (int q = 0; q < QUANTITIES; q++) free(subjects[i].all[q].values);
    json_decref(subjects[i].spec.file);
  }
  pl_text_release(&text);
  return status;
}

int main(int argc, char **argv) {
  const char *out = NULL, *paths[KERNELS_MAX];
  int count = 1;
  pl_text own = {0};
  if (pl_home_program(&own) != PL_OK) return fprintf(stderr, "kernel_latency: %s\n", pl_message()), 1;
  *(strrchr(own.data, '/') + 1) = 0;
  own.length = strlen(own.data);
  pl_text_print(&own, "perilune");
  paths[0] = own.data;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) return fputs(usage, stdout), 0;
    if (strcmp(argv[i], "--out") == 0 && i + 1 < argc)
      out = argv[++i];
    else if (*argv[i] != '-' && count < KERNELS_MAX)
      paths[count++] = argv[i];
    else
      return fprintf(stderr, "kernel_latency: unexpected '%s'\n%s", argv[i], usage), 1;
  }
  pl_status status = run(out, paths, count, argc, argv);
  if (status != PL_OK) fprintf(stderr, "kernel_latency: %s\n", pl_message());
  pl_text_release(&own);
  return status == PL_OK ? 0 : 1;
}
