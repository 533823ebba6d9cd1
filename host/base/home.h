/* Where the program's own files (lua/, kernels/) lie, and where it keeps what it writes on its own. */
#ifndef PL_BASE_HOME_H
#define PL_BASE_HOME_H

#include "host/base/text.h"

/* Finds the folder that holds lua/perilune: $PERILUNE_HOME (then nothing else), the source tree the program was built
 * from, ../share/perilune beside the program, the tree in whose build folder the program lies (it may have been moved),
 * or the install prefix. The text is overwritten. */
pl_status pl_home_find(pl_text *home);

/* The absolute path of the running program. */
pl_status pl_home_program(pl_text *path);

/* $XDG_CACHE_HOME or ~/.cache, then perilune; nobody has made it yet. The text is overwritten. */
pl_status pl_home_cache(pl_text *folder);

/* The same of $XDG_DATA_HOME or ~/.local/share: for what the user would miss. */
pl_status pl_home_data(pl_text *folder);

#endif
