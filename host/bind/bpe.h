/* Byte-pair encoding for Lua. */
#ifndef PL_BIND_BPE_H
#define PL_BIND_BPE_H

#include <lua.h>

/* Sets bpe and bpe_train in the table on top of the stack. */
void pl_register_bpe(lua_State *L);

#endif
