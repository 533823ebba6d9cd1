/* Byte-pair encoding: training merges on a text, and applying them. Ids are 0-based here. */
#ifndef PL_BASE_BPE_H
#define PL_BASE_BPE_H

#include "host/base/status.h"
#include <stddef.h>
#include <stdint.h>

/* Two neighbours that become one token. */
typedef struct {
  uint32_t left, right, made;
} pl_merge;

typedef struct pl_bpe pl_bpe;

/* The id of each byte, and the merges, the earliest first. */
pl_bpe *pl_bpe_new(const uint32_t byte_id[256], const pl_merge *merges, size_t count);
void pl_bpe_release(pl_bpe *bpe); /* NULL is fine */

/* Writes the ids of a text to `ids`, which has room for one a byte. */
pl_status pl_bpe_encode(const pl_bpe *bpe, const char *text, size_t length, uint32_t *ids, size_t *count);

/* Finds up to `most` merges of tokens that start as bytes (id = byte), the i-th making the id 256 + i: each time the
 * pair that is most frequent inside words; of equals the one with the smaller left, then right id; ends when no pair
 * comes twice. */
pl_status pl_bpe_train(const char *text, size_t length, pl_merge *merges, size_t most, size_t *count);

#endif
