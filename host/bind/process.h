/* Processes that go on beside the script that started them, and locks between processes. */
#ifndef PL_BIND_PROCESS_H
#define PL_BIND_PROCESS_H

#include <lua.h>

/* Sets children, lock, locked, program and working_directory in the table on top of the stack. */
void pl_register_process(lua_State *L);

#endif
