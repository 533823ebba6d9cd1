/* The cache of compiled kernels: hits, damaged and renamed files, several processes at once, its bound, and what a text
 * that does not compile says. Needs no GPU; skips itself where NVRTC is missing. */
#include "host/base/file.h"
#include "host/cuda/cubin_cache.h"
#include "host/cuda/nvrtc.h"
#include "tests/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ARCHITECTURE = 90 };
static const char source[] = "extern \"C\" __global__ void twice(float *x) { x[threadIdx.x] *= FACTOR; }\n";

static bool compile(const char *options, pl_text *cubin) {
  return pl_nvrtc_compile("twice", source, options, ARCHITECTURE, cubin, NULL) == PL_OK;
}

/* How many files the cache holds; the path of the last one. */
static int cached(pl_text *path) {
  pl_text folder = {0};
  int count = 0;
  if (pl_cubin_folder(&folder) != PL_OK) return -1;
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

static void key_path(const pl_cubin_key *key, pl_text *path) {
  CHECK(pl_cubin_folder(path) == PL_OK);
  pl_text_print(path, "/");
  for (size_t i = 0; i < sizeof key->hash; i++) pl_text_print(path, "%02x", key->hash[i]);
}

static bool same(const pl_text *a, const pl_text *b) {
  return a->length == b->length && memcmp(a->data, b->data, a->length) == 0;
}

/* An error behind more warnings than a message holds. */
static void error_behind_warnings(void) {
  pl_text text = {0}, cubin = {0};
  for (int i = 0; i < 400; i++) pl_text_print(&text, "__device__ void f%d() { int unused%d; }\n", i, i);
  pl_text_print(&text, "__device__ int wrong = nonsense;\n");
  CHECK(pl_nvrtc_compile("many", text.data, "", ARCHITECTURE, &cubin, NULL) == PL_ERROR);
  const char *message = pl_message_text(), *error = strstr(message, "nonsense"), *warning = strstr(message, "unused0");
  size_t length = strlen(message);
  CHECK(error && warning && error < warning);
  CHECK(length > 16000 && strcmp(message + length - 3, "...") == 0);
  pl_text_release(&text);
  pl_text_release(&cubin);
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

/* A cubin under another one's name is noticed, though it is whole. */
static void renamed_file(const pl_text *good) {
  pl_text again = {0};
  const char *texts[] = {"some", "text"};
  pl_cubin_key key;
  pl_cubin_key_of(texts, 2, &key);
  pl_cubin_write(&key, good);
  CHECK(pl_cubin_read(&key, &again) && same(good, &again));
  pl_text from = {0}, to = {0};
  key_path(&key, &from);
  pl_cubin_key swapped = key;
  swapped.hash[31] ^= 1;
  key_path(&swapped, &to);
  CHECK(rename(from.data, to.data) == 0);
  CHECK(!pl_cubin_read(&swapped, &again) && again.length == 0 && !pl_cubin_read(&key, &again));
  CHECK(unlink(to.data) == 0);
  const char *parts[] = {"somet", "ext"}; /* the same letters, cut elsewhere */
  pl_cubin_key_of(parts, 2, &swapped);
  CHECK(memcmp(&swapped, &key, sizeof key) != 0);
  pl_text_release(&again);
  pl_text_release(&from);
  pl_text_release(&to);
}

/* Four made-up cubins of a kilobyte, read at known times, and what else may lie in the folder. */
enum { CUBINS = 4, CUBIN_BYTES = 1024 };

static void age(const char *path, time_t seconds_ago) {
  struct timespec when[2] = {{.tv_sec = time(NULL) - seconds_ago}, {.tv_sec = time(NULL) - seconds_ago}};
  CHECK(utimensat(AT_FDCWD, path, when, 0) == 0);
}

static void write_beside(const char *path, const char *ending, time_t seconds_ago, pl_text *beside) {
  pl_text_clear(beside);
  pl_text_print(beside, "%s%s", path, ending);
  CHECK(pl_file_write(beside->data, &(pl_piece){"half", 4}, 1) == PL_OK);
  age(beside->data, seconds_ago);
}

static void pruning(void) {
  pl_text cubin = {0}, path[CUBINS] = {{0}}, dead = {0}, alive = {0}, foreign = {0}, got = {0};
  pl_cubin_key key[CUBINS];
  for (int i = 0; i < CUBIN_BYTES; i++) pl_text_append(&cubin, "x", 1);
  pl_cubin_prune(0);
  CHECK(cached(&got) == 0);
  for (int i = 0; i < CUBINS; i++) {
    const char *texts[] = {"prune", (const char *[]){"a", "b", "c", "d"}[i]};
    pl_cubin_key_of(texts, 2, &key[i]);
    pl_cubin_write(&key[i], &cubin);
    key_path(&key[i], &path[i]);
    age(path[i].data, 1000 - 100 * i);
  }
  write_beside(path[0].data, ".dead00", 2 * 3600, &dead);
  write_beside(path[0].data, ".alive0", 60, &alive);
  pl_text_clear(&got);
  CHECK(pl_cubin_folder(&got) == PL_OK);
  write_beside(got.data, "/README", 2 * 3600, &foreign);
  CHECK(pl_cubin_read(&key[0], &got)); /* the oldest, but now the last that was read */
  pl_cubin_prune(5 * CUBIN_BYTES);
  CHECK(access(dead.data, F_OK) != 0 && access(alive.data, F_OK) == 0);
  CHECK(cached(&got) == CUBINS + 2);
  pl_cubin_prune(3 * CUBIN_BYTES); /* two fit below seven eighths of it */
  CHECK(pl_cubin_read(&key[0], &got) && !pl_cubin_read(&key[1], &got) && !pl_cubin_read(&key[2], &got));
  CHECK(pl_cubin_read(&key[3], &got) && same(&got, &cubin));
  pl_cubin_prune(0);
  CHECK(access(alive.data, F_OK) == 0 && access(foreign.data, F_OK) == 0 && cached(&got) == 2);
  CHECK(unlink(alive.data) == 0 && unlink(foreign.data) == 0);
  for (int i = 0; i < CUBINS; i++) pl_text_release(&path[i]);
  pl_text_release(&cubin);
  pl_text_release(&dead);
  pl_text_release(&alive);
  pl_text_release(&foreign);
  pl_text_release(&got);
}

/* While one process removes everything again and again, others compile and read. */
static void pruned_meanwhile(void) {
  pl_text cubin = {0}, good = {0};
  CHECK(compile("-DFACTOR=2", &good));
  pid_t pruner = fork();
  if (pruner == 0)
    for (;;) pl_cubin_prune(0);
  for (int i = 0; i < 30; i++) CHECK(compile("-DFACTOR=2", &cubin) && same(&good, &cubin));
  kill(pruner, SIGKILL);
  waitpid(pruner, NULL, 0);
  pl_text_release(&cubin);
  pl_text_release(&good);
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
    rmdir(folder);
    return skipped();
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
  renamed_file(&first);
  two_processes();

  CHECK(!compile("-DFACTOR=nonsense", &again));
  CHECK(strstr(pl_message(), "nonsense") && strstr(pl_message(), "does not compile for sm_90"));
  error_behind_warnings();
  CHECK(pl_nvrtc_compile("twice", source, "-DFACTOR=2 --ptxas-options=-v", ARCHITECTURE, &again, &log) == PL_OK);
  CHECK(log.data && strstr(log.data, "registers"));

  pl_text many = {0};
  for (int i = 0; i < 61; i++) pl_text_print(&many, "-DFACTOR=2 ");
  CHECK(compile(many.data, &again) && same(&first, &again));
  pl_text_print(&many, "-DLAST");
  CHECK(!compile(many.data, &again) && strstr(pl_message(), "more options"));
  pl_text_release(&many);

  pruning();
  pruned_meanwhile();

  /* Where nothing can be written, kernels compile all the same. */
  setenv("XDG_CACHE_HOME", "/proc/nowhere", 1);
  CHECK(compile("-DFACTOR=2", &again) && same(&first, &again));

  pl_text_release(&first);
  pl_text_release(&again);
  pl_text_release(&path);
  pl_text_release(&log);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  if (system(command) != 0) failures++;
  return finished("cache of compiled kernels");
}
