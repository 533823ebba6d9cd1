/* The program's entry: one table of commands, in C or in Lua, and scripts for everything else. */
#include "host/base/text.h"
#include "host/bind/script.h"
#include "host/cpu/cpu.h"
#include "host/cuda/cuda.h"
#include "host/device/device.h"
#include "host/jupyter/command.h"

#include <fcntl.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  const char *name, *help;
  const char *usage;                 /* NULL: the command answers --help itself */
  int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
  const char *module;                /* of Lua, in place of usage and run: a function that explains itself */
} command;

static int run_devices(int argc, char **argv) {
  if (argc > 1) {
    fprintf(stderr, "perilune: devices takes no arguments, but got '%s'\n", argv[1]);
    return 1;
  }
  pl_text text = {0};
  pl_device_describe_all(&text);
  fputs(text.data, stdout);
  pl_text_release(&text);
  return 0;
}

/* Running needs the session, exporting only Lua. */
static int run_notebook(int argc, char **argv) {
  bool exports = argc > 1 && strcmp(argv[1], "export") == 0;
  return exports ? pl_script_command("perilune.commands.export", argc - 1, argv + 1) : pl_notebook_command(argc, argv);
}

static const command commands[] = {
    {"devices", "lists the devices and what each can run", .usage = "perilune devices", .run = run_devices},
    {"kernel", "installs the Jupyter kernel, or runs it for a front end", .run = pl_kernel_command},
    {"notebook", "runs a notebook and writes its outputs back, or writes it as a script", .run = run_notebook},
    {"sweep", "runs an experiment for a grid of options, here or on a Slurm cluster",
     .module = "perilune.commands.sweep"},
    {"tune", "measures how recurrences run best on a GPU, and remembers it", .module = "perilune.commands.tune"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static int show_version(void) {
  printf("Perilune %s (%s)\n", PERILUNE_VERSION, LUA_RELEASE);
  return 0;
}

static int show_help(void) {
  printf("Perilune %s: a workbench for recurrent networks, in Lua.\n\n"
         "perilune                          interactive prompt\n"
         "perilune SCRIPT.lua [ARGS]        runs a script; `arg` holds its arguments\n"
         "perilune -e CODE | -i | -l MODULE | -v | -W | -    as lua5.4 does\n",
         PERILUNE_VERSION);
  for (int i = 0; i < COMMANDS; i++) printf("perilune %-24s %s\n", commands[i].name, commands[i].help);
  printf("perilune COMMAND --help           how to use a command\nperilune --version | --help\n");
  return 0;
}

static bool asks_for_help(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
  return false;
}

static int run_command(const command *c, int argc, char **argv) {
  if (c->module) return pl_script_command(c->module, argc, argv);
  if (!c->usage || !asks_for_help(argc, argv)) return c->run(argc, argv);
  printf("usage: %s\n%s\n", c->usage, c->help);
  return 0;
}

/* Files that the program opens must not take the place of a standard stream that it was started without. */
static void open_standard_streams(void) {
  int end;
  do end = open("/dev/null", O_RDWR);
  while (end >= 0 && end <= STDERR_FILENO);
  if (end >= 0) close(end);
}

/* Lets OpenMP's threads, libgomp's, sleep after some ten microseconds of waiting for each other, as host/cpu/barrier.c
 * does, not after milliseconds, in which they would take the cores from other programs and from the very threads they
 * wait for. Only an environment variable says so, which the library has read when main begins: so the program begins
 * again, as the same process. Where it cannot, it goes on as it is. */
static void bound_spinning(char **argv) {
  char path[4096];
  if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0 || setenv("GOMP_SPINCOUNT", "1000", 1) != 0) return;
  path[length] = '\0';
  execv(path, argv);
}

int main(int argc, char **argv) {
  open_standard_streams();
  if (argc == 2 && strcmp(argv[1], "--version") == 0) return show_version();
  if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) return show_help();
  bound_spinning(argv);
  pl_cpu_open();
  pl_cuda_open();
  for (int i = 0; i < COMMANDS && argc > 1; i++)
    if (strcmp(argv[1], commands[i].name) == 0) return run_command(&commands[i], argc - 1, argv + 1);
  static const char *names[COMMANDS + 1];
  for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
  pl_script_commands = names;
  return pl_script_main(argc, argv);
}
