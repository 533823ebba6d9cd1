/* Lua source as a notebook or prompt meets it: the last expression is the result, and code may be unfinished. */
#ifndef PL_BIND_SOURCE_H
#define PL_BIND_SOURCE_H

#include <lua.h>
#include <stdbool.h>

typedef struct {
  bool silent;     /* ends in ';': the result is not to be shown */
  bool incomplete; /* did not compile, but more text could make it compile */
} pl_source;

/* Compiles `code` as chunk "=name" so that it returns the value of its last expression: `return` is put before that
 * expression, in the same line and the same chunk. Code whose last statement is no expression is compiled as it is.
 * Pushes the function or the error message; returns Lua's status. Raises nothing. */
int pl_source_load(lua_State *L, const char *code, size_t length, const char *name, pl_source *source);

/* Compiles one expression list. */
int pl_source_load_expression(lua_State *L, const char *code, size_t length, const char *name);

/* Calls take for each variable that the chunk declares local outside all blocks: those that end only with it. */
void pl_source_locals(const char *code, size_t length, void (*take)(void *context, const char *name, size_t length),
                      void *context);

/* Lua's reserved words in alphabetical order, ended by NULL. */
extern const char *const pl_source_keywords[];

#endif
