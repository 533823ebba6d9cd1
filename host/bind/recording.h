/* Recordings of a GPU's work. */
#ifndef PL_BIND_RECORDING_H
#define PL_BIND_RECORDING_H

#include <lua.h>

/* Sets cuda_graph in the table on top of the stack. */
void pl_register_recording(lua_State *L);

#endif
