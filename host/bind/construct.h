/* Making tensors from Lua values and Lua values from tensors. */
#ifndef PL_BIND_CONSTRUCT_H
#define PL_BIND_CONSTRUCT_H

#include "host/tensor/operations.h"
#include <lua.h>

/* Sets tensor, full, rand, randn, randint, bernoulli, arange, linspace and seed in the table on top of the stack, and
 * the methods totable, item and to. */
void pl_register_construct(lua_State *L);

/* The type or device named by a string at index; raises for unknown names. */
/* The number at index as an operand of that type: for an integer type it must be an integer in its range. */
pl_array pl_check_number(lua_State *L, int index, pl_dtype dtype, const char *function, const char *argument);
lua_Integer pl_check_integer(lua_State *L, int index, const char *function, const char *argument);
pl_dtype pl_check_dtype(lua_State *L, int index, const char *function);
pl_device *pl_check_device(lua_State *L, int index, const char *function);

#endif
