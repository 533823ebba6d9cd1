/* Byte-pair encoding. */
#include "host/base/bpe.h"

#include "host/base/pretoken.h"
#include "host/base/text.h"
#include <stdlib.h>
#include <string.h>

/* ---- a table from 64-bit keys to 64-bit values, with open addressing ---- */

typedef struct {
  uint64_t key; /* UINT64_MAX: free */
  int64_t value;
} entry;

typedef struct {
  entry *entries;
  size_t size, used; /* size is a power of two */
} table;

static table table_new(size_t size) {
  table t = {pl_allocate(size * sizeof(entry)), size, 0};
  memset(t.entries, 0xFF, size * sizeof(entry));
  return t;
}

static entry *table_find(const table *t, uint64_t key) {
  uint64_t mixed = key * 0x9E3779B97F4A7C15u; /* its upper half depends on all of the key */
  size_t at = (size_t)(mixed >> 32 ^ mixed >> 48) & (t->size - 1);
  while (t->entries[at].key != key && t->entries[at].key != UINT64_MAX) at = (at + 1) & (t->size - 1);
  return &t->entries[at];
}

/* The value of a key, which is 0 at first. */
static int64_t *table_at(table *t, uint64_t key) {
  if (2 * t->used >= t->size) {
    table larger = table_new(2 * t->size);
    for (size_t i = 0; i < t->size; i++)
      if (t->entries[i].key != UINT64_MAX) *table_find(&larger, t->entries[i].key) = t->entries[i];
    larger.used = t->used;
    free(t->entries);
    *t = larger;
  }
  entry *e = table_find(t, key);
  if (e->key == UINT64_MAX) {
    *e = (entry){key, 0};
    t->used++;
  }
  return &e->value;
}

static uint64_t pair(uint32_t left, uint32_t right) { return (uint64_t)left << 32 | right; }

/* ---- applying merges ---- */

struct pl_bpe {
  uint32_t byte_id[256];
  table ranks; /* pair -> 1 + place of its merge */
  pl_merge *merges;
};

pl_bpe *pl_bpe_new(const uint32_t byte_id[256], const pl_merge *merges, size_t count) {
  pl_bpe *bpe = pl_allocate(sizeof *bpe);
  memcpy(bpe->byte_id, byte_id, sizeof bpe->byte_id);
  bpe->merges = pl_allocate(count * sizeof *merges + 1);
  if (count > 0) memcpy(bpe->merges, merges, count * sizeof *merges);
  bpe->ranks = table_new(64);
  for (size_t i = 0; i < count; i++) {
    int64_t *rank = table_at(&bpe->ranks, pair(merges[i].left, merges[i].right));
    if (*rank == 0) *rank = (int64_t)i + 1;
  }
  return bpe;
}

void pl_bpe_release(pl_bpe *bpe) {
  if (!bpe) return;
  free(bpe->ranks.entries);
  free(bpe->merges);
  free(bpe);
}

/* Merges a pair wherever it stands, from left to right. Returns how many ids are left. */
static size_t merge_all(uint32_t *ids, size_t count, const pl_merge *m) {
  size_t to = 0;
  for (size_t from = 0; from < count; to++) {
    bool found = from + 1 < count && ids[from] == m->left && ids[from + 1] == m->right;
    ids[to] = found ? m->made : ids[from];
    from += found ? 2 : 1;
  }
  return to;
}

/* The earliest merge of any two neighbours, or NULL. */
static const pl_merge *earliest(const pl_bpe *bpe, const uint32_t *ids, size_t count) {
  int64_t best = INT64_MAX;
  for (size_t i = 0; i + 1 < count; i++) {
    const entry *e = table_find(&bpe->ranks, pair(ids[i], ids[i + 1]));
    if (e->key != UINT64_MAX && e->value < best) best = e->value;
  }
  return best == INT64_MAX ? NULL : &bpe->merges[best - 1];
}

pl_status pl_bpe_encode(const pl_bpe *bpe, const char *text, size_t length, uint32_t *ids, size_t *count) {
  size_t total = 0;
  for (size_t at = 0, end; at < length; at = end) {
    PL_TRY(pl_check_interrupt());
    end = pl_pretoken_end(text, length, at);
    size_t left = end - at;
    for (size_t i = 0; i < left; i++) ids[total + i] = bpe->byte_id[(unsigned char)text[at + i]];
    for (const pl_merge *m; (m = earliest(bpe, ids + total, left));) left = merge_all(ids + total, left, m);
    total += left;
  }
  *count = total;
  return PL_OK;
}

/* ---- training ---- */

typedef struct {
  size_t at, length; /* its ids in one array of all words */
  const char *text;
  size_t bytes;
  int64_t times;
} word;

/* Every word of the text once, with how often it comes; *ids holds their bytes, one word behind the other. */
static word *words_of(const char *text, size_t length, uint32_t **ids, size_t *count) {
  table places = table_new(1024); /* hash -> 1 + place; of words that share it the next hash */
  word *words = NULL;
  size_t capacity = 0, filled = 0;
  *ids = pl_allocate(length * sizeof **ids + 1);
  *count = 0;
  for (size_t at = 0, end; at < length; at = end) {
    end = pl_pretoken_end(text, length, at);
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (size_t i = at; i < end; i++) hash = (hash ^ (unsigned char)text[i]) * 0x100000001B3u;
    hash >>= 1;
    int64_t *place;
    for (;; hash++) {
      place = table_at(&places, hash);
      const word *w = *place > 0 ? &words[*place - 1] : NULL;
      if (!w || (w->bytes == end - at && memcmp(w->text, text + at, w->bytes) == 0)) break;
    }
    if (*place == 0) {
      if (*count == capacity) words = pl_reallocate(words, (capacity = capacity * 2 + 64) * sizeof *words);
      words[*count] = (word){filled, end - at, text + at, end - at, 0};
      for (size_t i = at; i < end; i++) (*ids)[filled++] = (unsigned char)text[i];
      *place = (int64_t)++ * count;
    }
    words[*place - 1].times++;
  }
  free(places.entries);
  return words;
}

static void count_pairs(table *pairs, const uint32_t *ids, const word *w, int64_t times) {
  for (size_t i = 0; i + 1 < w->length; i++) *table_at(pairs, pair(ids[w->at + i], ids[w->at + i + 1])) += times;
}

static const entry *most_frequent(const table *pairs) {
  const entry *best = NULL;
  for (size_t i = 0; i < pairs->size; i++) {
    const entry *e = &pairs->entries[i];
    if (e->key == UINT64_MAX || e->value < 2) continue;
    if (!best || e->value > best->value || (e->value == best->value && e->key < best->key)) best = e;
  }
  return best;
}

static bool holds(const uint32_t *ids, const word *w, const pl_merge *m) {
  for (size_t i = 0; i + 1 < w->length; i++)
    if (ids[w->at + i] == m->left && ids[w->at + i + 1] == m->right) return true;
  return false;
}

pl_status pl_bpe_train(const char *text, size_t length, pl_merge *merges, size_t most, size_t *count) {
  uint32_t *ids;
  size_t word_count;
  word *words = words_of(text, length, &ids, &word_count);
  table pairs = table_new(1024);
  for (size_t i = 0; i < word_count; i++) count_pairs(&pairs, ids, &words[i], words[i].times);
  pl_status status = PL_OK;
  const entry *best;
  for (*count = 0; *count < most && (best = most_frequent(&pairs)); ++*count) {
    if ((status = pl_check_interrupt()) != PL_OK) break;
    pl_merge m = {(uint32_t)(best->key >> 32), (uint32_t)best->key, (uint32_t)(256 + *count)};
    merges[*count] = m;
    for (size_t i = 0; i < word_count; i++) {
      word *w = &words[i];
      if (!holds(ids, w, &m)) continue;
      count_pairs(&pairs, ids, w, -w->times);
      w->length = merge_all(ids + w->at, w->length, &m);
      count_pairs(&pairs, ids, w, w->times);
    }
  }
  free(pairs.entries);
  free(words);
  free(ids);
  return status;
}
