/* Lua values as JSON and back. A sequence is an array, any other table an object, an empty table an object unless it
 * was marked as an array; integers stay integers; NaN and infinities become null; strings are made valid UTF-8. */
#ifndef PL_BIND_JSON_H
#define PL_BIND_JSON_H

#include <jansson.h>
#include <lua.h>

/* A new JSON value for the Lua value at `index`. Raises nothing; NULL and a sentence in `problem` when it cannot be
 * expressed. */
json_t *pl_lua_to_json(lua_State *L, int index, char problem[200]);

/* Pushes the value; may raise for want of memory, so that `value` should belong to Lua already (pl_json_box). */
void pl_json_to_lua(lua_State *L, const json_t *value);

/* Pushes an empty userdata that releases the JSON value put into it. */
json_t **pl_json_box(lua_State *L);

/* A JSON string of `data`, repaired to valid UTF-8. */
json_t *pl_json_string(const char *data, size_t length);

/* Sets json_encode, json_decode, json_array and null in the table on top of the stack. */
void pl_register_json(lua_State *L);

#endif
