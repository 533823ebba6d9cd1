/* The folder of cubins: names, contents, and the bound on its size. */
#include "host/cuda/cubin_cache.h"

#include "host/base/file.h"
#include "host/base/home.h"
#include <dirent.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(pl_cubin_key) == crypto_hash_sha256_BYTES, "a key is a SHA-256");
enum { NAME_LENGTH = 2 * sizeof(pl_cubin_key), BETWEEN_PRUNES = PL_CUBIN_BYTES_MAX / 16, DEAD_SECONDS = 3600 };

void pl_cubin_key_of(const char *const texts[], int count, pl_cubin_key *key) {
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  for (int i = 0; i < count; i++) /* with its end: {"ab", ""} is not {"a", "b"} */
    crypto_hash_sha256_update(&state, (const unsigned char *)texts[i], strlen(texts[i]) + 1);
  crypto_hash_sha256_final(&state, key->hash);
}

pl_status pl_cubin_folder(pl_text *folder) {
  PL_TRY(pl_home_cache(folder));
  pl_text_print(folder, "/cubin");
  return PL_OK;
}

/* ---- files: a mark, the SHA-256 of key and cubin, the cubin ---- */

static const char mark[8] = "PLcubin2";

static void digest_of(const pl_cubin_key *key, const char *cubin, size_t bytes, unsigned char digest[]) {
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  crypto_hash_sha256_update(&state, key->hash, sizeof key->hash);
  crypto_hash_sha256_update(&state, (const unsigned char *)cubin, bytes);
  crypto_hash_sha256_final(&state, digest);
}

static pl_status path_of(const pl_cubin_key *key, pl_text *path) {
  char hex[NAME_LENGTH + 1];
  PL_TRY(pl_cubin_folder(path));
  pl_text_print(path, "/%s", sodium_bin2hex(hex, sizeof hex, key->hash, sizeof key->hash));
  return PL_OK;
}

static bool whole(const pl_cubin_key *key, const pl_text *file, size_t head) {
  unsigned char digest[crypto_hash_sha256_BYTES];
  if (file->length <= head || memcmp(file->data, mark, sizeof mark) != 0) return false;
  digest_of(key, file->data + head, file->length - head, digest);
  return memcmp(digest, file->data + sizeof mark, sizeof digest) == 0;
}

bool pl_cubin_read(const pl_cubin_key *key, pl_text *cubin) {
  /* The time of reading by our own hand: file systems are mounted so that they do not note it. */
  static const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};
  const size_t head = sizeof mark + crypto_hash_sha256_BYTES;
  pl_text path = {0}, file = {0};
  bool found = path_of(key, &path) == PL_OK && pl_file_read(path.data, &file) == PL_OK && whole(key, &file, head);
  pl_text_clear(cubin);
  if (found) {
    pl_text_append(cubin, file.data + head, file.length - head);
    (void)utimensat(AT_FDCWD, path.data, now, 0);
  }
  pl_text_release(&path);
  pl_text_release(&file);
  return found;
}

void pl_cubin_write(const pl_cubin_key *key, const pl_text *cubin) {
  static atomic_size_t written = BETWEEN_PRUNES;
  unsigned char digest[crypto_hash_sha256_BYTES];
  pl_text folder = {0}, path = {0};
  digest_of(key, cubin->data, cubin->length, digest);
  const pl_piece pieces[] = {{mark, sizeof mark}, {digest, sizeof digest}, {cubin->data, cubin->length}};
  bool fine = pl_cubin_folder(&folder) == PL_OK && path_of(key, &path) == PL_OK &&
              pl_directory_create(folder.data) == PL_OK && pl_file_write(path.data, pieces, 3) == PL_OK;
  pl_text_release(&folder);
  pl_text_release(&path);
  if (!fine || atomic_fetch_add(&written, cubin->length) + cubin->length < BETWEEN_PRUNES) return;
  atomic_store(&written, 0);
  pl_cubin_prune(PL_CUBIN_BYTES_MAX);
}

/* ---- the bound ---- */

typedef struct {
  char name[NAME_LENGTH + 1];
  size_t bytes;
  struct timespec read;
} entry;

typedef struct {
  entry *list;
  size_t count, capacity, bytes;
} listing;

static int by_time(const void *left, const void *right) {
  const struct timespec *a = &((const entry *)left)->read, *b = &((const entry *)right)->read;
  if (a->tv_sec != b->tv_sec) return a->tv_sec < b->tv_sec ? -1 : 1;
  return a->tv_nsec < b->tv_nsec ? -1 : a->tv_nsec > b->tv_nsec;
}

/* Lists a cubin; removes the temporary file (NAME.something) of a writer that must be dead. */
static void look_at(int folder, const char *name, time_t now, listing *found) {
  struct stat file;
  if (strspn(name, "0123456789abcdef") != NAME_LENGTH || fstatat(folder, name, &file, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (name[NAME_LENGTH]) {
    if (name[NAME_LENGTH] == '.' && file.st_mtim.tv_sec + DEAD_SECONDS < now) (void)unlinkat(folder, name, 0);
    return;
  }
  if (found->count == found->capacity) {
    found->capacity = found->capacity ? 2 * found->capacity : 256;
    found->list = pl_reallocate(found->list, found->capacity * sizeof *found->list);
  }
  entry *e = &found->list[found->count++];
  *e = (entry){.bytes = (size_t)file.st_size, .read = file.st_atim};
  memcpy(e->name, name, NAME_LENGTH);
  found->bytes += e->bytes;
}

void pl_cubin_prune(size_t bytes_max) {
  pl_text path = {0};
  DIR *folder = pl_cubin_folder(&path) == PL_OK ? opendir(path.data) : NULL;
  pl_text_release(&path);
  if (!folder) return;
  listing found = {0};
  time_t now = time(NULL);
  for (struct dirent *e; (e = readdir(folder));) look_at(dirfd(folder), e->d_name, now, &found);
  if (found.bytes > bytes_max) {
    qsort(found.list, found.count, sizeof *found.list, by_time);
    for (size_t i = 0; i < found.count && found.bytes > bytes_max - bytes_max / 8; i++) {
      (void)unlinkat(dirfd(folder), found.list[i].name, 0);
      found.bytes -= found.list[i].bytes;
    }
  }
  free(found.list);
  closedir(folder);
}
