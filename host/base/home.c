/* Search for the program's own files. */
#include "host/base/home.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

pl_status pl_home_program(pl_text *path) {
  char name[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", name, sizeof name);
  PL_REQUIRE(length > 0 && (size_t)length < sizeof name, "cannot tell where the program lies: %s", strerror(errno));
  pl_text_clear(path);
  pl_text_append(path, name, (size_t)length);
  return PL_OK;
}

static int holds_lua(const char *folder) {
  pl_text path = {0};
  pl_text_print(&path, "%s/lua/perilune", folder);
  struct stat found;
  int yes = stat(path.data, &found) == 0 && S_ISDIR(found.st_mode);
  pl_text_release(&path);
  return yes;
}

/* The folder above that of the program: .../bin/perilune or .../build/perilune -> ... */
static void above_program(pl_text *folder) {
  if (pl_home_program(folder) != PL_OK) return;
  for (int up = 0; up < 2; up++) {
    char *slash = strrchr(folder->data, '/');
    if (slash) folder->length = (size_t)(slash - folder->data);
    folder->data[folder->length] = 0;
  }
}

pl_status pl_home_find(pl_text *home) {
  const char *chosen = getenv("PERILUNE_HOME");
  pl_text_clear(home);
  if (chosen && *chosen) {
    PL_REQUIRE(holds_lua(chosen), "PERILUNE_HOME is '%s', but there is no folder lua/perilune in it", chosen);
    pl_text_print(home, "%s", chosen);
    return PL_OK;
  }
  pl_text above = {0}, beside = {0};
  above_program(&above);
  pl_text_print(&beside, "%s/share/perilune", above.data ? above.data : "");
  const char *places[] = {PERILUNE_SOURCE, beside.data, above.data ? above.data : "", PERILUNE_INSTALLED};
  for (size_t i = 0; i < sizeof places / sizeof *places && home->length == 0; i++)
    if (holds_lua(places[i])) pl_text_print(home, "%s", places[i]);
  pl_text_release(&above);
  pl_text_release(&beside);
  PL_REQUIRE(home->length > 0, "no folder lua/perilune in %s, above or beside the program, or in %s; set PERILUNE_HOME",
             PERILUNE_SOURCE, PERILUNE_INSTALLED);
  return PL_OK;
}

static pl_status user_folder(const char *variable, const char *below_home, const char *what, pl_text *folder) {
  const char *base = getenv(variable), *home = getenv("HOME");
  pl_text_clear(folder);
  if (base && *base)
    pl_text_print(folder, "%s/perilune", base);
  else {
    PL_REQUIRE(home && *home, "neither %s nor HOME says where to keep %s", variable, what);
    pl_text_print(folder, "%s/%s/perilune", home, below_home);
  }
  return PL_OK;
}

pl_status pl_home_cache(pl_text *folder) {
  return user_folder("XDG_CACHE_HOME", ".cache", "compiled kernels and plans", folder);
}

pl_status pl_home_data(pl_text *folder) {
  return user_folder("XDG_DATA_HOME", ".local/share", "the history of cells", folder);
}
