/* Processor time and memory as /proc tells them. What cannot be read counts as 0. */
#include "host/jupyter/usage.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/bind/session.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The kernel and all that it started, and what that started. */
typedef struct {
  double ticks, pages;
} processes;

static void read_proc(pl_text *text, const char *path) {
  if (pl_file_read(path, text) != PL_OK) pl_text_clear(text), pl_text_append(text, "", 0);
}

/* Field `number` of /proc/PID/stat as proc(5) counts; the second, the program's name, may hold blanks. */
static double stat_field(const char *text, int number) {
  const char *at = strrchr(text, ')');
  for (int i = 2; at && i < number; i++) at = strchr(at + 1, ' ');
  return at ? strtod(at + 1, NULL) : 0;
}

static void add_process(long pid, int depth, processes *sum);

/* Those that one thread of a process started: /proc/PID/task/TID/children. */
static void add_children(const char *path, int depth, processes *sum) {
  pl_text list = {0};
  read_proc(&list, path);
  char *at = list.data, *end;
  for (long pid; (pid = strtol(at, &end, 10)) > 0; at = end) add_process(pid, depth + 1, sum);
  pl_text_release(&list);
}

static void add_process(long pid, int depth, processes *sum) {
  enum { USER_TICKS = 14, SYSTEM_TICKS = 15, RESIDENT_PAGES = 24, DEPTH_MAX = 20 };
  pl_text path = {0}, text = {0};
  pl_text_print(&path, "/proc/%ld/stat", pid);
  read_proc(&text, path.data);
  sum->ticks += stat_field(text.data, USER_TICKS) + stat_field(text.data, SYSTEM_TICKS);
  sum->pages += stat_field(text.data, RESIDENT_PAGES);
  pl_text_clear(&path);
  pl_text_print(&path, "/proc/%ld/task", pid);
  DIR *threads = depth < DEPTH_MAX ? opendir(path.data) : NULL;
  for (const struct dirent *thread; threads && (thread = readdir(threads));) {
    if (thread->d_name[0] == '.') continue;
    pl_text_clear(&path);
    pl_text_print(&path, "/proc/%ld/task/%s/children", pid, thread->d_name);
    add_children(path.data, depth, sum);
  }
  if (threads) closedir(threads);
  pl_text_release(&path);
  pl_text_release(&text);
}

/* Ticks of all processors since the machine started: the first line of /proc/stat. */
static void read_host_ticks(double *busy, double *all) {
  enum { IDLE = 3, WAITING = 4, FIELDS = 8 }; /* user nice system idle iowait irq softirq steal */
  pl_text text = {0};
  read_proc(&text, "/proc/stat");
  char *at = strchr(text.data, ' ');
  *busy = *all = 0;
  for (int i = 0; at && i < FIELDS; i++) {
    double ticks = strtod(at, &at);
    *all += ticks;
    if (i != IDLE && i != WAITING) *busy += ticks;
  }
  pl_text_release(&text);
}

/* A line "NAME:   123 kB" of /proc/meminfo, in bytes. */
static double memory_field(const char *text, const char *name) {
  size_t length = strlen(name);
  for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL)
    if (strncmp(line, name, length) == 0 && line[length] == ':') return 1024 * strtod(line + length + 1, NULL);
  return 0;
}

static json_t *host_memory(void) {
  static const char *const names[][2] = {
      {"free", "MemFree"},  {"active", "Active"}, {"inactive", "Inactive"}, {"buffers", "Buffers"},
      {"cached", "Cached"}, {"shared", "Shmem"},  {"slab", "Slab"},
  };
  pl_text text = {0};
  read_proc(&text, "/proc/meminfo");
  double total = memory_field(text.data, "MemTotal"), available = memory_field(text.data, "MemAvailable");
  json_t *memory =
      json_pack("{s:I, s:I, s:f, s:I}", "total", (json_int_t)total, "available", (json_int_t)available, "percent",
                total > 0 ? 100 * (total - available) / total : 0.0, "used", (json_int_t)(total - available));
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    json_object_set_new(memory, names[i][0], json_integer((json_int_t)memory_field(text.data, names[i][1])));
  pl_text_release(&text);
  return memory;
}

static double percent(double part, double whole) { return whole > 0 && part > 0 ? 100 * part / whole : 0; }

json_t *pl_usage_read(pl_usage *last) {
  processes sum = {0};
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  add_process(getpid(), 0, &sum);
  pl_usage now = {.at_s = pl_now_ms() / 1000, .process_s = sum.ticks / (double)sysconf(_SC_CLK_TCK)};
  read_host_ticks(&now.host_busy, &now.host_all);
  if (last->at_s == 0) *last = now;
  json_t *usage = json_pack(
      "{s:s, s:s, s:I, s:f, s:I, s:f, s:I, s:o, s:o}", "status", "ok", "hostname", host, "pid", (json_int_t)getpid(),
      "kernel_cpu", percent(now.process_s - last->process_s, now.at_s - last->at_s), "kernel_memory",
      (json_int_t)(sum.pages * (double)sysconf(_SC_PAGESIZE)), "host_cpu_percent",
      percent(now.host_busy - last->host_busy, now.host_all - last->host_all), "cpu_count",
      (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "host_virtual_memory", host_memory(), "gpus", pl_session_gpus());
  *last = now;
  return usage;
}
