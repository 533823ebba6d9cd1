/* Memory, devices, time, files, and the optimiser's step. */
#ifndef PL_BIND_SYSTEM_H
#define PL_BIND_SYSTEM_H

#include "host/base/status.h"
#include <lua.h>

/* Sets memory, memory_limit, devices, synchronize, threads, time, save, load, write_file, append_lines, cache_folder,
 * adam_step and others in the table on top of the stack. */
void pl_register_system(lua_State *L);

/* Waits for every device in use; what one complains of late, such as an index out of range on a GPU, is the failure.
 * The loss of a device is one only until it was raised: work on the others goes on. */
pl_status pl_system_settle(void);

#endif
