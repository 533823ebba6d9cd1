/* The commands `perilune kernel` and `perilune notebook`. */
#ifndef PL_JUPYTER_COMMAND_H
#define PL_JUPYTER_COMMAND_H

/* argv[0] is the command's name. Explain themselves where --help is among the arguments. Return the exit status. */
int pl_kernel_command(int argc, char **argv);
int pl_notebook_command(int argc, char **argv);

#endif
