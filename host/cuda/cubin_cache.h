/* Cubins kept on disk under the hash of all that they follow from, in a folder that any number of processes share. A
 * cache that cannot be read or written costs time and nothing else, so that is no failure. */
#ifndef PL_CUDA_CUBIN_CACHE_H
#define PL_CUDA_CUBIN_CACHE_H

#include "host/base/text.h"
#include <stdbool.h>

enum { PL_CUBIN_BYTES_MAX = 512 << 20 }; /* of the folder, from which a prune takes an eighth more than it must */

/* SHA-256 of a list of texts. */
typedef struct {
  unsigned char hash[32];
} pl_cubin_key;
void pl_cubin_key_of(const char *const texts[], int count, pl_cubin_key *key);

/* The folder cubin in that of pl_home_cache. Overwrites *folder. */
pl_status pl_cubin_folder(pl_text *folder);

/* Whether a whole cubin was kept under this key; it is now in *cubin. What is damaged, or was kept under another key
 * and renamed, counts as absent. */
bool pl_cubin_read(const pl_cubin_key *key, pl_text *cubin);
/* Keeps it, and prunes the folder at this process's first time and now and then. */
void pl_cubin_write(const pl_cubin_key *key, const pl_text *cubin);

/* When the folder holds more than `bytes_max`, removes what was read longest ago; and what writers that died left.
 * Others may read and write meanwhile: a reader has its file open, or compiles anew. */
void pl_cubin_prune(size_t bytes_max);

#endif
