/* A made-up cuBLAS for tests without the toolkit: products do nothing, handles are counted, and the control file says
 * what fails. */
#include "tests/fakes/control.h"

int cublasCreate_v2(void **handle);
int cublasDestroy_v2(void *handle);
int cublasSetStream_v2(void *handle, void *stream);
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes);
int cublasSetMathMode(void *handle, int mode);
int cublasGemmStridedBatchedEx(void *handle);
int cublasGemmBatchedEx(void *handle);
const char *cublasGetStatusString(int status);

int fake_cublas_handles; /* that live */
static char anything;

int cublasCreate_v2(void **handle) {
  int status = (int)fake_setting("cublasCreate_v2", 0);
  if (status == 0) *handle = &anything, fake_cublas_handles++;
  return status;
}

int cublasDestroy_v2(void *handle) {
  (void)handle;
  fake_cublas_handles--;
  return 0;
}

int cublasSetStream_v2(void *handle, void *stream) {
  (void)handle, (void)stream;
  return (int)fake_setting("cublasSetStream_v2", 0);
}

int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes) {
  (void)handle, (void)workspace, (void)bytes;
  return (int)fake_setting("cublasSetWorkspace_v2", 0);
}

int cublasSetMathMode(void *handle, int mode) {
  (void)handle, (void)mode;
  return (int)fake_setting("cublasSetMathMode", 0);
}

/* The caller's further arguments are left where they are. */
int cublasGemmStridedBatchedEx(void *handle) {
  (void)handle;
  return (int)fake_setting("cublasGemmStridedBatchedEx", 0);
}

int cublasGemmBatchedEx(void *handle) {
  (void)handle;
  return (int)fake_setting("cublasGemmBatchedEx", 0);
}

const char *cublasGetStatusString(int status) {
  return status == 13   ? "CUBLAS_STATUS_EXECUTION_FAILED"
         : status == 14 ? "CUBLAS_STATUS_INTERNAL_ERROR"
                        : "CUBLAS_STATUS";
}
