/* Many jobs shared by as many processes as there are processors: each goes through all of them and does its part. */
#ifndef TESTS_CUDA_SHARE_H
#define TESTS_CUDA_SHARE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SHARE_MAX = 16 };
static int share_worker, share_workers, share_jobs, share_result[2];

/* From here on there are several processes. */
static inline void share_begin(void) {
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  share_workers = processors < 1 ? 1 : processors > SHARE_MAX ? SHARE_MAX : (int)processors;
  if (pipe(share_result) != 0) perror("pipe"), exit(1);
  fflush(NULL);
  for (int i = 1; i < share_workers && share_worker == 0; i++) {
    pid_t child = fork();
    if (child < 0) perror("fork"), exit(1);
    if (child == 0) share_worker = i;
  }
}

/* Asked once per job, by every process in the same order. */
static inline bool share_mine(void) { return share_jobs++ % share_workers == share_worker; }

/* Ends all processes but the first, where each of the sums becomes that of all. A process that did not come so far ends
 * the program. */
static inline void share_end(int sums[], int count) {
  ssize_t bytes = count * (ssize_t)sizeof *sums;
  if (share_worker > 0) {
    fflush(NULL);
    _exit(write(share_result[1], sums, (size_t)bytes) == bytes ? 0 : 1);
  }
  for (int i = 1; i < share_workers; i++) {
    int status, part[8];
    if (wait(&status) < 0 || status != 0 || read(share_result[0], part, (size_t)bytes) != bytes)
      fprintf(stderr, "a process of the test died\n"), exit(1);
    for (int k = 0; k < count; k++) sums[k] += part[k];
  }
}

#endif
