/* Making the kernel known to Jupyter: the folder with kernel.json. */
#ifndef PL_JUPYTER_KERNELSPEC_H
#define PL_JUPYTER_KERNELSPEC_H

#include "host/base/text.h"

/* prefix NULL: the user's own folder. The folder is PREFIX/share/jupyter/kernels/NAME; its path is put into *folder. */
pl_status pl_kernelspec_install(const char *prefix, const char *name, pl_text *folder);
/* An error when nothing is installed there. */
pl_status pl_kernelspec_uninstall(const char *prefix, const char *name, pl_text *folder);

#endif
