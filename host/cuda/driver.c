/* Loading of the driver library, and CUDA's results as statuses. */
#include "host/cuda/driver.h"

#include "host/base/text.h"
#include <dlfcn.h>
#include <string.h>

pl_driver pl_cu;
static int driver_version;

enum { OLDEST = 12000 };

void *pl_library_open(const char *const names[], int count) {
  static const char *const folders[] = {"", "/usr/local/cuda/lib64/"};
  for (int i = 0; i < count; i++)
    for (int f = 0; f < 2; f++) {
      char path[256] = "";
      strncat(strcat(path, folders[f]), names[i], 200);
      void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
      if (library) return library;
    }
  return NULL;
}

static pl_status load(void) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  PL_REQUIRE(library, "cuda: no NVIDIA driver here (%s)", dlerror());
  static const struct {
    const char *symbol;
    size_t place;
  } functions[] = {
#define ENTRY(name, symbol, parameters) {symbol, offsetof(pl_driver, name)},
      PL_DRIVER_FUNCTIONS(ENTRY)
#undef ENTRY
  };
  *(void **)&pl_cu.DriverGetVersion = dlsym(library, "cuDriverGetVersion");
  if (!pl_cu.DriverGetVersion || pl_cu.DriverGetVersion(&driver_version) != 0) driver_version = 0;
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    void *found = dlsym(library, functions[i].symbol);
    PL_REQUIRE(found, "cuda: the NVIDIA driver is too old: it lacks %s (it is for CUDA %d.%d, expected %d.%d or newer)",
               functions[i].symbol, driver_version / 1000, driver_version % 1000 / 10, OLDEST / 1000,
               OLDEST % 1000 / 10);
    memcpy((char *)&pl_cu + functions[i].place, &found, sizeof found);
  }
  PL_REQUIRE(driver_version >= OLDEST,
             "cuda: the NVIDIA driver is too old: it is for CUDA %d.%d, expected %d.%d or newer", driver_version / 1000,
             driver_version % 1000 / 10, OLDEST / 1000, OLDEST % 1000 / 10);
  pl_cu_result result = pl_cu.Init(0);
  PL_REQUIRE(result != PL_CU_NO_DEVICE, "cuda: the NVIDIA driver is here, but it finds no GPU");
  return PL_CUDA(result);
}

pl_status pl_driver_open(void) {
  static char *failure; /* of the first attempt; kept for as long as the program runs */
  static bool tried;
  if (!tried) {
    tried = true;
    if (load() != PL_OK) failure = pl_duplicate(pl_message_text());
  }
  return failure ? PL_FAIL("%s", failure) : PL_OK;
}

int pl_driver_version(void) { return driver_version; }

/* Results after which the context is lost, by the numbers of the driver's manual. */
static bool is_sticky(pl_cu_result result) {
  static const pl_cu_result sticky[] = {
      214, /* uncorrectable memory error */
      220, /* NVLink failed */
      226, /* contained error */
      700, /* illegal address */
      702, /* launch timed out */
      709, /* context destroyed */
      710, /* assertion */
      714, /* hardware stack error */
      715, /* illegal instruction */
      716, /* misaligned address */
      717, /* invalid address space */
      718, /* invalid program counter */
      719, /* launch failed */
      721, /* tensor memory leak */
      999, /* unknown */
  };
  for (size_t i = 0; i < sizeof sticky / sizeof *sticky; i++)
    if (result == sticky[i]) return true;
  return false;
}

static char *lost; /* the message of the sticky error */

pl_status pl_cuda_check(pl_cu_result result, const char *expression, const char *file, int line) {
  if (result == 0) return PL_OK;
  const char *name = "unknown error", *text = "";
  if (pl_cu.GetErrorName && pl_cu.GetErrorName(result, &name) != 0) name = "unknown error";
  if (pl_cu.GetErrorString && pl_cu.GetErrorString(result, &text) != 0) text = "";
  if (result == PL_CU_OUT_OF_MEMORY)
    return pl_fail_at(PL_OUT_OF_MEMORY, expression, file, line, "cuda: %s (%s)", text, name);
  if (!is_sticky(result)) return pl_fail_at(PL_ERROR, expression, file, line, "cuda: %s (%s)", text, name);
  pl_status status = pl_fail_at(PL_ERROR, expression, file, line,
                                "cuda: %s (%s); the GPU's context is lost: restart the kernel", text, name);
  if (!lost) lost = pl_duplicate(pl_message_text());
  return status;
}

pl_status pl_cuda_lost(void) { return lost ? PL_FAIL("%s", lost) : PL_OK; }
