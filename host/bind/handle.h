/* Tensors as Lua values: a handle is one count of a tensor and lives in the innermost open scope. Also where a status
 * from below becomes a Lua error. A function here first pushes an empty handle, then lets C fill it, and raises last.
 */
#ifndef PL_BIND_HANDLE_H
#define PL_BIND_HANDLE_H

#include "host/tensor/operations.h"
#include <lauxlib.h>
#include <lua.h>

/* Pushes an empty handle that belongs to the innermost scope; *place is where its tensor goes. The pointer is good for
 * as long as the handle is on the stack. */
pl_tensor **pl_push_handle(lua_State *L);
/* Pushes a handle on `tensor` and takes over its count. NULL pushes nil. */
void pl_push_tensor(lua_State *L, pl_tensor *tensor);

/* The tensor of an argument; raises naming function and argument when it is none, or was dropped with its scope. */
pl_tensor *pl_check_tensor(lua_State *L, int index, const char *function, const char *argument);
/* NULL for nil or none. */
pl_tensor *pl_optional_tensor(lua_State *L, int index, const char *function, const char *argument);
bool pl_is_tensor(lua_State *L, int index);

/* As luaL_error, but the place that it names is the user's line: frames of the program's own Lua files are passed over.
 */
int pl_error(lua_State *L, const char *format, ...);

/* Raises the message of a failed status; does nothing for PL_OK. */
void pl_raise_unless_ok(lua_State *L, pl_status status);
/* Whether somebody was told of PL_LOST. */
bool pl_loss_raised(void);

/* Runs an operation, whose name begins every message: a collection before it when live memory has outgrown its budget,
 * and once more after a collection when memory ran out. Raises when it fails; `work` must leave nothing behind in that
 * case. */
void pl_run(lua_State *L, const char *operation, pl_status (*work)(void *context), void *context);

/* Sets scope, retain and is_tensor in the table on top of the stack, and makes the metatable, whose table of methods is
 * left in the registry under PL_METHODS. */
void pl_register_handle(lua_State *L);
#define PL_TENSOR  "perilune.tensor"
#define PL_METHODS "perilune.tensor.methods"

#endif
