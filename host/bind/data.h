/* Token shards and their batches as Lua values. */
#ifndef PL_BIND_DATA_H
#define PL_BIND_DATA_H

#include <lua.h>

/* Sets shard_write and shard_open in the table on top of the stack. */
void pl_register_data(lua_State *L);

#endif
