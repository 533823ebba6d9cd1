/* Loads OpenBLAS at run time, telling it about AVX-512 where its own detection may miss it. */
#include "host/cpu/blas.h"

#include "host/cpu/cpu.h"
#include <dlfcn.h>
#include <stdlib.h>

static pl_blas loaded;

pl_status pl_cpu_blas(const pl_blas **blas) {
  *blas = &loaded;
  if (loaded.sgemm) return PL_OK;
  /* Left to itself, OpenBLAS 0.3.21 ran at about a third of the speed on one Xeon with AVX-512. It reads the variable
   * when it is loaded; a user's own setting stands. */
  if (pl_cpu_kernels()->vector_bytes == 64) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
  setenv("OPENBLAS_NUM_THREADS", "1", 1); /* the caller splits products over its own threads */
  void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  PL_REQUIRE(library, "matrix products need OpenBLAS (Debian: libopenblas0): %s", dlerror());
  pl_blas found;
  *(void **)&found.sgemm = dlsym(library, "cblas_sgemm");
  *(void **)&found.dgemm = dlsym(library, "cblas_dgemm");
  PL_REQUIRE(found.sgemm && found.dgemm, "libopenblas.so.0 lacks cblas_sgemm or cblas_dgemm");
  loaded = found;
  return PL_OK;
}
