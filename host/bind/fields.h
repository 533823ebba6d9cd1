/* Fields, in-place changes and gradients of tensor handles. */
#ifndef PL_BIND_FIELDS_H
#define PL_BIND_FIELDS_H

#include <lua.h>

/* Sets no_grad, grad_enabled, methods and tensor_metatable in the table on top of the stack. */
void pl_register_fields(lua_State *L);

#endif
