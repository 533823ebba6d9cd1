/* How quick a kernel is, seen by a front end: start, replies, output, interrupts, memory. Prints a table and, with
 * --out, writes JSON lines. */
#include "experiments/kernel_latency/measure.h"
#include "host/base/file.h"
#include "host/base/home.h"
#include "host/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: kernel_latency [--out FILE.jsonl] [KERNEL.json...]\n"
    "Measures the perilune that lies beside this program, and the kernels of the given files, one after the other.\n";

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

/* ---- telling ---- */

static void print_table(const subject *subjects, int count) {
  printf("%-41s %-6s %5s", "", "", "aim");
  for (int i = 0; i < count; i++) printf(" %12.12s", subjects[i].spec.name);
  for (int r = 0; r < ROWS; r++) {
    double quantile = rows[r].quantile;
    const char *which = quantile == 0.5 ? "median" : quantile == 1 ? "most" : quantile == 0 ? "least" : "p99";
    printf("\n%-41s %-6s %5s", quantities[rows[r].what].name, which, rows[r].aim);
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

static pl_status run(const char *out, const char *const paths[], int count, int argc, char **argv) {
  subject subjects[KERNELS_MAX] = {0};
  pl_text text = {0};
  pl_status status = PL_OK;
  write_run(&text, argc, argv);
  for (int i = 0; status == PL_OK && i < count; i++) status = subject_open(paths[i], &subjects[i]);
  for (int i = 0; status == PL_OK && i < count; i++) {
    if (subject_measure(&subjects[i]) != PL_OK) fprintf(stderr, "kernel_latency: %s\n", pl_message());
    write_series(&text, &subjects[i]);
  }
  if (status == PL_OK) print_table(subjects, count);
  if (status == PL_OK && out) status = pl_file_write(out, &(pl_piece){text.data, text.length}, 1);
  for (int i = 0; i < count; i++) subject_release(&subjects[i]);
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
