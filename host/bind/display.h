/* What Lua code shows and asks through its front end: MIME bundles, display messages, questions. */
#ifndef PL_BIND_DISPLAY_H
#define PL_BIND_DISPLAY_H

#include "host/bind/session.h"
#include <lua.h>

/* Remembers the front end of a state; `frontend` must outlive it. NULL: a script on its own. */
void pl_display_attach(lua_State *L, const pl_frontend *frontend);
const pl_frontend *pl_display_frontend(lua_State *L);

/* A new MIME bundle for the table at `index` (MIME type -> string, or table for JSON types): raw images and PDFs become
 * base64, text becomes valid UTF-8. Raises nothing; NULL and a sentence in `problem` when it cannot. */
json_t *pl_display_bundle(lua_State *L, int index, char problem[200]);

/* Pushes the line with which the user answers; raises when there is nobody to ask. */
void pl_display_ask(lua_State *L, const char *prompt, bool password);

/* Sets publish, payload, frontend, input, base64 and uuid in the table on top of the stack. */
void pl_register_display(lua_State *L);

#endif
