/* Lua source as a notebook or prompt meets it: the last expression is the result, and code may be unfinished. */
#ifndef PL_BIND_SOURCE_H
#define PL_BIND_SOURCE_H

#include "host/base/text.h"
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_NO_RESULT SIZE_MAX

typedef struct {
  bool silent;     /* ends in ';': the result is not to be shown */
  bool functions;  /* may define functions, of which people ask for the text later */
  bool incomplete; /* did not compile, but more text could make it compile */
  size_t result;   /* where the last expression begins, PL_NO_RESULT when the last statement is none */
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

/* Appends the blanks that the line after unfinished code should begin with: those of its neighbours in the innermost
 * open block or bracket, or one step more than the line that opened it; none inside a long string, of which they would
 * become part. A step is what the code itself uses. */
void pl_source_indent(const char *code, size_t length, pl_text *indent);

/* Sets tokens (the parts of a piece of code) and keywords (a list) in the table on top of the stack. */
void pl_register_source(lua_State *L);

#endif
