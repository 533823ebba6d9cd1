/* Token shards: the ids of a text as raw integers in a file, which is mapped into memory, never copied.
 *
 *   bytes  0..7   "PLTOKENS"
 *          8..11  version 1          (all integers little endian, unsigned)
 *         12..15  bytes per id: 2 or 4
 *         16..23  count of ids
 *         24..31  vocabulary: every id is below it
 *         32..39  id of the token that ends documents, plus 1; 0 where there is none
 *         40..63  zero
 *         64..    the ids, from 0 on
 */
#ifndef PL_BASE_SHARD_H
#define PL_BASE_SHARD_H

#include "host/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int references; /* counted on one thread */
  void *map;
  size_t bytes;
  const void *ids;
  uint32_t width;                  /* bytes per id */
  uint64_t count, vocabulary, end; /* end: as in the file */
} pl_shard;

/* Writes 1-based ids, atomically: the file is whole or not there. Ids must be in 1..vocabulary; end 1-based, or 0. */
pl_status pl_shard_write(const char *path, const int64_t *ids, uint64_t count, uint64_t vocabulary, uint64_t end);
/* Maps a file; an error names what is wrong with it. */
pl_status pl_shard_open(const char *path, pl_shard **shard);
void pl_shard_release(pl_shard *shard); /* NULL is fine */

/* The id at a place (from 0 on), 1-based; one that is past the vocabulary, in a damaged file, counts as the last. */
static inline int64_t pl_shard_at(const pl_shard *shard, uint64_t place) {
  uint64_t id = shard->width == 2 ? ((const uint16_t *)shard->ids)[place] : ((const uint32_t *)shard->ids)[place];
  return (int64_t)(id < shard->vocabulary ? id + 1 : shard->vocabulary);
}

#endif
