/* The kernel as a process among others: its standard files, the front end that started it, and what it started. */
#ifndef PL_JUPYTER_PROCESS_H
#define PL_JUPYTER_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* The processes whose end is this one's, too: the parent, and the front end where that is the parent's ancestor. */
enum { PL_STARTERS_MAX = 2 };
typedef struct {
  pid_t parent; /* 0: the kernel is meant to live on its own */
  int files[PL_STARTERS_MAX], count;
} pl_starters;

/* Begins to watch them, if Jupyter started this process: then JPY_PARENT_PID is set. Each of `files` becomes readable
 * when its process ends. */
void pl_starters_watch(pl_starters *starters);
/* Whether one of them has ended, also before the watch began. */
bool pl_starters_gone(const pl_starters *starters);
void pl_starters_release(pl_starters *starters);

/* From now on, what this process starts carries a mark in its environment. */
void pl_children_mark(void);
/* Ends everything that this process started and that still runs, also what has left its process group: with SIGTERM,
 * and with SIGKILL what does not heed it soon. From any thread. */
void pl_children_end(void);

#endif
