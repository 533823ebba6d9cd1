/* Modules of compiled kernels on a made-up GPU: one for all functions of a text, kept while somebody holds it, and
 * unloaded when many texts came after it. Needs no GPU. */
#include "host/cuda/cuda.h"
#include "host/cuda/nvrtc.h"
#include "tests/check.h"
#include "tests/fakes/use.h"

enum { TEXTS = 300, IDLE_MAX = 64, FAMILY = 1 };
/* Modules and functions are numbers. */
static int modules, loaded, functions;
static char places[4 * TEXTS];
static bool gone[4 * TEXTS];

static pl_cu_result load_module(pl_cu_module *module, const void *image) {
  (void)image;
  *module = (pl_cu_module)(void *)&places[loaded++];
  modules++;
  return 0;
}

static pl_cu_result unload_module(pl_cu_module module) {
  modules--;
  gone[(char *)module - places] = true;
  return 0;
}

static pl_cu_result find_function(pl_cu_function *function, pl_cu_module module, const char *name) {
  (void)module, (void)name;
  *function = (pl_cu_function)(void *)&places[functions++];
  return 0;
}

static pl_cu_function load(pl_cuda *cuda, uint64_t key, const char *text, const char *name) {
  pl_cu_function function;
  CHECK(pl_cuda_kernel_load(cuda, key, "types.cuh", text, "", name, &function) == PL_OK);
  return function;
}

static uint64_t key_of(int number, pl_text *text) {
  pl_text_clear(text);
  pl_text_print(text, "text %d", number);
  return pl_cuda_key(FAMILY, text->data);
}

static void sharing(pl_cuda *cuda) {
  size_t before = pl_nvrtc_compilations().compiled;
  pl_cu_function first = load(cuda, 11, "shared", "first"), second = load(cuda, 12, "shared", "second");
  CHECK(first != second && modules == 1 && pl_nvrtc_compilations().compiled == before + 1);
  CHECK(pl_cuda_kernel_found(cuda, 11) == first && pl_cuda_kernel_found(cuda, 12) == second);
  load(cuda, 13, "another", "first");
  CHECK(modules == 2 && pl_nvrtc_compilations().compiled == before + 2);
}

static void keys(void) {
  uint64_t one = pl_cuda_key(FAMILY, "one");
  CHECK(pl_cuda_key(FAMILY, "two") != one && pl_cuda_key(FAMILY, "one") == one && pl_cuda_key(2, "one") != one);
}

/* Each text is used right after it was loaded, and text 3 all the time. */
static void many(pl_cuda *cuda) {
  pl_text text = {0};
  pl_cu_function held = load(cuda, key_of(0, &text), text.data, "f");
  pl_cuda_kernel_hold(cuda, held);
  pl_cuda_kernel_hold(cuda, held);
  pl_cuda_kernel_release(cuda, held);
  for (int i = 1; i < TEXTS; i++) {
    pl_cu_function function = load(cuda, key_of(i, &text), text.data, "f");
    CHECK(pl_cuda_kernel_found(cuda, key_of(i, &text)) == function);
    if (i >= 3) CHECK(pl_cuda_kernel_found(cuda, key_of(3, &text)));
  }
  CHECK(modules == 2 + 1 + IDLE_MAX); /* those of fixed keys, the held one, and the idle ones */
  CHECK(pl_cuda_kernel_found(cuda, 11) && pl_cuda_kernel_found(cuda, 12) && pl_cuda_kernel_found(cuda, 13));
  CHECK(pl_cuda_kernel_found(cuda, key_of(0, &text)) == held && !gone[2]);
  CHECK(!pl_cuda_kernel_found(cuda, key_of(1, &text)) && !pl_cuda_kernel_found(cuda, key_of(TEXTS / 2, &text)));
  CHECK(pl_cuda_kernel_found(cuda, key_of(3, &text)) && pl_cuda_kernel_found(cuda, key_of(TEXTS - 1, &text)));
  CHECK(pl_cuda_kernel_found(cuda, key_of(TEXTS - IDLE_MAX + 1, &text)));
  CHECK(!pl_cuda_kernel_found(cuda, key_of(TEXTS - IDLE_MAX, &text))); /* text 3 has its place */
  pl_cuda_kernel_release(cuda, held);
  for (int i = TEXTS; i < TEXTS + IDLE_MAX; i++) load(cuda, key_of(i, &text), text.data, "f");
  CHECK(!pl_cuda_kernel_found(cuda, key_of(0, &text)) && gone[2] && modules == 2 + IDLE_MAX);
  CHECK(load(cuda, key_of(0, &text), text.data, "f")); /* and back */
  pl_text_release(&text);
}

int main(void) {
  fake_begin();
  pl_cuda *cuda = fake_gpu();
  pl_cu.ModuleLoadData = load_module;
  pl_cu.ModuleUnload = unload_module;
  pl_cu.ModuleGetFunction = find_function;
  sharing(cuda);
  keys();
  many(cuda);
  fake_end();
  return finished("modules");
}
