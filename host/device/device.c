/* The list of devices, counted buffers, and each device's cache of freed buffers. */
#include "host/device/device.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES_MAX = 32, CLASSES = 64 * 8, CACHE_SLACK = 64 << 20 };

/* Freed memory by size class. Classes step by an eighth of a power of two, so a reused block wastes at most an eighth.
 */
typedef struct block {
  struct block *next;
  void *data;
} block;

/* Memory for reuse; of a recording also the buffers that were made meanwhile and are live. */
struct pl_pool {
  block *freed[CLASSES];
  pl_buffer **made;
  size_t made_count, made_capacity;
};

struct pl_cache {
  pl_pool pool;
  pl_pool *aside; /* that stands in for it while something is recorded, or NULL */
  block *spare;   /* block records without memory */
  pl_memory memory;
  size_t limit;
};

static pl_device *devices[DEVICES_MAX];
static int device_count;

void pl_device_register(pl_device *device) {
  if (device_count == DEVICES_MAX) return;
  device->cache = pl_allocate(sizeof *device->cache);
  device->cache->limit = SIZE_MAX;
  devices[device_count] = device;
  atomic_fetch_add(&device_count, 1); /* last: other threads may look */
}

int pl_device_count(void) { return device_count; }
pl_device *pl_device_at(int index) { return devices[index]; }

/* ---- kinds of devices, looked for on demand ---- */

enum { FAMILIES_MAX = 4 };
static struct {
  const pl_device_family *family;
  bool looked;
  char *failure; /* why nothing was found; kept for as long as the program runs */
} families[FAMILIES_MAX];
static int family_count;

void pl_device_family_register(const pl_device_family *family) {
  if (family_count < FAMILIES_MAX) families[family_count++].family = family;
}

static void look(int index) {
  if (families[index].looked) return;
  families[index].looked = true;
  if (families[index].family->find() != PL_OK) families[index].failure = pl_duplicate(pl_message_text());
}

void pl_device_find_all(void) {
  for (int i = 0; i < family_count; i++) look(i);
}

void pl_device_describe_all(pl_text *text) {
  pl_device_find_all();
  for (int i = 0; i < device_count; i++) {
    devices[i]->describe(devices[i], text);
    pl_text_print(text, "\n");
  }
  for (int i = 0; i < family_count; i++) {
    if (families[i].failure) pl_text_print(text, "%s\n", families[i].failure);
    families[i].family->describe(text);
  }
}

void pl_device_cell_text(const pl_cell *cell, pl_text *text) {
  for (int i = 0; i < family_count; i++) {
    const pl_device_family *family = families[i].family;
    if (!family->cell_text) continue;
    pl_text_print(text, "text compiled for %s\n", family->prefix);
    family->cell_text(cell, text);
  }
}

pl_status pl_device_fused(const pl_recurrence *recurrence, const pl_fused_chip *chip, pl_fused_details *details) {
  for (int i = 0; i < family_count; i++)
    if (families[i].family->fused) return families[i].family->fused(recurrence, chip, details);
  return PL_FAIL("plan: no kind of device here has a fused way");
}

/* ---- names ---- */

static pl_device *find_name(const char *name) {
  for (int i = 0; i < device_count; i++)
    if (strcmp(devices[i]->name, name) == 0) return devices[i];
  return NULL;
}

/* `why`: lines on devices of this kind that cannot be used, or NULL. */
static pl_status unknown(const char *name, const char *why) {
  pl_text known = {0};
  for (int i = 0; i < device_count; i++) pl_text_print(&known, "%s'%s'", i ? ", " : "", devices[i]->name);
  pl_status status = PL_FAIL("device: there is no '%s' here; expected one of %s%s%s", name,
                             known.data ? known.data : "none", why ? "; left out:\n" : "", why ? why : "");
  pl_text_release(&known);
  return status;
}

pl_status pl_device_named(const char *name, pl_device **device) {
  const char *why = NULL;
  *device = find_name(name);
  for (int i = 0; i < family_count && !*device; i++) {
    const char *prefix = families[i].family->prefix;
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0 || (name[length] != 0 && name[length] != ':')) continue;
    look(i);
    if (families[i].failure) return PL_FAIL("device: there is no '%s' here: %s", name, families[i].failure);
    char first[sizeof devices[0]->name];
    snprintf(first, sizeof first, "%s:0", prefix);
    *device = find_name(name[length] ? name : first);
    why = families[i].family->left_out();
  }
  return *device ? PL_OK : unknown(name, why);
}

/* ---- settings ---- */

static bool tf32;

void pl_tf32_allow(bool allowed) { tf32 = allowed; }
bool pl_tf32_allowed(void) { return tf32; }

/* ---- buffers ---- */

/* Rounds bytes up to its class's size and says which class that is. */
static size_t class_of(size_t bytes, int *index) {
  if (bytes < 512) bytes = 512;
  int power = 63 - __builtin_clzll((unsigned long long)bytes);
  size_t step = (size_t)1 << (power - 3);
  size_t rounded = (bytes + step - 1) & ~(step - 1);
  power = 63 - __builtin_clzll((unsigned long long)rounded);
  *index = power * 8 + (int)(rounded >> (power - 3) & 7);
  return rounded;
}

/* The inverse of class_of: eighths of the power of two. */
static size_t bytes_of(int index) { return ((size_t)8 + (size_t)(index & 7)) << (index / 8 - 3); }

static void *take(struct pl_cache *cache, pl_pool *pool, int index, size_t bytes) {
  block *found = pool->freed[index];
  if (!found) return NULL;
  pool->freed[index] = found->next;
  void *data = found->data;
  found->next = cache->spare;
  cache->spare = found;
  cache->memory.cached -= bytes;
  return data;
}

/* Room for `bytes` more under the limit: what devices keep for later calls goes first. */
static pl_status make_room(pl_device *device, size_t asked, size_t bytes) {
  struct pl_cache *cache = device->cache;
  while (bytes > cache->limit || cache->memory.live > cache->limit - bytes)
    if (!device->shed || !device->shed(device))
      return PL_FAIL_MEMORY("%s: out of memory: %zu bytes asked, %zu live, limit %zu; %zu cached, peak %zu",
                            device->name, asked, cache->memory.live, cache->limit, cache->memory.cached,
                            cache->memory.peak);
  return PL_OK;
}

/* New memory from the device; where it has none, first cached memory and then what is kept for later calls goes back,
 * what was used longest ago before the rest. */
static pl_status obtain(pl_device *device, size_t bytes, void **data) {
  pl_status status = device->allocate(device, bytes, data);
  bool more = true;
  while (status == PL_OUT_OF_MEMORY && more) {
    pl_device_trim(device);
    status = device->allocate(device, bytes, data);
    more = status == PL_OUT_OF_MEMORY && device->shed && device->shed(device);
  }
  return status;
}

static void add_made(pl_pool *pool, pl_buffer *buffer) {
  if (pool->made_count == pool->made_capacity) {
    pool->made_capacity = pool->made_capacity ? 2 * pool->made_capacity : 64;
    pool->made = pl_reallocate(pool->made, pool->made_capacity * sizeof *pool->made);
  }
  pool->made[pool->made_count++] = buffer;
}

/* The last are the first to go. */
static void remove_made(pl_pool *pool, const pl_buffer *buffer) {
  for (size_t i = pool->made_count; i-- > 0;)
    if (pool->made[i] == buffer) {
      pool->made[i] = pool->made[--pool->made_count];
      return;
    }
}

pl_status pl_buffer_new(pl_device *device, size_t bytes, pl_buffer **buffer) {
  struct pl_cache *cache = device->cache;
  int index;
  if (bytes > SIZE_MAX / 4) return PL_FAIL_MEMORY("%s: cannot allocate %zu bytes", device->name, bytes);
  size_t rounded = class_of(bytes, &index);
  PL_TRY(make_room(device, bytes, rounded));
  void *data = take(cache, cache->aside ? cache->aside : &cache->pool, index, rounded);
  if (!data) PL_TRY(obtain(device, rounded, &data));
  pl_buffer *made = pl_allocate(sizeof *made);
  *made = (pl_buffer){.count = 1, .device = device, .data = data, .bytes = rounded};
  if (cache->aside) add_made(cache->aside, made);
  cache->memory.live += rounded;
  cache->memory.buffers++;
  if (cache->memory.live > cache->memory.peak) cache->memory.peak = cache->memory.live;
  *buffer = made;
  return PL_OK;
}

void pl_buffer_retain(pl_buffer *buffer) { buffer->count++; }

void pl_buffer_release(pl_buffer *buffer) {
  if (!buffer || --buffer->count > 0) return;
  struct pl_cache *cache = buffer->device->cache;
  pl_pool *pool = cache->aside ? cache->aside : &cache->pool;
  int index;
  size_t bytes = class_of(buffer->bytes, &index);
  block *record = cache->spare;
  if (record)
    cache->spare = record->next;
  else
    record = pl_allocate(sizeof *record);
  if (cache->aside) remove_made(cache->aside, buffer);
  *record = (block){pool->freed[index], buffer->data};
  pool->freed[index] = record;
  cache->memory.live -= bytes;
  cache->memory.cached += bytes;
  cache->memory.buffers--;
  /* Sizes that keep changing leave blocks that nobody asks for again. */
  if (cache->memory.cached > cache->memory.peak + CACHE_SLACK) pl_device_trim(buffer->device);
  free(buffer);
}

void pl_device_memory(pl_device *device, pl_memory *memory) {
  const pl_memory *now = &device->cache->memory;
  memory->live = __atomic_load_n(&now->live, __ATOMIC_RELAXED);
  memory->cached = __atomic_load_n(&now->cached, __ATOMIC_RELAXED);
  memory->peak = __atomic_load_n(&now->peak, __ATOMIC_RELAXED);
  memory->buffers = __atomic_load_n(&now->buffers, __ATOMIC_RELAXED);
}
void pl_device_reset_peak(pl_device *device) { device->cache->memory.peak = device->cache->memory.live; }
void pl_device_limit(pl_device *device, size_t bytes) { device->cache->limit = bytes; }

void pl_device_trim(pl_device *device) {
  struct pl_cache *cache = device->cache;
  if (cache->aside) return; /* a device that records cannot take memory back */
  for (int index = 0; index < CLASSES; index++)
    while (cache->pool.freed[index])
      device->release(device, take(cache, &cache->pool, index, bytes_of(index)), bytes_of(index));
  while (cache->spare) {
    block *next = cache->spare->next;
    free(cache->spare);
    cache->spare = next;
  }
}

/* ---- memory of a recording ---- */

void pl_device_set_aside(pl_device *device) { device->cache->aside = pl_allocate(sizeof(pl_pool)); }

/* Bytes of a pool. */
static size_t pool_bytes(const pl_pool *pool) {
  size_t bytes = 0;
  for (int index = 0; index < CLASSES; index++)
    for (const block *b = pool->freed[index]; b; b = b->next) bytes += bytes_of(index);
  return bytes;
}

pl_pool *pl_device_set_back(pl_device *device) {
  struct pl_cache *cache = device->cache;
  pl_pool *pool = cache->aside;
  size_t bytes = pool_bytes(pool);
  cache->aside = NULL;
  for (size_t i = 0; i < pool->made_count; i++) pl_buffer_retain(pool->made[i]);
  cache->memory.cached -= bytes;
  cache->memory.live += bytes;
  return pool;
}

void pl_device_give_back(pl_device *device, pl_pool *pool) {
  struct pl_cache *cache = device->cache;
  size_t bytes = pool_bytes(pool);
  cache->memory.live -= bytes;
  cache->memory.cached += bytes;
  for (int index = 0; index < CLASSES; index++) {
    block **end = &pool->freed[index];
    while (*end) end = &(*end)->next;
    *end = cache->pool.freed[index];
    cache->pool.freed[index] = pool->freed[index];
  }
  for (size_t i = 0; i < pool->made_count; i++) pl_buffer_release(pool->made[i]);
  free(pool->made);
  free(pool);
}
