/* cuBLAS under our own declarations, one handle and workspace per device. */
#include "host/cuda/blas.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>

/* Numbers of cuBLAS's and CUDA's enumerations. */
enum { KEEP, TRANSPOSE };
enum { REAL_32 = 0, REAL_64 = 1, REAL_16 = 2, REAL_BF16 = 14 };
enum { COMPUTE_32 = 68, COMPUTE_64 = 70, COMPUTE_TF32 = 77 };
enum { DEFAULT_MATH = 0, NO_REDUCED_PRECISION_REDUCTION = 16 };
enum { ALGORITHM_DEFAULT = -1, WORKSPACE_BYTES = 32 << 20 };

/* X(member, symbol, parameters) */
#define FUNCTIONS(X)                                                                                                   \
  X(create, "cublasCreate_v2", (pl_blas_handle * handle))                                                              \
  X(set_stream, "cublasSetStream_v2", (pl_blas_handle handle, pl_cu_stream stream))                                    \
  X(set_workspace, "cublasSetWorkspace_v2", (pl_blas_handle handle, void *workspace, size_t bytes))                    \
  X(set_math_mode, "cublasSetMathMode", (pl_blas_handle handle, int mode))                                             \
  X(multiply, "cublasGemmStridedBatchedEx",                                                                            \
    (pl_blas_handle handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int a_type,         \
     int a_leading, long long a_stride, const void *b, int b_type, int b_leading, long long b_stride,                  \
     const void *beta, void *c, int c_type, int c_leading, long long c_stride, int batches, int compute,               \
     int algorithm))

static struct {
#define MEMBER(name, symbol, parameters) int(*name) parameters;
  FUNCTIONS(MEMBER)
#undef MEMBER
  const char *(*status_text)(int status);
} cublas;

static pl_status check(int status, const char *expression, int line) {
  if (status == 0) return PL_OK;
  return pl_fail_at(PL_ERROR, expression, __FILE__, line, "cuBLAS: %s",
                    cublas.status_text ? cublas.status_text(status) : "failed");
}
#define TRY(call) PL_TRY(check((call), #call, __LINE__))

static pl_status load(void) {
  static const char *const newest_first[] = {"libcublas.so.13", "libcublas.so.12"};
  bool old_driver = pl_driver_version() > 0 && pl_driver_version() < 13000;
  void *library = pl_library_open(newest_first + old_driver, 2 - old_driver);
  PL_REQUIRE(library, "cuda: matrix products need cuBLAS (libcublas.so.13 or libcublas.so.12, as new as the driver at "
                      "most), which is neither in the library path nor in /usr/local/cuda/lib64");
#define LOAD(name, symbol, parameters)                                                                                 \
  *(void **)&cublas.name = dlsym(library, symbol);                                                                     \
  PL_REQUIRE(cublas.name, "cuda: cuBLAS lacks " symbol);
  FUNCTIONS(LOAD)
#undef LOAD
  *(void **)&cublas.status_text = dlsym(library, "cublasGetStatusString");
  return PL_OK;
}

pl_status pl_blas_open(void) {
  static char *failure; /* of the first attempt; kept for as long as the program runs */
  static bool tried;
  if (!tried) {
    tried = true;
    if (load() != PL_OK) failure = pl_duplicate(pl_message_text());
  }
  return failure ? PL_FAIL("%s", failure) : PL_OK;
}

pl_status pl_blas_ready(pl_cuda *cuda) {
  if (cuda->blas) return PL_OK;
  PL_TRY(pl_blas_open());
  /* A workspace of our own keeps results the same from call to call and lets products be captured. */
  if (!cuda->blas_workspace) PL_CUDA_TRY(pl_cu.MemAlloc(&cuda->blas_workspace, WORKSPACE_BYTES));
  pl_blas_handle handle;
  TRY(cublas.create(&handle));
  TRY(cublas.set_stream(handle, cuda->stream));
  TRY(cublas.set_workspace(handle, (void *)(uintptr_t)cuda->blas_workspace, WORKSPACE_BYTES));
  TRY(cublas.set_math_mode(handle, DEFAULT_MATH | NO_REDUCED_PRECISION_REDUCTION));
  cuda->blas = handle;
  return PL_OK;
}

pl_status pl_blas_multiply(pl_cuda *cuda, int64_t m, int64_t n, int64_t k, double alpha, const pl_blas_matrix *a,
                           const pl_blas_matrix *b, double beta, const pl_blas_matrix *c, int64_t batches) {
  static const int number[PL_DTYPES] = {
      [PL_F16] = REAL_16, [PL_BF16] = REAL_BF16, [PL_F32] = REAL_32, [PL_F64] = REAL_64};
  PL_TRY(pl_blas_ready(cuda));
  PL_REQUIRE(a->leading <= INT_MAX && b->leading <= INT_MAX && c->leading <= INT_MAX && m <= INT_MAX && n <= INT_MAX &&
                 k <= INT_MAX && batches <= INT_MAX,
             "matmul: sizes past 2^31 are not supported");
  bool wide = c->type == PL_F64;
  float alpha_32 = (float)alpha, beta_32 = (float)beta;
  int compute = wide ? COMPUTE_64 : pl_tf32_allowed() && a->type == PL_F32 ? COMPUTE_TF32 : COMPUTE_32;
  /* cuBLAS counts down columns: what it sees is c^T = b^T a^T. */
  TRY(cublas.multiply(cuda->blas, b->transposed ? TRANSPOSE : KEEP, a->transposed ? TRANSPOSE : KEEP, (int)n, (int)m,
                      (int)k, wide ? (void *)&alpha : (void *)&alpha_32, b->data, number[b->type], (int)b->leading,
                      b->batch_stride, a->data, number[a->type], (int)a->leading, a->batch_stride,
                      wide ? (void *)&beta : (void *)&beta_32, c->data, number[c->type], (int)c->leading,
                      c->batch_stride, (int)batches, compute, ALGORITHM_DEFAULT));
  return PL_OK;
}
