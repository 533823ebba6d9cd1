/* Writing and removing the kernel's folder. */
#include "host/jupyter/kernelspec.h"
#include "host/base/file.h"
#include "host/base/home.h"
#include "host/base/json.h"
#include "host/jupyter/wire.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
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
static pl_status find_folder(const pl_kernelspec *spec, pl_text *folder) {
  const char *data = getenv("JUPYTER_DATA_DIR"), *share = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
  PL_TRY(check_name(spec->name));
  PL_REQUIRE(!spec->prefix || *spec->prefix, "--prefix: expected a folder, got ''");
  pl_text_clear(folder);
  if (spec->prefix)
    pl_text_print(folder, "%s/share/jupyter", spec->prefix);
  else if (data && *data)
    pl_text_print(folder, "%s", data);
  else if (share && *share)
    pl_text_print(folder, "%s/jupyter", share);
  else {
    PL_REQUIRE(home && *home, "HOME is not set: there is no user folder for the kernel; use --prefix");
    pl_text_print(folder, "%s/.local/share/jupyter", home);
  }
  pl_text_print(folder, "/kernels/%s", spec->name);
  return PL_OK;
}

/* ---- the files in it ---- */

static const char spec_file[] = "kernel.json";
static const char *const logos[] = {"logo-32x32.png", "logo-64x64.png", "logo-svg.svg"};
enum { LOGOS = sizeof logos / sizeof *logos };

static pl_status write_file(const pl_text *folder, const char *name, const pl_text *content) {
  pl_text path = {0};
  pl_text_print(&path, "%s/%s", folder->data, name);
  pl_piece piece = {content->data, content->length};
  pl_status status = pl_file_write(path.data, &piece, 1);
  pl_text_release(&path);
  return status;
}

static pl_status remove_file(const pl_text *folder, const char *name) {
  pl_text path = {0};
  pl_text_print(&path, "%s/%s", folder->data, name);
  pl_status status = PL_OK;
  if (unlink(path.data) != 0 && errno != ENOENT) status = PL_FAIL("cannot remove '%s': %s", path.data, strerror(errno));
  pl_text_release(&path);
  return status;
}

/* How kernel.json of this program, wherever it lay, differs from that of others. */
static bool is_own(const json_t *spec) {
  const json_t *argv = json_object_get(spec, "argv");
  const char *command = json_string_value(json_array_get(argv, 1)),
             *option = json_string_value(json_array_get(argv, 2));
  return command && option && strcmp(command, "kernel") == 0 && strcmp(option, "--connection-file") == 0;
}

/* Whether there is a kernel.json, which must be one of this program's. */
static pl_status look_for_spec(const pl_text *folder, bool *found) {
  pl_text path = {0}, text = {0};
  pl_text_print(&path, "%s/%s", folder->data, spec_file);
  *found = access(path.data, F_OK) == 0;
  pl_status status = *found ? pl_file_read(path.data, &text) : PL_OK;
  if (*found && status == PL_OK) {
    json_t *spec = json_loadb(text.data, text.length, 0, NULL);
    const char *program = json_string_value(json_array_get(json_object_get(spec, "argv"), 0));
    if (!is_own(spec))
      status = PL_FAIL("'%s' is not a kernel of perilune: it starts '%s'; nothing was changed", path.data,
                       program ? program : "nothing");
    json_decref(spec);
  }
  pl_text_release(&path);
  pl_text_release(&text);
  return status;
}

static pl_status copy_logos(const pl_text *folder) {
  pl_text home = {0}, path = {0}, content = {0};
  pl_status status = pl_home_find(&home);
  for (int i = 0; i < LOGOS && status == PL_OK; i++) {
    pl_text_clear(&path);
    pl_text_print(&path, "%s/lua/perilune/logos/%s", home.data, logos[i]);
    status = pl_file_read(path.data, &content);
    if (status == PL_OK) status = write_file(folder, logos[i], &content);
  }
  pl_text_release(&home);
  pl_text_release(&path);
  pl_text_release(&content);
  return status;
}

/* The program by its absolute path: Jupyter finds it whatever its own PATH is, and names it when it is gone. */
static pl_status write_spec(const pl_kernelspec *spec, const pl_text *folder, const pl_text *program) {
  pl_text text = {0}, shown = {0};
  /* Front ends list kernels by what they show; one of another name is to be told from the usual one. */
  pl_text_print(&shown, "Lua 5.4 (%s)", strcmp(spec->name, "perilune") == 0 ? "Perilune" : spec->name);
  json_t *json = json_pack("{s:[s, s, s, s], s:s, s:s, s:s, s:s, s:{s:b}, s:O*}", "argv", program->data, "kernel",
                           "--connection-file", "{connection_file}", "display_name", shown.data, "language", "lua",
                           "interrupt_mode", "message", "kernel_protocol_version", PL_PROTOCOL ".0", "metadata",
                           "debugger", 1, "env", spec->environment);
  pl_text_release(&shown);
  PL_REQUIRE(json, "the path of the program, '%s', is no valid UTF-8, and kernel.json cannot hold it", program->data);
  pl_json_write(json, 1, &text);
  json_decref(json);
  pl_text_print(&text, "\n");
  pl_status status = write_file(folder, spec_file, &text);
  pl_text_release(&text);
  return status;
}

pl_status pl_kernelspec_install(const pl_kernelspec *spec, pl_text *folder, pl_text *program) {
  bool found;
  PL_TRY(find_folder(spec, folder));
  PL_TRY(look_for_spec(folder, &found));
  PL_TRY(pl_home_program(program));
  PL_TRY(pl_directory_create(folder->data));
  PL_TRY(copy_logos(folder));
  return write_spec(spec, folder, program); /* last: with it the kernel is there */
}

pl_status pl_kernelspec_uninstall(const pl_kernelspec *spec, pl_text *folder) {
  bool found;
  PL_TRY(find_folder(spec, folder));
  PL_TRY(look_for_spec(folder, &found));
  PL_REQUIRE(found, "no kernel '%s' is installed in '%s'", spec->name, folder->data);
  PL_TRY(remove_file(folder, spec_file));
  for (int i = 0; i < LOGOS; i++) PL_TRY(remove_file(folder, logos[i]));
  PL_REQUIRE(rmdir(folder->data) == 0, "the kernel is removed, but its folder '%s' is not: %s", folder->data,
             strerror(errno));
  return PL_OK;
}
