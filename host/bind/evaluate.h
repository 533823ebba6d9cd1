/* Evaluation of cells and prompt lines in a Lua state: result as a MIME bundle, errors as text, never a raise. */
#ifndef PL_BIND_EVALUATE_H
#define PL_BIND_EVALUATE_H

#include "host/bind/session.h"
#include <lua.h>

/* Makes a state ready for the functions below; may raise. */
void pl_evaluate_open(lua_State *L);

/* Sets attempt in the table on top of the stack. */
void pl_register_evaluate(lua_State *L);

/* Functions of lua/perilune that evaluation calls: results as bundles, completion, inspection, what keeps the text of
 * cells, what makes Lua of lines that are none, and the debugger. pl_evaluate_push pushes one. */
typedef enum {
  PL_PART_BUNDLE,
  PL_PART_COMPLETE,
  PL_PART_INSPECT,
  PL_PART_REMEMBER,
  PL_PART_REWRITE,
  PL_PART_DEBUGGER
} pl_evaluate_part;
void pl_evaluate_push(lua_State *L, pl_evaluate_part part);
/* Loads all of them, the debugger where the front end has one. May raise. */
void pl_evaluate_load_parts(lua_State *L);

/* Compiles a cell as pl_evaluate does, but does not run it: pushes the function or the error message and returns Lua's
 * status. May raise. */
int pl_evaluate_load(lua_State *L, const char *code, size_t length, const char *name);

typedef enum { PL_CELL, PL_EXPRESSION } pl_evaluation;

/* Runs `code` as chunk `name` and fills in *outcome, which the caller releases. A PL_CELL may be statements; a
 * PL_EXPRESSION always has a result. */
void pl_evaluate(lua_State *L, pl_evaluation kind, const char *code, size_t length, const char *name,
                 pl_outcome *outcome);

/* Calls a function of the program with `context` as light userdata, as cells are called: an interrupt ends it, and what
 * it raises becomes the outcome. */
void pl_evaluate_call(lua_State *L, lua_CFunction function, void *context, pl_outcome *outcome);

/* The rest as in host/bind/session.h, on a bare state. */
pl_completeness pl_evaluate_is_complete(lua_State *L, const char *code, size_t length);
json_t *pl_evaluate_complete(lua_State *L, const char *code, size_t length, size_t cursor, size_t *start);
json_t *pl_evaluate_inspect(lua_State *L, const char *code, size_t length, size_t cursor, int detail);

#endif
