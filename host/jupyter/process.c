/* Watching the processes that started the kernel, and ending those that it started. */
#include "host/jupyter/process.h"
#include "host/base/file.h"
#include "host/base/uuid.h"

#include <ctype.h>
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- what /proc tells of a process ---- */

static pl_status read_about(pid_t process, const char *what, pl_text *text) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%ld/%s", (long)process, what);
  return pl_file_read(path, text);
}

/* 0 when the process is not there, or has ended and only its parent has not heard of it. */
static pid_t parent_of(pid_t process) {
  pl_text text = {0};
  long parent = 0;
  char state = 'Z';
  if (read_about(process, "stat", &text) == PL_OK) {
    const char *behind_name = strrchr(text.data, ')'); /* the name may hold blanks and brackets */
    if (!behind_name || sscanf(behind_name + 1, " %c %ld", &state, &parent) != 2) parent = 0;
  }
  pl_text_release(&text);
  return state == 'Z' || state == 'X' ? 0 : (pid_t)parent;
}

/* Whether `process` is `of` or has started it, through however many others. */
static bool is_ancestor(pid_t process, pid_t of) {
  for (int generation = 0; of > 0 && generation < 1000; generation++, of = parent_of(of))
    if (of == process) return true;
  return false;
}

/* ---- who started this process ---- */

/* A file that becomes readable when the process ends; -1 where the system knows none (Linux before 5.3). The signal
 * that prctl(PR_SET_PDEATHSIG) asks for is no substitute: it comes when the parent's thread ends that started this
 * process, and front ends start kernels from threads of a pool. */
static int watch(pid_t process) { return (int)syscall(SYS_pidfd_open, process, 0); }

static bool has_ended(int file) {
  struct pollfd ended = {.fd = file, .events = POLLIN};
  return poll(&ended, 1, 0) > 0;
}

static void add_starter(pl_starters *s, pid_t process) {
  int file = watch(process);
  if (file >= 0) s->files[s->count++] = file;
}

void pl_starters_watch(pl_starters *s) {
  *s = (pl_starters){0};
  const char *variable = getenv("JPY_PARENT_PID");
  if (!variable) return;
  pid_t front_end = (pid_t)atol(variable);
  s->parent = getppid();
  if (s->parent == 1 && front_end != 1) s->parent = -1; /* the parent has ended already, and init taken its place */
  if (s->parent > 1) add_starter(s, s->parent);
  /* A shell may stand between. What is no ancestor may be a number of another PID namespace, and tells nothing. */
  if (front_end > 1 && front_end != s->parent && is_ancestor(front_end, s->parent)) add_starter(s, front_end);
}

bool pl_starters_gone(const pl_starters *s) {
  if (s->parent == 0) return false;
  for (int i = 0; i < s->count; i++)
    if (has_ended(s->files[i])) return true;
  return getppid() != s->parent; /* the parent ended before it was watched, or cannot be */
}

void pl_starters_release(pl_starters *s) {
  for (int i = 0; i < s->count; i++) close(s->files[i]);
  *s = (pl_starters){0};
}

/* ---- what this process started ---- */

static char mark[sizeof "PERILUNE_KERNEL=" + PL_UUID_BYTES];

void pl_children_mark(void) {
  char id[PL_UUID_BYTES];
  pl_uuid(id);
  snprintf(mark, sizeof mark, "PERILUNE_KERNEL=%s", id);
  setenv("PERILUNE_KERNEL", id, 1);
}

/* Whether the environment that the process was started with holds the mark. Children of children whose parents have
 * ended are known by it alone. */
static bool is_marked(pid_t process) {
  pl_text text = {0};
  bool marked = false;
  if (mark[0] && read_about(process, "environ", &text) == PL_OK)
    for (size_t at = 0; at < text.length && !marked; at += strlen(text.data + at) + 1)
      marked = strcmp(text.data + at, mark) == 0;
  pl_text_release(&text);
  return marked;
}

typedef struct {
  pid_t process, parent;
  bool own; /* this process, or started by it */
} entry;

/* Every process that runs; in the order of /proc. */
static entry *list_processes(size_t *count) {
  DIR *folder = opendir("/proc");
  size_t capacity = 0;
  entry *list = NULL;
  *count = 0;
  if (!folder) return NULL;
  for (struct dirent *file; (file = readdir(folder));) {
    pid_t process = (pid_t)atol(file->d_name), parent;
    if (!isdigit((unsigned char)file->d_name[0]) || (parent = parent_of(process)) == 0) continue;
    if (*count == capacity) {
      capacity = capacity ? 2 * capacity : 256;
      list = pl_reallocate(list, capacity * sizeof *list);
    }
    list[(*count)++] = (entry){process, parent, process == getpid() || is_marked(process)};
  }
  closedir(folder);
  return list;
}

/* Children of its own processes are its own. */
static void find_descendants(entry *list, size_t count) {
  bool found = true;
  while (found) {
    found = false;
    for (size_t i = 0; i < count; i++)
      for (size_t k = 0; k < count && !list[i].own; k++)
        if (list[k].own && list[k].process == list[i].parent) list[i].own = found = true;
  }
}

/* Sends the signal to all that this process started. Returns their number. */
static int signal_children(int number) {
  size_t count;
  int signalled = 0;
  entry *list = list_processes(&count);
  find_descendants(list, count);
  for (size_t i = 0; i < count; i++)
    if (list[i].own && list[i].process != getpid()) signalled += kill(list[i].process, number) == 0;
  free(list);
  return signalled;
}

enum { LOOK_MS = 10, TERMINATE_MS = 300, KILL_MS = 1000 };

/* Signals until nothing is left, for at most so long: new processes may be on their way all the time. */
static bool signal_until_gone(int number, int patience_ms) {
  struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
  for (int waited = 0; waited < patience_ms; waited += LOOK_MS) {
    if (signal_children(number) == 0) return true;
    nanosleep(&pause, NULL);
    number = number == SIGKILL ? SIGKILL : 0; /* once is enough to ask */
  }
  return false;
}

void pl_children_end(void) {
  if (!signal_until_gone(SIGTERM, TERMINATE_MS)) signal_until_gone(SIGKILL, KILL_MS);
}
