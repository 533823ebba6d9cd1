/* cuBLAS under our own declarations, one handle and workspace per device. */
#include "host/cuda/blas.h"

#include <limits.h>

/* Numbers of cuBLAS's and CUDA's enumerations. */
enum { KEEP, TRANSPOSE };
enum { REAL_32 = 0, REAL_64 = 1, REAL_16 = 2, REAL_BF16 = 14 };
enum { COMPUTE_32 = 68, COMPUTE_64 = 70, COMPUTE_TF32 = 77 };
enum { DEFAULT_MATH = 0, NO_REDUCED_PRECISION_REDUCTION = 16 };
enum { ALGORITHM_DEFAULT = -1, WORKSPACE_BYTES = 32 << 20 };
enum { ALLOCATION_FAILED = 3, EXECUTION_FAILED = 13, INTERNAL_ERROR = 14 };

/* X(member, symbol, parameters) */
#define FUNCTIONS(X)                                                                                                   \
  X(create, "cublasCreate_v2", (pl_blas_handle * handle))                                                              \
  X(destroy, "cublasDestroy_v2", (pl_blas_handle handle))                                                              \
  X(set_stream, "cublasSetStream_v2", (pl_blas_handle handle, pl_cu_stream stream))                                    \
  X(set_workspace, "cublasSetWorkspace_v2", (pl_blas_handle handle, void *workspace, size_t bytes))                    \
  X(set_math_mode, "cublasSetMathMode", (pl_blas_handle handle, int mode))                                             \
  X(multiply, "cublasGemmStridedBatchedEx",                                                                            \
    (pl_blas_handle handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int a_type,         \
     int a_leading, long long a_stride, const void *b, int b_type, int b_leading, long long b_stride,                  \
     const void *beta, void *c, int c_type, int c_leading, long long c_stride, int batches, int compute,               \
     int algorithm))                                                                                                   \
  X(multiply_each, "cublasGemmBatchedEx",                                                                              \
    (pl_blas_handle handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *const *a, int a_type,  \
     int a_leading, const void *const *b, int b_type, int b_leading, const void *beta, void *const *c, int c_type,     \
     int c_leading, int batches, int compute, int algorithm))

static struct {
#define MEMBER(name, symbol, parameters) int(*name) parameters;
  FUNCTIONS(MEMBER)
#undef MEMBER
  const char *(*status_text)(int status);
} cublas;

/* cuBLAS tells of a lost context only that something failed: what the driver says then goes first. */
static pl_status check(pl_cuda *cuda, int status, const char *expression, int line) {
  if (status == 0) return PL_OK;
  if (status == EXECUTION_FAILED || status == INTERNAL_ERROR) {
    (void)PL_CUDA(pl_cu.StreamSynchronize(cuda->stream));
    PL_TRY(pl_cuda_lost());
  }
  if (status == ALLOCATION_FAILED) return pl_cuda_exhausted(cuda, "asked by cuBLAS");
  return pl_fail_at(PL_ERROR, expression, __FILE__, line, "cuBLAS: %s", cublas.status_text(status));
}
#define CHECK(call) check(cuda, (call), #call, __LINE__)

static pl_status load(void) {
  static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
  static const pl_symbol symbols[] = {
#define ENTRY(name, symbol, parameters) {symbol, &cublas.name},
      FUNCTIONS(ENTRY)
#undef ENTRY
          {"cublasGetStatusString", &cublas.status_text}};
  return pl_toolkit_load("cuda: cuBLAS, which matrix products need,",
                         "install CUDA's libcublas.so.13 (or libcublas.so.12, for a driver of CUDA 12), in NVIDIA's "
                         "packages libcublas-13-0 and the like",
                         names, symbols, sizeof symbols / sizeof *symbols);
}

pl_status pl_blas_open(void) {
  static pl_attempt attempt;
  return pl_attempt_once(&attempt, load);
}

static pl_status prepare(pl_cuda *cuda, pl_blas_handle handle) {
  PL_TRY(CHECK(cublas.set_stream(handle, cuda->stream)));
  PL_TRY(CHECK(cublas.set_workspace(handle, cuda->blas_workspace->data, WORKSPACE_BYTES)));
  return CHECK(cublas.set_math_mode(handle, DEFAULT_MATH | NO_REDUCED_PRECISION_REDUCTION));
}

static pl_status create(void *context) {
  pl_cuda *cuda = context;
  pl_blas_handle handle = NULL;
  PL_TRY(CHECK(cublas.create(&handle)));
  pl_status status = prepare(cuda, handle);
  if (status == PL_OK)
    cuda->blas = handle;
  else
    (void)cublas.destroy(handle);
  return status;
}

pl_status pl_blas_ready(pl_cuda *cuda) {
  if (cuda->blas) return PL_OK;
  PL_TRY(pl_blas_open());
  /* A workspace of our own keeps results the same from call to call and lets products be captured. */
  if (!cuda->blas_workspace) PL_TRY(pl_buffer_new(&cuda->device, WORKSPACE_BYTES, &cuda->blas_workspace));
  return pl_cuda_with_memory(cuda, create, cuda);
}

/* What both kinds of call are given besides the matrices' places. cuBLAS counts down columns: what it sees is
 * c^T = b^T a^T. */
typedef struct {
  int ta, tb, compute, type[3];
  float alpha_32, beta_32;
  double alpha, beta;
  bool wide;
} product;

static pl_status describe(pl_cuda *cuda, const int64_t size[4], const pl_blas_matrix *a, const pl_blas_matrix *b,
                          const pl_blas_matrix *c, product *p) {
  static const int number[PL_DTYPES] = {
      [PL_F16] = REAL_16, [PL_BF16] = REAL_BF16, [PL_F32] = REAL_32, [PL_F64] = REAL_64};
  PL_TRY(pl_blas_ready(cuda));
  bool fits = a->leading <= INT_MAX && b->leading <= INT_MAX && c->leading <= INT_MAX;
  for (int i = 0; i < 4; i++) fits = fits && size[i] <= INT_MAX;
  PL_REQUIRE(fits, "matmul: sizes past 2^31 are not supported");
  p->alpha_32 = (float)p->alpha, p->beta_32 = (float)p->beta;
  p->wide = c->type == PL_F64;
  p->compute = p->wide ? COMPUTE_64 : pl_tf32_allowed() && a->type == PL_F32 ? COMPUTE_TF32 : COMPUTE_32;
  p->ta = a->transposed ? TRANSPOSE : KEEP, p->tb = b->transposed ? TRANSPOSE : KEEP;
  p->type[0] = number[a->type], p->type[1] = number[b->type], p->type[2] = number[c->type];
  return PL_OK;
}

static const void *factor(const product *p, bool beta) {
  if (p->wide) return beta ? &p->beta : &p->alpha;
  return beta ? &p->beta_32 : &p->alpha_32;
}

pl_status pl_blas_multiply(pl_cuda *cuda, int64_t m, int64_t n, int64_t k, double alpha, const pl_blas_matrix *a,
                           const pl_blas_matrix *b, double beta, const pl_blas_matrix *c, int64_t batches) {
  product p = {.alpha = alpha, .beta = beta};
  PL_TRY(describe(cuda, (int64_t[]){m, n, k, batches}, a, b, c, &p));
  return CHECK(cublas.multiply(cuda->blas, p.tb, p.ta, (int)n, (int)m, (int)k, factor(&p, false), b->data, p.type[1],
                               (int)b->leading, b->batch_stride, a->data, p.type[0], (int)a->leading, a->batch_stride,
                               factor(&p, true), c->data, p.type[2], (int)c->leading, c->batch_stride, (int)batches,
                               p.compute, ALGORITHM_DEFAULT));
}

pl_status pl_blas_multiply_each(pl_cuda *cuda, int64_t m, int64_t n, int64_t k, double alpha, const pl_blas_matrix *a,
                                const pl_blas_matrix *b, double beta, const pl_blas_matrix *c, int64_t batches) {
  product p = {.alpha = alpha, .beta = beta};
  PL_TRY(describe(cuda, (int64_t[]){m, n, k, batches}, a, b, c, &p));
  return CHECK(cublas.multiply_each(cuda->blas, p.tb, p.ta, (int)n, (int)m, (int)k, factor(&p, false), b->data,
                                    p.type[1], (int)b->leading, a->data, p.type[0], (int)a->leading, factor(&p, true),
                                    c->data, p.type[2], (int)c->leading, (int)batches, p.compute, ALGORITHM_DEFAULT));
}
