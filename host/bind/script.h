/* Running scripts and one-liners as lua5.4 does: options, `arg`, exit status; and commands that are written in Lua. */
#ifndef PL_BIND_SCRIPT_H
#define PL_BIND_SCRIPT_H

/* argv[0] is the program, the rest its options, a script and the script's arguments. Returns the exit status. */
int pl_script_main(int argc, char **argv);

/* Runs the function that the module is, without arguments: argv[0] is the command's name, `arg` holds the rest. Returns
 * the exit status. */
int pl_script_command(const char *module, int argc, char **argv);

/* Names of commands (ended by NULL) that a mistyped one is compared with in the error message. */
extern const char *const *pl_script_commands;

#endif
