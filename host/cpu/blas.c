/* Loads OpenBLAS at run time, telling it about AVX-512 where its own detection may miss it. */
#include "host/cpu/blas.h"

#include "host/base/library.h"
#include "host/cpu/cpu.h"
#include <stdlib.h>

static pl_blas loaded;

static pl_status load(void) {
  static const char *const name = "libopenblas.so.0";
  static const pl_symbol symbols[] = {{"cblas_sgemm", &loaded.sgemm}, {"cblas_dgemm", &loaded.dgemm}};
  /* Left to itself, OpenBLAS 0.3.21 ran at about a third of the speed on one Xeon with AVX-512. It reads the variable
   * when it is loaded; a user's own setting stands. */
  if (pl_cpu_kernels()->vector_bytes == 64) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
  setenv("OPENBLAS_NUM_THREADS", "1", 1); /* the caller splits products over its own threads */
  return pl_library_load(&(pl_library){.what = "OpenBLAS, which matrix products need,",
                                       .advice = "install libopenblas0",
                                       .names = &name,
                                       .name_count = 1,
                                       .symbols = symbols,
                                       .symbol_count = 2});
}

pl_status pl_cpu_blas(const pl_blas **blas) {
  static pl_attempt attempt;
  *blas = &loaded;
  return pl_attempt_once(&attempt, load);
}
