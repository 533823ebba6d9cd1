/* A made-up NVRTC for tests without the toolkit: whatever the text, it makes the same small file, or the failure that
 * the control file asks for, with a log. */
#include "tests/fakes/control.h"

int nvrtcVersion(int *major, int *minor);
int nvrtcCreateProgram(void **made, const char *source, const char *name, int headers, const char *const *texts,
                       const char *const *names);
int nvrtcDestroyProgram(void **made);
int nvrtcCompileProgram(void *made, int count, const char *const *options);
int nvrtcGetCUBINSize(void *made, size_t *bytes);
int nvrtcGetCUBIN(void *made, char *cubin);
int nvrtcGetProgramLogSize(void *made, size_t *bytes);
int nvrtcGetProgramLog(void *made, char *log);
const char *nvrtcGetErrorString(int result);

static const char cubin_made[] = "\177ELF, or so it begins",
                  log_made[] = "made-up.cu(1): error: \"nonsense\" is undefined";
static char anything;

int nvrtcVersion(int *major, int *minor) {
  *major = 13, *minor = 0;
  return 0;
}

int nvrtcCreateProgram(void **made, const char *source, const char *name, int headers, const char *const *texts,
                       const char *const *names) {
  (void)source, (void)name, (void)headers, (void)texts, (void)names;
  *made = &anything;
  return 0;
}

int nvrtcDestroyProgram(void **made) {
  *made = NULL;
  return 0;
}

int nvrtcCompileProgram(void *made, int count, const char *const *options) {
  (void)made, (void)count, (void)options;
  return (int)fake_setting("nvrtcCompileProgram", 0);
}

int nvrtcGetCUBINSize(void *made, size_t *bytes) {
  (void)made;
  *bytes = sizeof cubin_made;
  return 0;
}

int nvrtcGetCUBIN(void *made, char *cubin) {
  (void)made;
  memcpy(cubin, cubin_made, sizeof cubin_made);
  return 0;
}

int nvrtcGetProgramLogSize(void *made, size_t *bytes) {
  (void)made;
  *bytes = fake_setting("nvrtcCompileProgram", 0) ? sizeof log_made : 1;
  return 0;
}

int nvrtcGetProgramLog(void *made, char *log) {
  (void)made;
  memcpy(log, log_made, sizeof log_made);
  return 0;
}

const char *nvrtcGetErrorString(int result) { return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
