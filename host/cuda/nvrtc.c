/* Device text and its compilation through NVRTC. */
#include "host/cuda/nvrtc.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/home.h"
#include "host/cuda/cubin_cache.h"
#include "host/cuda/driver.h"
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct program_ *program;
enum { COMPILATION_FAILED = 6, OPTIONS_MAX = 64 };

/* X(name, parameters): nvrtcNAME. */
#define FUNCTIONS(X)                                                                                                   \
  X(Version, (int *major, int *minor))                                                                                 \
  X(CreateProgram, (program * made, const char *source, const char *name, int headers, const char *const *texts,       \
                    const char *const *names))                                                                         \
  X(DestroyProgram, (program * made))                                                                                  \
  X(CompileProgram, (program made, int count, const char *const *options))                                             \
  X(GetCUBINSize, (program made, size_t * bytes))                                                                      \
  X(GetCUBIN, (program made, char *cubin))                                                                             \
  X(GetProgramLogSize, (program made, size_t * bytes))                                                                 \
  X(GetProgramLog, (program made, char *log))

static struct {
#define MEMBER(name, parameters) int(*name) parameters;
  FUNCTIONS(MEMBER)
#undef MEMBER
  const char *(*GetErrorString)(int result);
} nvrtc;
static char version[16];

static pl_status check(int result, const char *expression, int line) {
  if (result == 0) return PL_OK;
  return pl_fail_at(PL_ERROR, expression, __FILE__, line, "NVRTC: %s", nvrtc.GetErrorString(result));
}
#define TRY(call) PL_TRY(check((call), #call, __LINE__))

static pl_status load(void) {
  static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};
  static const pl_symbol symbols[] = {
#define ENTRY(name, parameters) {"nvrtc" #name, &nvrtc.name},
      FUNCTIONS(ENTRY)
#undef ENTRY
          {"nvrtcGetErrorString", &nvrtc.GetErrorString}};
  PL_TRY(pl_toolkit_load("cuda: NVRTC, which compiles kernels,",
                         "install CUDA's libnvrtc.so.13 (or libnvrtc.so.12, for a driver of CUDA 12), in NVIDIA's "
                         "packages cuda-nvrtc-13-0 and the like",
                         names, symbols, sizeof symbols / sizeof *symbols));
  int major, minor;
  TRY(nvrtc.Version(&major, &minor));
  snprintf(version, sizeof version, "%d.%d", major, minor);
  PL_REQUIRE(sodium_init() >= 0, "cuda: libsodium does not start");
  return PL_OK;
}

pl_status pl_nvrtc_open(void) {
  static pl_attempt attempt;
  return pl_attempt_once(&attempt, load);
}

const char *pl_nvrtc_version(void) { return version; }

/* ---- source text ---- */

/* `seen` lists the files already there, each between newlines. */
static pl_status append_file(const char *file, pl_text *source, pl_text *seen) {
  pl_text home = {0}, path = {0}, content = {0}, mark = {0};
  pl_text_print(&mark, "\n%s\n", file);
  pl_status status = PL_OK;
  if (!seen->data || !strstr(seen->data, mark.data)) {
    pl_text_print(seen, "%s", mark.data);
    status = pl_home_find(&home);
    if (status == PL_OK) pl_text_print(&path, "%s/kernels/%s", home.data, file);
    if (status == PL_OK) status = pl_file_read(path.data, &content);
    if (status == PL_OK) pl_text_print(source, "#line 1 \"%s\"\n", file);
    int line = 1;
    for (const char *at = content.data; status == PL_OK && at && *at; line++) {
      const char *end = strchr(at, '\n');
      size_t length = end ? (size_t)(end - at) + 1 : strlen(at);
      char included[64];
      if (sscanf(at, "#include \"%63[^\"\n]\"", included) == 1) {
        status = append_file(included, source, seen);
        pl_text_print(source, "#line %d \"%s\"\n", line + 1, file);
      } else
        pl_text_append(source, at, length);
      at += length;
    }
  }
  pl_text_release(&home);
  pl_text_release(&path);
  pl_text_release(&content);
  pl_text_release(&mark);
  return status;
}

pl_status pl_kernel_source(const char *file, pl_text *source) {
  pl_text seen = {0};
  pl_status status = append_file(file, source, &seen);
  pl_text_release(&seen);
  return status;
}

/* ---- compilation ---- */

/* Of every compilation, before the caller's. */
static const char *const fixed_options[] = {"--std=c++17", "--device-as-default-execution-space"};
enum { FIXED_OPTIONS = sizeof fixed_options / sizeof *fixed_options };

static void key_of(const char *source, const char *options, const char *target, pl_cubin_key *key) {
  const char *texts[FIXED_OPTIONS + 4] = {version, target, options, source};
  for (int i = 0; i < FIXED_OPTIONS; i++) texts[4 + i] = fixed_options[i];
  pl_cubin_key_of(texts, FIXED_OPTIONS + 4, key);
}

/* Cuts `words` at its spaces, behind the `count` options that are in `list`. */
static pl_status split_options(char *words, const char *list[OPTIONS_MAX], int *count) {
  char *rest = NULL;
  for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
    PL_REQUIRE(*count < OPTIONS_MAX, "cuda: more options for NVRTC than the %d that it is given at most", OPTIONS_MAX);
    list[(*count)++] = word;
  }
  return PL_OK;
}

/* From sm_90 on, a target of its own has the instructions that no later chip is sure to have; cubins run nowhere else.
 */
static const char *own_instructions(int architecture) { return architecture >= 90 ? "a" : ""; }

/* Appends the messages of NVRTC's log that are about errors, or all the others. A message is a line and the indented
 * and empty lines behind it. */
static void append_messages(const char *log, bool about_errors, pl_text *text) {
  while (*log) {
    const char *end = log, *error = strstr(log, "error");
    bool is_error = error && error < log + strcspn(log, "\n");
    do {
      end += strcspn(end, "\n");
      if (*end) end++;
    } while (*end == ' ' || *end == '\t' || *end == '\n');
    if (is_error == about_errors) pl_text_append(text, log, (size_t)(end - log));
    log = end;
  }
}

static pl_status compile_program(program made, const char *name, const char *options, int architecture, pl_text *cubin,
                                 pl_text *log) {
  char target[48], *words = pl_duplicate(options);
  const char *list[OPTIONS_MAX] = {target};
  int count = 1, result = 0;
  snprintf(target, sizeof target, "--gpu-architecture=sm_%d%s", architecture, own_instructions(architecture));
  for (int i = 0; i < FIXED_OPTIONS; i++) list[count++] = fixed_options[i];
  pl_status status = split_options(words, list, &count);
  if (status == PL_OK) result = nvrtc.CompileProgram(made, count, list);
  free(words);
  PL_TRY(status);
  size_t bytes = 0;
  pl_text said = {0};
  if (nvrtc.GetProgramLogSize(made, &bytes) == 0 && bytes > 1) {
    char *text = pl_allocate(bytes + 1);
    if (nvrtc.GetProgramLog(made, text) == 0) {
      /* An error behind many warnings would be cut off a failure's message. */
      append_messages(text, true, &said);
      append_messages(text, false, &said);
    }
    free(text);
  }
  if (result == COMPILATION_FAILED)
    status = PL_FAIL("cuda: %s does not compile for sm_%d with options '%s':\n%s", name, architecture, options,
                     said.data ? said.data : "(no log)");
  else if (result != 0)
    status = PL_FAIL("cuda: %s for sm_%d with options '%s': NVRTC: %s %s", name, architecture, options,
                     nvrtc.GetErrorString(result), said.data ? said.data : "");
  if (status == PL_OK && log) {
    pl_text_clear(log);
    pl_text_print(log, "%s", said.data ? said.data : "");
  }
  pl_text_release(&said);
  PL_TRY(status);
  TRY(nvrtc.GetCUBINSize(made, &bytes));
  char *data = pl_allocate(bytes ? bytes : 1);
  status = check(nvrtc.GetCUBIN(made, data), "nvrtcGetCUBIN", __LINE__);
  pl_text_clear(cubin);
  if (status == PL_OK) pl_text_append(cubin, data, bytes);
  free(data);
  return status;
}

static pl_compilations compilations;

pl_compilations pl_nvrtc_compilations(void) { return compilations; }

static pl_status compile_anew(const char *name, const char *source, const char *options, int architecture,
                              pl_text *cubin, pl_text *log) {
  program made = NULL;
  double began_ms = pl_now_ms();
  PL_TRY(check(nvrtc.CreateProgram(&made, source, name, 0, NULL, NULL), "nvrtcCreateProgram", __LINE__));
  pl_status status = compile_program(made, name, options, architecture, cubin, log);
  nvrtc.DestroyProgram(&made);
  PL_TRY(status);
  double ms = pl_now_ms() - began_ms;
  compilations.compiled++;
  compilations.total_ms += ms;
  if (ms > compilations.most_ms) compilations.most_ms = ms;
  return PL_OK;
}

pl_status pl_nvrtc_compile(const char *name, const char *source, const char *options, int architecture, pl_text *cubin,
                           pl_text *log) {
  PL_TRY(pl_nvrtc_open());
  char target[16];
  pl_cubin_key key;
  snprintf(target, sizeof target, "sm_%d%s", architecture, own_instructions(architecture));
  key_of(source, options, target, &key);
  if (!log && pl_cubin_read(&key, cubin)) {
    compilations.cached++;
    return PL_OK;
  }
  PL_TRY(compile_anew(name, source, options, architecture, cubin, log));
  pl_cubin_write(&key, cubin);
  return PL_OK;
}
