/* Writing and removing kernel.json. */
#include "host/jupyter/kernelspec.h"
#include "host/base/file.h"
#include "host/base/home.h"
#include "host/base/json.h"
#include "host/jupyter/wire.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Names become folders and parts of addresses: letters, digits, '.', '_' and '-'. */
static pl_status check_name(const char *name) {
  bool valid = isalnum((unsigned char)name[0]);
  for (const char *c = name; *c; c++) valid &= isalnum((unsigned char)*c) || strchr("._-", *c) != NULL;
  PL_REQUIRE(valid, "kernel name '%s': letters, digits, '.', '_' and '-' are expected, a letter or digit first", name);
  return PL_OK;
}

/* The folder of the kernel, where Jupyter looks for it. */
static pl_status find_folder(const char *prefix, const char *name, pl_text *folder) {
  const char *data = getenv("JUPYTER_DATA_DIR"), *share = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
  PL_TRY(check_name(name));
  pl_text_clear(folder);
  if (prefix)
    pl_text_print(folder, "%s/share/jupyter", prefix);
  else if (data && *data)
    pl_text_print(folder, "%s", data);
  else if (share && *share)
    pl_text_print(folder, "%s/jupyter", share);
  else {
    PL_REQUIRE(home && *home, "HOME is not set: there is no user folder for the kernel; use --prefix");
    pl_text_print(folder, "%s/.local/share/jupyter", home);
  }
  pl_text_print(folder, "/kernels/%s", name);
  return PL_OK;
}

static json_t *describe(const char *program) {
  return json_pack("{s:[s, s, s, s], s:s, s:s, s:s, s:s, s:{}}", "argv", program, "kernel", "--connection-file",
                   "{connection_file}", "display_name", "Lua 5.4 (Perilune)", "language", "lua", "interrupt_mode",
                   "message", "kernel_protocol_version", PL_PROTOCOL ".0", "metadata");
}

static pl_status write_spec(const char *folder) {
  pl_text program = {0}, path = {0}, text = {0};
  pl_status status = pl_home_program(&program);
  if (status == PL_OK) status = pl_directory_create(folder);
  if (status == PL_OK) {
    json_t *spec = describe(program.data);
    pl_json_write(spec, 1, &text);
    json_decref(spec);
    pl_text_print(&text, "\n");
    pl_text_print(&path, "%s/kernel.json", folder);
    pl_piece piece = {text.data, text.length};
    status = pl_file_write(path.data, &piece, 1);
  }
  pl_text_release(&program);
  pl_text_release(&path);
  pl_text_release(&text);
  return status;
}

pl_status pl_kernelspec_install(const char *prefix, const char *name, pl_text *folder) {
  PL_TRY(find_folder(prefix, name, folder));
  return write_spec(folder->data);
}

pl_status pl_kernelspec_uninstall(const char *prefix, const char *name, pl_text *folder) {
  PL_TRY(find_folder(prefix, name, folder));
  pl_text path = {0};
  pl_text_print(&path, "%s/kernel.json", folder->data);
  int gone = unlink(path.data), error = errno;
  pl_text_release(&path);
  PL_REQUIRE(gone == 0, "no kernel '%s' in '%s': %s", name, folder->data, strerror(error));
  PL_REQUIRE(rmdir(folder->data) == 0, "cannot remove '%s': %s", folder->data, strerror(errno));
  return PL_OK;
}
