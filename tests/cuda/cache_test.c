/* The cache of compiled kernels: hits, damaged files, two processes at once, and what a text that does not compile
 * says. Needs no GPU; skips itself where NVRTC is missing. */
#include "host/base/file.h"
#include "host/cuda/nvrtc.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SKIPPED = 77, ARCHITECTURE = 90 };
static const char source[] = "extern \"C\" __global__ void twice(float *x) { x[threadIdx.x] *= FACTOR; }\n";
static int failures;

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition))                                                                                                  \
      fprintf(stderr, "line %d: %s; last message: %s\n", __LINE__, #condition, pl_message()), failures++;              \
  } while (0)

static bool compile(const char *options, pl_text *cubin) {
  return pl_nvrtc_compile("twice", source, options, ARCHITECTURE, cubin, NULL) == PL_OK;
}

/* How many files the cache holds; the path of the last one. */
static int cached(pl_text *path) {
  pl_text folder = {0};
  int count = 0;
  if (pl_nvrtc_cache(&folder) != PL_OK) return -1;
  DIR *directory = opendir(folder.data);
  for (struct dirent *entry; directory && (entry = readdir(directory));) {
    if (entry->d_name[0] == '.') continue;
    pl_text_clear(path);
    pl_text_print(path, "%s/%s", folder.data, entry->d_name);
    count++;
  }
  if (directory) closedir(directory);
  pl_text_release(&folder);
  return count;
}

static bool same(const pl_text *a, const pl_text *b) {
  return a->length == b->length && memcmp(a->data, b->data, a->length) == 0;
}

static void damaged_files(const pl_text *path, const pl_text *good) {
  pl_text file = {0}, again = {0};
  CHECK(pl_file_read(path->data, &file) == PL_OK);
  size_t lengths[] = {0, 7, 20, file.length / 2, file.length};
  for (int i = 0; i < 5; i++) {
    if (i == 4) file.data[file.length / 2] ^= 1; /* whole, but for one bit */
    CHECK(pl_file_write(path->data, &(pl_piece){file.data, lengths[i]}, 1) == PL_OK);
    CHECK(compile("-DFACTOR=2", &again) && same(good, &again));
    pl_text repaired = {0};
    CHECK(pl_file_read(path->data, &repaired) == PL_OK && repaired.length == file.length);
    pl_text_release(&repaired);
  }
  pl_text_release(&file);
  pl_text_release(&again);
}

static void two_processes(void) {
  pl_text cubin = {0}, path = {0};
  pid_t children[4];
  for (int i = 0; i < 4; i++)
    if ((children[i] = fork()) == 0) {
      bool fine = true;
      for (int k = 0; k < 5 && fine; k++) {
        char option[32];
        snprintf(option, sizeof option, "-DFACTOR=%d", 10 + k);
        fine = compile(option, &cubin) && memcmp(cubin.data, "\177ELF", 4) == 0;
      }
      _exit(fine ? 0 : 1);
    }
  for (int i = 0; i < 4; i++) {
    int status = 1;
    waitpid(children[i], &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  CHECK(cached(&path) == 2 + 5);
  pl_text_release(&path);
  pl_text_release(&cubin);
}

int main(void) {
  char folder[] = "/tmp/perilune-cubin-XXXXXX", command[64];
  if (!mkdtemp(folder)) return 1;
  setenv("XDG_CACHE_HOME", folder, 1);
  if (pl_nvrtc_open() != PL_OK) {
    printf("skipped: %s\n", pl_message());
    rmdir(folder);
    return SKIPPED;
  }
  pl_text first = {0}, again = {0}, path = {0}, log = {0};
  CHECK(compile("-DFACTOR=2", &first) && first.length > 0);
  CHECK(cached(&path) == 1);
  pl_compilations once = pl_nvrtc_compilations();
  CHECK(once.compiled == 1 && once.cached == 0 && once.most_ms > 0 && once.total_ms == once.most_ms);
  CHECK(compile("-DFACTOR=2", &again) && same(&first, &again) && cached(&path) == 1);
  pl_compilations twice = pl_nvrtc_compilations();
  CHECK(twice.compiled == 1 && twice.cached == 1 && twice.total_ms == once.total_ms);
  damaged_files(&path, &first);
  CHECK(compile("-DFACTOR=3", &again) && !same(&first, &again) && cached(&path) == 2);
  two_processes();

  CHECK(!compile("-DFACTOR=nonsense", &again));
  CHECK(strstr(pl_message(), "nonsense") && strstr(pl_message(), "does not compile for sm_90"));
  CHECK(pl_nvrtc_compile("twice", source, "-DFACTOR=2 --ptxas-options=-v", ARCHITECTURE, &again, &log) == PL_OK);
  CHECK(log.data && strstr(log.data, "registers"));

  pl_text many = {0};
  for (int i = 0; i < 61; i++) pl_text_print(&many, "-DFACTOR=2 ");
  CHECK(compile(many.data, &again) && same(&first, &again));
  pl_text_print(&many, "-DLAST");
  CHECK(!compile(many.data, &again) && strstr(pl_message(), "more options"));
  pl_text_release(&many);

  /* Where nothing can be written, kernels compile all the same. */
  setenv("XDG_CACHE_HOME", "/proc/nowhere", 1);
  CHECK(compile("-DFACTOR=2", &again) && same(&first, &again));

  pl_text_release(&first);
  pl_text_release(&again);
  pl_text_release(&path);
  pl_text_release(&log);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  if (system(command) != 0) failures++;
  printf("cache of compiled kernels: %d failures\n", failures);
  return failures > 0;
}
