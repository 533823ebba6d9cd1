/* Command lines of the kernel and the notebook runner. */
#include "host/jupyter/command.h"
#include "host/jupyter/kernel.h"
#include "host/jupyter/kernelspec.h"
#include "host/jupyter/notebook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char pl_kernel_usage[] = "perilune kernel install [--user | --prefix DIR | --sys-prefix] [--name NAME]\n"
                               "       perilune kernel uninstall [--user | --prefix DIR | --sys-prefix] [--name NAME]\n"
                               "       perilune kernel --connection-file FILE";
const char pl_notebook_usage[] = "perilune notebook run NB.ipynb [-o OUT.ipynb] [--timeout S] [--allow-errors]\n"
                                 "                             [--device NAME]   for notebooks that read "
                                 "PERILUNE_DEVICE";

static int complain(const char *message) {
  fprintf(stderr, "perilune: %s\n", message);
  return 1;
}

/* word NULL: something is missing at the end. */
static int misused(const char *word, const char *usage) {
  if (word)
    fprintf(stderr, "perilune: unexpected '%s'\nusage: %s\n", word, usage);
  else
    fprintf(stderr, "perilune: an argument is missing\nusage: %s\n", usage);
  return 1;
}

/* One option: with a place for its value, or a flag. */
typedef struct {
  const char *name;
  const char **value;
  bool *flag;
} option;

/* Reads the options in argv[first..]; words without '-' go to *word (NULL: none is expected). */
static bool read_options(int argc, char **argv, int first, const option *options, const char **word,
                         const char *usage) {
  for (int i = first; i < argc; i++) {
    const option *found = options;
    while (found->name && strcmp(found->name, argv[i]) != 0) found++;
    if (found->flag)
      *found->flag = true;
    else if (found->value) {
      if (++i == argc) {
        fprintf(stderr, "perilune: %s needs a value\nusage: %s\n", argv[i - 1], usage);
        return false;
      }
      *found->value = argv[i];
    } else if (argv[i][0] != '-' && word && !*word)
      *word = argv[i];
    else {
      misused(argv[i], usage);
      return false;
    }
  }
  return true;
}

static int change_kernelspec(int argc, char **argv) {
  const char *prefix = NULL, *name = "perilune";
  bool user = false, system = false, install = strcmp(argv[1], "install") == 0;
  const option options[] = {{"--prefix", &prefix, NULL},
                            {"--name", &name, NULL},
                            {"--user", NULL, &user},
                            {"--sys-prefix", NULL, &system},
                            {0}};
  if (!read_options(argc, argv, 2, options, NULL, pl_kernel_usage)) return 1;
  if (user + system + (prefix != NULL) > 1) return complain("--user, --prefix and --sys-prefix exclude each other");
  if (system) prefix = "/usr/local";
  pl_text folder = {0};
  pl_status status =
      install ? pl_kernelspec_install(prefix, name, &folder) : pl_kernelspec_uninstall(prefix, name, &folder);
  if (status == PL_OK) printf("kernel '%s' %s %s\n", name, install ? "installed in" : "removed from", folder.data);
  pl_text_release(&folder);
  return status == PL_OK ? 0 : complain(pl_message());
}

int pl_kernel_command(int argc, char **argv) {
  if (argc > 1 && (strcmp(argv[1], "install") == 0 || strcmp(argv[1], "uninstall") == 0))
    return change_kernelspec(argc, argv);
  const char *file = NULL;
  const option options[] = {{"--connection-file", &file, NULL}, {0}};
  if (!read_options(argc, argv, 1, options, NULL, pl_kernel_usage)) return 1;
  if (!file) {
    fprintf(stderr, "perilune: kernel needs install, uninstall or --connection-file\nusage: %s\n", pl_kernel_usage);
    return 1;
  }
  return pl_kernel_run(file) == PL_OK ? 0 : complain(pl_message());
}

int pl_notebook_command(int argc, char **argv) {
  if (argc < 2 || strcmp(argv[1], "run") != 0) return misused(argc < 2 ? NULL : argv[1], pl_notebook_usage);
  const char *path = NULL, *output = NULL, *timeout = NULL, *device = NULL;
  pl_notebook_options run = {0};
  const option options[] = {{"-o", &output, NULL},
                            {"--timeout", &timeout, NULL},
                            {"--device", &device, NULL},
                            {"--allow-errors", NULL, &run.allow_errors},
                            {0}};
  if (!read_options(argc, argv, 2, options, &path, pl_notebook_usage)) return 1;
  if (!path) return misused(NULL, pl_notebook_usage);
  char *end = NULL;
  if (timeout) run.timeout_s = strtod(timeout, &end);
  if (timeout && (*end || !(run.timeout_s > 0))) return complain("--timeout expects a number of seconds above 0");
  if (device && setenv("PERILUNE_DEVICE", device, 1) != 0) return complain("--device: out of memory");
  pl_text failure = {0};
  pl_status status = pl_notebook_run(path, output ? output : path, &run, &failure);
  int exit_status = status == PL_OK ? 0 : complain(pl_message());
  if (failure.length) exit_status = complain(failure.data);
  pl_text_release(&failure);
  return exit_status;
}
