/* Compiled cells and the recurrence as Lua sees them. */
#ifndef PL_BIND_CELL_H
#define PL_BIND_CELL_H

#include "host/device/recurrence.h"
#include <lua.h>

/* Sets cell and recurrence in the table on top of the stack. */
void pl_register_cell(lua_State *L);

/* The compiled cell at `index`; raises an error where there is none. */
pl_cell *pl_check_cell(lua_State *L, int index);
/* The fused plan in the table at index `table`, which has a number for each of its fields. */
void pl_read_fused_plan(lua_State *L, int table, pl_fused_plan *plan);
/* The chip in the table at index `table`: architecture, multiprocessors and shared_bytes. */
pl_fused_chip pl_read_fused_chip(lua_State *L, int table);
/* The cuts of steps in the table at index `table`: { forward =, backward = }, each with a number for each field. */
void pl_read_step_cuts(lua_State *L, int table, pl_step_cut cuts[2]);

#endif
