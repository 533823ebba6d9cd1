/* Compiled kernels of a device, found by key; the modules that they lie in; their launch. */
#include "host/cuda/cubin_cache.h"
#include "host/cuda/cuda.h"
#include "host/cuda/nvrtc.h"
#include <stdlib.h>
#include <string.h>

enum { IDLE_MODULES_MAX = 64 };

/* Modules of texts that somebody made up at run time: keys of pl_cuda_key. There is no end of them, so they are
 * unloaded when nobody holds them and many others were used since. */
static const uint64_t PASSING = (uint64_t)1 << 63;

/* One compiled text on the device, whatever number of its functions is known. */
typedef struct {
  pl_cubin_key text; /* of file, prelude and options */
  pl_cu_module handle;
  bool stays; /* for as long as the program runs */
  int holders;
  uint64_t used; /* when */
} module;

/* An open table of functions; a NULL function marks a free place. */
typedef struct {
  size_t capacity, count; /* capacity: a power of two */
  struct place {
    uint64_t key;
    pl_cu_function function;
    module *from;
  } * place;
} functions;

struct pl_cuda_kernels {
  functions known;
  module **modules;
  size_t module_count, module_capacity;
  uint64_t ticks;
};

/* ---- functions by key ---- */

static struct place *place_of(const functions *known, uint64_t key) {
  size_t at = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32) & (known->capacity - 1);
  while (known->place[at].function && known->place[at].key != key) at = (at + 1) & (known->capacity - 1);
  return &known->place[at];
}

pl_cu_function pl_cuda_kernel_found(const pl_cuda *cuda, uint64_t key) {
  struct pl_cuda_kernels *kernels = cuda->kernels;
  if (!kernels) return NULL;
  struct place *found = place_of(&kernels->known, key);
  if (found->function && key & PASSING) found->from->used = ++kernels->ticks;
  return found->function;
}

/* The same table with room for more, and without the functions of `gone`. */
static void rebuild(functions *known, size_t capacity, const module *gone) {
  functions old = *known;
  *known = (functions){.capacity = capacity, .place = pl_allocate(capacity * sizeof *known->place)};
  for (size_t i = 0; i < old.capacity; i++)
    if (old.place[i].function && old.place[i].from != gone) {
      *place_of(known, old.place[i].key) = old.place[i];
      known->count++;
    }
  free(old.place);
}

static void remember(functions *known, uint64_t key, pl_cu_function function, module *from) {
  if (2 * known->count >= known->capacity) rebuild(known, 2 * known->capacity, NULL);
  *place_of(known, key) = (struct place){key, function, from};
  known->count++;
}

/* ---- modules ---- */

typedef struct {
  pl_cuda *cuda;
  const char *cubin;
  pl_cu_module handle;
} loading;

static pl_status load(void *context) {
  loading *l = context;
  pl_cu_result result = pl_cu.ModuleLoadData(&l->handle, l->cubin);
  if (result == PL_CU_OUT_OF_MEMORY) return pl_cuda_exhausted(l->cuda, "asked for a kernel");
  return pl_cuda_check(result, "pl_cu.ModuleLoadData", __FILE__, __LINE__);
}

static pl_status compile_and_load(pl_cuda *cuda, const char *file, const char *prelude, const char *options,
                                  pl_cu_module *handle) {
  pl_text source = {0}, cubin = {0};
  pl_text_print(&source, "%s", prelude);
  pl_status status = pl_kernel_source(file, &source);
  if (status == PL_OK) status = pl_nvrtc_compile(file, source.data, options, cuda->architecture, &cubin, NULL);
  if (status == PL_OK) {
    loading l = {.cuda = cuda, .cubin = cubin.data};
    status = pl_cuda_with_memory(cuda, load, &l);
    *handle = l.handle;
  }
  pl_text_release(&source);
  pl_text_release(&cubin);
  return status;
}

/* The module of this text, which is compiled and loaded when it is not there. */
static pl_status module_of(pl_cuda *cuda, const char *file, const char *prelude, const char *options, module **found) {
  struct pl_cuda_kernels *kernels = cuda->kernels;
  pl_cubin_key text;
  pl_cubin_key_of((const char *[]){file, prelude, options}, 3, &text);
  for (size_t i = 0; i < kernels->module_count; i++)
    if (memcmp(&kernels->modules[i]->text, &text, sizeof text) == 0) {
      *found = kernels->modules[i];
      return PL_OK;
    }
  pl_cu_module handle = NULL;
  PL_TRY(compile_and_load(cuda, file, prelude, options, &handle));
  if (kernels->module_count == kernels->module_capacity) {
    kernels->module_capacity = kernels->module_capacity ? 2 * kernels->module_capacity : 64;
    kernels->modules = pl_reallocate(kernels->modules, kernels->module_capacity * sizeof *kernels->modules);
  }
  *found = kernels->modules[kernels->module_count++] = pl_allocate(sizeof **found);
  **found = (module){.text = text, .handle = handle};
  return PL_OK;
}

static void unload(struct pl_cuda_kernels *kernels, size_t at) {
  module *gone = kernels->modules[at];
  rebuild(&kernels->known, kernels->known.capacity, gone);
  kernels->modules[at] = kernels->modules[--kernels->module_count];
  (void)PL_CUDA(pl_cu.ModuleUnload(gone->handle));
  free(gone);
}

/* How many modules nobody holds, and the place of the one of them that was used longest ago. */
static int count_idle(const struct pl_cuda_kernels *kernels, size_t *oldest) {
  int idle = 0;
  for (size_t i = 0; i < kernels->module_count; i++) {
    const module *m = kernels->modules[i];
    if (m->stays || m->holders > 0) continue;
    if (idle++ == 0 || m->used < kernels->modules[*oldest]->used) *oldest = i;
  }
  return idle;
}

static void unload_idle(pl_cuda *cuda) {
  size_t oldest = 0;
  if (cuda->recording || count_idle(cuda->kernels, &oldest) <= IDLE_MODULES_MAX) return;
  /* A kernel of theirs may still be waiting in the stream. */
  if (PL_CUDA(pl_cu.StreamSynchronize(cuda->stream)) != PL_OK) return;
  while (count_idle(cuda->kernels, &oldest) > IDLE_MODULES_MAX) unload(cuda->kernels, oldest);
}

pl_status pl_cuda_kernel_load(pl_cuda *cuda, uint64_t key, const char *file, const char *prelude, const char *options,
                              const char *name, pl_cu_function *function) {
  if (!cuda->kernels) {
    cuda->kernels = pl_allocate(sizeof *cuda->kernels);
    rebuild(&cuda->kernels->known, 256, NULL);
  }
  struct pl_cuda_kernels *kernels = cuda->kernels;
  module *from;
  PL_TRY(module_of(cuda, file, prelude ? prelude : "", options, &from));
  from->used = ++kernels->ticks;
  pl_status status = PL_CUDA(pl_cu.ModuleGetFunction(function, from->handle, name));
  if (status == PL_OK) {
    from->stays = from->stays || !(key & PASSING);
    remember(&kernels->known, key, *function, from);
  } else
    *function = NULL;
  unload_idle(cuda);
  return status;
}

static void count_holders(pl_cuda *cuda, pl_cu_function function, int change) {
  if (!function) return;
  const functions *known = &cuda->kernels->known;
  for (size_t i = 0; i < known->capacity; i++)
    if (known->place[i].function == function) {
      known->place[i].from->holders += change;
      return;
    }
}

void pl_cuda_kernel_hold(pl_cuda *cuda, pl_cu_function function) { count_holders(cuda, function, 1); }
void pl_cuda_kernel_release(pl_cuda *cuda, pl_cu_function function) { count_holders(cuda, function, -1); }

/* ---- keys of texts ---- */

/* Every text that was asked for, in the order of their hashes: a text's key is its number, so that two never share one.
 */
typedef struct {
  pl_cubin_key text;
  uint64_t number;
} numbered;

uint64_t pl_cuda_key(int family, const char *text) {
  static numbered *list;
  static size_t count, capacity;
  numbered wanted = {.number = count};
  pl_cubin_key_of(&text, 1, &wanted.text);
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    int order = memcmp(&list[middle].text, &wanted.text, sizeof wanted.text);
    if (order == 0) return PASSING | (uint64_t)family << 56 | list[middle].number;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  if (count == capacity) {
    capacity = capacity ? 2 * capacity : 64;
    list = pl_reallocate(list, capacity * sizeof *list);
  }
  memmove(list + low + 1, list + low, (count - low) * sizeof *list);
  list[low] = wanted;
  count++;
  return PASSING | (uint64_t)family << 56 | wanted.number;
}

/* ---- launch ---- */

pl_status pl_cuda_launch(pl_cuda *cuda, pl_cu_function function, uint64_t blocks_x, unsigned blocks_y, unsigned threads,
                         unsigned shared_bytes, void **parameters) {
  if (blocks_x == 0 || blocks_y == 0) return PL_OK;
  PL_REQUIRE(blocks_x <= INT32_MAX && blocks_y <= 65535, "cuda: a launch of %llu x %u blocks is past what a grid holds",
             (unsigned long long)blocks_x, blocks_y);
  pl_cuda_recorded_kernel(cuda, function);
  return PL_CUDA(pl_cu.LaunchKernel(function, (unsigned)blocks_x, blocks_y, 1, threads, 1, 1, shared_bytes,
                                    cuda->stream, parameters, NULL));
}
