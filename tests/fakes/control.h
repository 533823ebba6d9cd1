/* What the made-up CUDA libraries do: lines "WORD NUMBER" in the file that PERILUNE_FAKE names, read at every call so
 * that a test can change its mind. A WORD is a function, which then returns NUMBER, or a setting. */
#ifndef TESTS_FAKES_CONTROL_H
#define TESTS_FAKES_CONTROL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline long long fake_setting(const char *word, long long otherwise) {
  const char *path = getenv("PERILUNE_FAKE");
  FILE *file = path ? fopen(path, "r") : NULL;
  char name[64];
  long long number, found = otherwise;
  while (file && fscanf(file, "%63s %lld", name, &number) == 2)
    if (strcmp(name, word) == 0) found = number;
  if (file) fclose(file);
  return found;
}

#endif
