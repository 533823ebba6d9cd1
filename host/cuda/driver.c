/* Loading of the driver library, and CUDA's results as statuses. */
#include "host/cuda/driver.h"

#include "host/base/text.h"
#include <stdlib.h>

pl_driver pl_cu;
static int driver_version;

enum { OLDEST = 12000, CUDA_13 = 13000 };

/* Two times: the version may say more than a function that is missing. */
static pl_status load_symbols(const pl_symbol *symbols, size_t count) {
  static const char *const name = "libcuda.so.1";
  return pl_library_load(&(pl_library){.what = "cuda: the NVIDIA driver's library libcuda.so.1",
                                       .advice = "install NVIDIA's driver for CUDA 12.0 or newer",
                                       .names = &name,
                                       .name_count = 1,
                                       .symbols = symbols,
                                       .symbol_count = count});
}

static pl_status load(void) {
  static const pl_symbol version[] = {{"cuDriverGetVersion", &pl_cu.DriverGetVersion}};
  static const pl_symbol all[] = {
#define ENTRY(name, symbol, parameters) {symbol, &pl_cu.name},
      PL_DRIVER_FUNCTIONS(ENTRY)
#undef ENTRY
  };
  PL_TRY(load_symbols(version, 1));
  if (pl_cu.DriverGetVersion(&driver_version) != 0) driver_version = 0;
  PL_REQUIRE(driver_version >= OLDEST,
             "cuda: the NVIDIA driver is too old: it is for CUDA %d.%d, expected %d.%d or newer", driver_version / 1000,
             driver_version % 1000 / 10, OLDEST / 1000, OLDEST % 1000 / 10);
  PL_TRY(load_symbols(all, sizeof all / sizeof *all));
  pl_cu_result result = pl_cu.Init(0);
  PL_REQUIRE(result != PL_CU_NO_DEVICE, "cuda: the NVIDIA driver is here, but it finds no GPU");
  return PL_CUDA(result);
}

pl_status pl_driver_open(void) {
  static pl_attempt attempt;
  return pl_attempt_once(&attempt, load);
}

pl_status pl_toolkit_load(const char *what, const char *advice, const char *const names[2], const pl_symbol *symbols,
                          size_t symbol_count) {
  const char *home = getenv("CUDA_HOME");
  bool old_driver = driver_version > 0 && driver_version < CUDA_13;
  pl_text folder = {0};
  pl_text_print(&folder, "%s/lib64", home && *home ? home : "/usr/local/cuda");
  pl_status status = pl_library_load(&(pl_library){.what = what,
                                                   .advice = advice,
                                                   .names = names + old_driver,
                                                   .name_count = 2 - old_driver,
                                                   .folder = folder.data,
                                                   .symbols = symbols,
                                                   .symbol_count = symbol_count});
  pl_text_release(&folder);
  return status;
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
  pl_status status = pl_fail_at(PL_LOST, expression, file, line,
                                "cuda: %s (%s); the GPU's context is lost: restart the kernel", text, name);
  if (!lost) lost = pl_duplicate(pl_message_text());
  return status;
}

pl_status pl_cuda_lost(void) { return lost ? pl_fail_at(PL_LOST, NULL, __FILE__, __LINE__, "%s", lost) : PL_OK; }
