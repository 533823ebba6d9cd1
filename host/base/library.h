/* Libraries that the program does without until somebody needs one: opened at run time, their functions by table. */
#ifndef PL_BASE_LIBRARY_H
#define PL_BASE_LIBRARY_H

#include "host/base/status.h"
#include <stdbool.h>
#include <stddef.h>

/* Where to put the address of a symbol: `place` points to a pointer. */
typedef struct {
  const char *name;
  void *place;
} pl_symbol;

typedef struct {
  const char *what;         /* in messages: "cuda: NVRTC, which compiles kernels," */
  const char *advice;       /* how to get it: "install NVIDIA's package ..." */
  const char *const *names; /* file names, tried in turn */
  int name_count;
  const char *folder; /* where to look for each name behind the loader's own path; NULL: nowhere else */
  const pl_symbol *symbols;
  size_t symbol_count;
} pl_library;

/* Opens the first of the names that can be opened, which stays open, and fills in all symbols. A failure says which
 * library is missing and what the loader said of each name, or which symbol the library lacks, and the advice; then
 * nothing is filled in. */
pl_status pl_library_load(const pl_library *library);

/* Something that is tried once: later calls repeat the first one's result. {0} has not been tried. */
typedef struct {
  bool tried;
  char *failure; /* kept for as long as the program runs */
} pl_attempt;
pl_status pl_attempt_once(pl_attempt *attempt, pl_status (*work)(void));

#endif
