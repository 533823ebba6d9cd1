/* A made-up driver library for tests without a GPU: every function that the program asks for succeeds and does nothing,
 * unless cuda.c has a better one or the control file says what it returns. */
#include "tests/fakes/cuda.h"

#define DEFINE(name, symbol, parameters)                                                                               \
  __attribute__((weak)) pl_cu_result fake_##name parameters { return fake_result(symbol); }
PL_DRIVER_FUNCTIONS(DEFINE)
