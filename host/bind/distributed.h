/* Several processes as one job, for Lua. */
#ifndef PL_BIND_DISTRIBUTED_H
#define PL_BIND_DISTRIBUTED_H

#include <lua.h>

/* The script failed with this message: tells the other ranks, and says on the standard error if it was another rank's
 * failure that ended this one. Does nothing outside a job. */
void pl_distributed_failed(const char *message);

/* Sets distributed_join, distributed_leave, distributed_all_reduce, distributed_broadcast and buckets in the table on
 * top of the stack. */
void pl_register_distributed(lua_State *L);

#endif
