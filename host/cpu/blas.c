/* Loads OpenBLAS at run time, telling it about AVX-512 where its own detection would miss it. */
#include "host/cpu/blas.h"

#include "host/cpu/cpu.h"
#include <dlfcn.h>
#include <stdlib.h>

static pl_blas loaded;

void pl_cpu_blas_threads(int threads) {
  if (loaded.set_threads) loaded.set_threads(threads);
}

pl_status pl_cpu_blas(const pl_blas **blas) {
  *blas = &loaded;
  if (loaded.sgemm) return PL_OK;
  /* OpenBLAS 0.3.21 takes newer processors with AVX-512 for Haswell and then runs at half their speed. It reads the
   * variable when it is loaded; a user's own setting stands. */
  if (pl_cpu_kernels()->vector_bytes == 64) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
  void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  PL_REQUIRE(library, "matrix products need OpenBLAS (Debian: libopenblas0): %s", dlerror());
  pl_blas found;
  *(void **)&found.sgemm = dlsym(library, "cblas_sgemm");
  *(void **)&found.dgemm = dlsym(library, "cblas_dgemm");
  *(void **)&found.set_threads = dlsym(library, "openblas_set_num_threads");
  PL_REQUIRE(found.sgemm && found.dgemm && found.set_threads, "libopenblas.so.0 lacks cblas_sgemm, cblas_dgemm or "
                                                              "openblas_set_num_threads");
  found.set_threads(pl_cpu_threads());
  loaded = found;
  return PL_OK;
}
