/* Writing and mapping token shards. */
#include "host/base/shard.h"

#include "host/base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are read as they lie in the file");

static const char MAGIC[8] = {'P', 'L', 'T', 'O', 'K', 'E', 'N', 'S'};

typedef struct {
  char magic[8];
  uint32_t version, width;
  uint64_t count, vocabulary, end, zero[3];
} header;
_Static_assert(sizeof(header) == 64, "the header has the size that the format says");

pl_status pl_shard_write(const char *path, const int64_t *ids, uint64_t count, uint64_t vocabulary, uint64_t end) {
  header h = {.version = 1, .width = vocabulary <= 1 << 16 ? 2 : 4, .count = count};
  memcpy(h.magic, MAGIC, sizeof MAGIC);
  h.vocabulary = vocabulary, h.end = end;
  void *narrow = malloc(count * h.width + 1);
  if (!narrow) return PL_FAIL_MEMORY("no memory for %llu ids", (unsigned long long)count);
  for (uint64_t i = 0; i < count; i++) {
    if (ids[i] < 1 || (uint64_t)ids[i] > vocabulary) {
      free(narrow);
      return PL_FAIL("ids: expected 1..%llu, got %lld at %llu", (unsigned long long)vocabulary, (long long)ids[i],
                     (unsigned long long)i + 1);
    }
    if (h.width == 2)
      ((uint16_t *)narrow)[i] = (uint16_t)(ids[i] - 1);
    else
      ((uint32_t *)narrow)[i] = (uint32_t)(ids[i] - 1);
  }
  pl_piece pieces[] = {{&h, sizeof h}, {narrow, count * h.width}};
  pl_status status = pl_file_write(path, pieces, 2);
  free(narrow);
  return status;
}

static pl_status check_header(const char *path, const header *h, size_t bytes) {
  PL_REQUIRE(memcmp(h->magic, MAGIC, sizeof MAGIC) == 0, "'%s' is no token shard: it does not begin with PLTOKENS",
             path);
  PL_REQUIRE(h->version == 1, "'%s': version %u of token shards is not known, 1 is", path, h->version);
  PL_REQUIRE(h->width == 2 || h->width == 4, "'%s': expected 2 or 4 bytes per id, got %u", path, h->width);
  PL_REQUIRE(h->count <= bytes / h->width && h->count * h->width == bytes - sizeof *h,
             "'%s': the header says %llu ids of %u bytes, the file has %zu bytes of them", path,
             (unsigned long long)h->count, h->width, bytes - sizeof *h);
  PL_REQUIRE(h->vocabulary > 0 && h->vocabulary <= UINT32_MAX && h->end <= h->vocabulary,
             "'%s': the vocabulary in the header cannot be", path);
  return PL_OK;
}

pl_status pl_shard_open(const char *path, pl_shard **out) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  PL_REQUIRE(file >= 0, "cannot open '%s': %s", path, strerror(errno));
  struct stat about;
  if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode) || (size_t)about.st_size < sizeof(header)) {
    close(file);
    return PL_FAIL("'%s' is no token shard: it is no file of 64 bytes or more", path);
  }
  size_t bytes = (size_t)about.st_size;
  void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, file, 0);
  int error = errno;
  close(file);
  PL_REQUIRE(map != MAP_FAILED, "cannot map '%s': %s", path, strerror(error));
  const header *h = map;
  pl_status status = check_header(path, h, bytes);
  if (status != PL_OK) {
    munmap(map, bytes);
    return status;
  }
  pl_shard *shard = pl_allocate(sizeof *shard);
  *shard = (pl_shard){1, map, bytes, h + 1, h->width, h->count, h->vocabulary, h->end};
  *out = shard;
  return PL_OK;
}

void pl_shard_release(pl_shard *shard) {
  if (!shard || --shard->references > 0) return;
  munmap(shard->map, shard->bytes);
  free(shard);
}
