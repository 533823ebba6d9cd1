/* Command lines of the kernel and the notebook runner. */
#include "host/jupyter/command.h"
#include "host/jupyter/kernel.h"
#include "host/jupyter/kernelspec.h"
#include "host/jupyter/notebook.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char kernel_usage[] =
    "perilune kernel install [--user | --prefix DIR | --sys-prefix] [--name NAME] [--env KEY=VALUE]...\n"
    "       perilune kernel uninstall [--user | --prefix DIR | --sys-prefix] [--name NAME]\n"
    "       perilune kernel --connection-file FILE\n";
static const char kernel_help[] =
    "Makes this program known to Jupyter as a kernel, or runs it for a front end.\n\n"
    "  --user             for this user, the default: $JUPYTER_DATA_DIR, $XDG_DATA_HOME/jupyter or\n"
    "                     ~/.local/share/jupyter\n"
    "  --prefix DIR       in DIR/share/jupyter, for the Python environment in DIR\n"
    "  --sys-prefix       in /usr/local/share/jupyter, for everybody\n"
    "  --name NAME        what notebooks call the kernel [perilune]; front ends list it as \"Lua 5.4 (NAME)\"\n"
    "  --env KEY=VALUE    a variable that Jupyter sets for the kernel, such as OMP_NUM_THREADS=2; as often as you "
    "like;\n"
    "                     ${NAME} in VALUE stands for Jupyter's own variable NAME\n"
    "  --connection-file FILE  what Jupyter starts: ports and key are in FILE\n"
    "  --help             shows this list\n\n"
    "The kernel is this program where it lies now: install it again when it has moved.\n";
static const char notebook_usage[] =
    "perilune notebook run FILE.ipynb [-o OUT.ipynb] [--timeout SECONDS] [--allow-errors] [--device NAME]\n"
    "       perilune notebook export FILE.ipynb [FILE.lua]\n";
static const char notebook_help[] =
    "Runs every cell of a notebook and writes their outputs into it, or writes its cells as a script.\n"
    "Neither needs Python. `perilune notebook run --help` and `perilune notebook export --help` say more.\n";
static const char run_usage[] =
    "perilune notebook run FILE.ipynb [-o OUT.ipynb] [--timeout SECONDS] [--allow-errors] [--device NAME]\n";
static const char run_help[] =
    "Runs every cell, in the notebook's folder, and writes their outputs into it as Jupyter's nbclient does. It ends "
    "at\n"
    "the first cell that fails: what was done until then is written, and the exit status is 1. Cells with the tag\n"
    "raises-exception may fail, those with the tag skip-execution do not run.\n"
    "States of widgets go into the notebook's metadata, where Jupyter finds them.\n\n"
    "  -o OUT.ipynb       where the result goes [FILE.ipynb]\n"
    "  --timeout SECONDS  the time that each cell may take; one that takes longer is interrupted and fails\n"
    "  --allow-errors     goes on after a cell that fails\n"
    "  --device NAME      sets PERILUNE_DEVICE, for notebooks that read it: cpu, cuda, cuda:1\n"
    "  --help             shows this list\n";

static int complain(const char *message) {
  fprintf(stderr, "perilune: %s\n", message);
  return 1;
}

static bool asks_for_help(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
  return false;
}

static int explain(const char *usage, const char *help) {
  printf("usage: %s%s", usage, help);
  return 0;
}

static int misused(const char *word, const char *usage) {
  fprintf(stderr, "perilune: unexpected '%s'\nusage: %s", word, usage);
  return 1;
}

static int lacking(const char *what, const char *usage) {
  fprintf(stderr, "perilune: %s\nusage: %s", what, usage);
  return 1;
}

/* One option: with a place for its value, an array for its values, or a flag. */
typedef struct {
  const char *name;
  const char **value;
  bool *flag;
  json_t *list;
} option;

/* The option that `word` is, as --name or --name=value; then *value is behind the '='. */
static const option *find_option(const option *options, const char *word, const char **value) {
  size_t length = strcspn(word, "=");
  *value = word[length] ? word + length + 1 : NULL;
  for (; options->name; options++)
    if (strlen(options->name) == length && strncmp(options->name, word, length) == 0 && !(*value && options->flag))
      return options;
  return NULL;
}

static bool take_value(const option *o, const char *value) {
  if (o->value)
    *o->value = value;
  else if (json_array_append_new(o->list, json_string(value)) != 0) {
    fprintf(stderr, "perilune: %s: expected valid UTF-8, got '%s'\n", o->name, value);
    return false;
  }
  return true;
}

/* Reads the options in argv[first..]; words without '-' go to *word (NULL: none is expected). */
static bool read_options(int argc, char **argv, int first, const option *options, const char **word,
                         const char *usage) {
  for (int i = first; i < argc; i++) {
    const char *value;
    const option *found = find_option(options, argv[i], &value);
    if (!found && argv[i][0] != '-' && word && !*word)
      *word = argv[i];
    else if (!found) {
      misused(argv[i], usage);
      return false;
    } else if (found->flag)
      *found->flag = true;
    else if (!value && i + 1 == argc) {
      fprintf(stderr, "perilune: %s needs a value\nusage: %s", argv[i], usage);
      return false;
    } else if (!take_value(found, value ? value : argv[++i]))
      return false;
  }
  return true;
}

/* ---- kernel ---- */

/* Sets KEY of the object to VALUE. */
static bool take_variable(json_t *environment, const char *setting) {
  size_t length = strcspn(setting, "=");
  bool valid = setting[length] && (isalpha((unsigned char)setting[0]) || setting[0] == '_');
  for (size_t i = 0; i < length; i++) valid &= isalnum((unsigned char)setting[i]) || setting[i] == '_';
  if (!valid) {
    fprintf(stderr, "perilune: --env: expected KEY=VALUE with letters, digits and '_' in KEY, got '%s'\n", setting);
    return false;
  }
  char *key = pl_duplicate(setting);
  key[length] = 0;
  json_object_set_new(environment, key, json_string(setting + length + 1));
  free(key);
  return true;
}

static bool take_variables(const json_t *settings, pl_kernelspec *spec) {
  size_t i;
  json_t *setting;
  if (json_array_size(settings) == 0) return true;
  spec->environment = json_object();
  json_array_foreach((json_t *)settings, i, setting) {
    if (!take_variable(spec->environment, json_string_value(setting))) return false;
  }
  return true;
}

static int install(const pl_kernelspec *spec) {
  pl_text folder = {0}, program = {0};
  pl_status status = pl_kernelspec_install(spec, &folder, &program);
  if (status == PL_OK)
    printf("kernel '%s' installed in %s\nIt starts %s: install it again when that has moved.\n", spec->name,
           folder.data, program.data);
  pl_text_release(&folder);
  pl_text_release(&program);
  return status == PL_OK ? 0 : complain(pl_message());
}

static int uninstall(const pl_kernelspec *spec) {
  pl_text folder = {0};
  pl_status status = pl_kernelspec_uninstall(spec, &folder);
  if (status == PL_OK) printf("kernel '%s' removed from %s\n", spec->name, folder.data);
  pl_text_release(&folder);
  return status == PL_OK ? 0 : complain(pl_message());
}

static int change_kernelspec(int argc, char **argv, json_t *settings) {
  pl_kernelspec spec = {.name = "perilune"};
  bool user = false, system = false, installs = strcmp(argv[1], "install") == 0;
  const option options[] = {{"--prefix", &spec.prefix, NULL, NULL},
                            {"--name", &spec.name, NULL, NULL},
                            {"--user", NULL, &user, NULL},
                            {"--sys-prefix", NULL, &system, NULL},
                            {installs ? "--env" : NULL, NULL, NULL, settings},
                            {0}};
  if (!read_options(argc, argv, 2, options, NULL, kernel_usage)) return 1;
  if (user + system + (spec.prefix != NULL) > 1)
    return complain("--user, --prefix and --sys-prefix exclude each other");
  if (system) spec.prefix = "/usr/local";
  int status = !take_variables(settings, &spec) ? 1 : installs ? install(&spec) : uninstall(&spec);
  json_decref(spec.environment);
  return status;
}

int pl_kernel_command(int argc, char **argv) {
  if (asks_for_help(argc, argv)) return explain(kernel_usage, kernel_help);
  if (argc > 1 && (strcmp(argv[1], "install") == 0 || strcmp(argv[1], "uninstall") == 0)) {
    json_t *settings = json_array();
    int status = change_kernelspec(argc, argv, settings);
    json_decref(settings);
    return status;
  }
  const char *file = NULL;
  const option options[] = {{"--connection-file", &file, NULL, NULL}, {0}};
  if (!read_options(argc, argv, 1, options, NULL, kernel_usage)) return 1;
  if (!file) return lacking("kernel needs install, uninstall or --connection-file", kernel_usage);
  return pl_kernel_run(file) == PL_OK ? 0 : complain(pl_message());
}

/* ---- notebook ---- */

enum { SECONDS_MAX = 1000000000 }; /* three decades: what timers of all systems hold */

static int run_notebook(int argc, char **argv) {
  const char *path = NULL, *output = NULL, *timeout = NULL, *device = NULL;
  pl_notebook_options run = {0};
  const option options[] = {{"-o", &output, NULL, NULL},
                            {"--timeout", &timeout, NULL, NULL},
                            {"--device", &device, NULL, NULL},
                            {"--allow-errors", NULL, &run.allow_errors, NULL},
                            {0}};
  if (asks_for_help(argc, argv)) return explain(run_usage, run_help);
  if (!read_options(argc, argv, 1, options, &path, run_usage)) return 1;
  if (!path) return lacking("the name of a notebook is missing", run_usage);
  char *end = NULL;
  if (timeout) run.timeout_s = strtod(timeout, &end);
  if (timeout && (!*timeout || *end || !(run.timeout_s > 0 && run.timeout_s <= SECONDS_MAX))) {
    fprintf(stderr, "perilune: --timeout: expected a number of seconds above 0, got '%s'\n", timeout);
    return 1;
  }
  if (device && setenv("PERILUNE_DEVICE", device, 1) != 0) return complain("--device: out of memory");
  pl_text failure = {0};
  pl_status status = pl_notebook_run(path, output ? output : path, &run, &failure);
  int exit_status = status == PL_OK ? 0 : complain(pl_message());
  if (failure.length) exit_status = complain(failure.data);
  pl_text_release(&failure);
  return exit_status;
}

int pl_notebook_command(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : NULL;
  if (what && strcmp(what, "run") == 0) return run_notebook(argc - 1, argv + 1);
  if (asks_for_help(argc, argv)) return explain(notebook_usage, notebook_help);
  return what ? misused(what, notebook_usage) : lacking("notebook needs run or export", notebook_usage);
}
