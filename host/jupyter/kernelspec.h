/* Making the kernel known to Jupyter: a folder with kernel.json and the logos. */
#ifndef PL_JUPYTER_KERNELSPEC_H
#define PL_JUPYTER_KERNELSPEC_H

#include "host/base/text.h"
#include <jansson.h>

/* The folder is PREFIX/share/jupyter/kernels/NAME; prefix NULL: below the user's own folder of Jupyter. */
typedef struct {
  const char *prefix, *name;
  json_t *environment; /* variables that Jupyter sets for the kernel: an object of strings, or NULL */
} pl_kernelspec;

/* Puts the folder's path into *folder, and into *program that of the program which kernel.json names: this one. A
 * kernel of that name that is none of perilune's is not overwritten. */
pl_status pl_kernelspec_install(const pl_kernelspec *spec, pl_text *folder, pl_text *program);

/* An error when no kernel of perilune is installed there. */
pl_status pl_kernelspec_uninstall(const pl_kernelspec *spec, pl_text *folder);

#endif
