/* Opening of libraries and looking up of their symbols. */
#include "host/base/library.h"

#include "host/base/text.h"
#include <dlfcn.h>
#include <string.h>

/* What the loader says of a name that it cannot open is appended to *said. */
static void *open_name(const char *name, pl_text *said) {
  void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!handle) pl_text_print(said, "%s%s", said->length ? "; " : "", dlerror());
  return handle;
}

static void *open_any(const pl_library *library, pl_text *said) {
  pl_text path = {0};
  void *handle = NULL;
  for (int i = 0; i < library->name_count && !handle; i++) {
    handle = open_name(library->names[i], said);
    if (handle || !library->folder) continue;
    pl_text_clear(&path);
    pl_text_print(&path, "%s/%s", library->folder, library->names[i]);
    handle = open_name(path.data, said);
  }
  pl_text_release(&path);
  return handle;
}

pl_status pl_library_load(const pl_library *library) {
  pl_text said = {0};
  void *handle = open_any(library, &said);
  pl_status status = PL_OK;
  if (!handle) status = PL_FAIL("%s cannot be loaded: %s (%s)", library->what, library->advice, said.data);
  pl_text_release(&said);
  PL_TRY(status);
  for (size_t i = 0; i < library->symbol_count; i++)
    if (!dlsym(handle, library->symbols[i].name)) {
      dlclose(handle);
      return PL_FAIL("%s lacks %s: %s", library->what, library->symbols[i].name, library->advice);
    }
  for (size_t i = 0; i < library->symbol_count; i++) {
    void *found = dlsym(handle, library->symbols[i].name);
    memcpy(library->symbols[i].place, &found, sizeof found);
  }
  return PL_OK;
}

pl_status pl_attempt_once(pl_attempt *attempt, pl_status (*work)(void)) {
  if (!attempt->tried) {
    attempt->tried = true;
    if (work() != PL_OK) attempt->failure = pl_duplicate(pl_message_text());
  }
  return attempt->failure ? PL_FAIL("%s", attempt->failure) : PL_OK;
}
