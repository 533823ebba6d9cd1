/* The commands `perilune kernel` and `perilune notebook`. */
#ifndef PL_JUPYTER_COMMAND_H
#define PL_JUPYTER_COMMAND_H

extern const char pl_kernel_usage[], pl_notebook_usage[];

/* argv[0] is the command's name. Return the exit status. */
int pl_kernel_command(int argc, char **argv);
int pl_notebook_command(int argc, char **argv);

#endif
