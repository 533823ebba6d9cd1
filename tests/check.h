/* The frame of a C test: conditions that must hold, what the last message says, and the exit status. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include "host/base/status.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int failures;

/* Goes on after a condition that does not hold: what comes later may say more. */
#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition))                                                                                                  \
      fprintf(stderr, "%s:%d: %s; last message: %s\n", __FILE__, __LINE__, #condition, pl_message()), failures++;      \
  } while (0)

static inline bool says(const char *words) { return strstr(pl_message(), words) != NULL; }

/* main's result: what was checked goes in front of how often it failed. */
static inline int finished(const char *what) {
  printf("%s: %d failures\n", what, failures);
  return failures > 0;
}

/* main's result where what the test needs is not here, which the last message says. CMakeLists.txt knows the number. */
static inline int skipped(void) {
  enum { SKIPPED = 77 };
  printf("skipped: %s\n", pl_message());
  return SKIPPED;
}

#endif
