/* The functions of the made-up driver library, under the symbols of the real one. */
#ifndef TESTS_FAKES_CUDA_H
#define TESTS_FAKES_CUDA_H

#include "host/cuda/driver.h"

#define DECLARE(name, symbol, parameters) pl_cu_result fake_##name parameters __asm__(symbol);
PL_DRIVER_FUNCTIONS(DECLARE)
#undef DECLARE

/* What the function returns: what the control file says, or 0; after an error that loses the context, always that. */
pl_cu_result fake_result(const char *symbol);

#endif
