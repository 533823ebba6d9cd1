/* os.execute for a session with a front end: the command's output goes there, and an interrupt ends the command. */
#ifndef PL_BIND_SHELL_H
#define PL_BIND_SHELL_H

#include <lua.h>

/* os.execute([command]), with its results. The command reads nothing, and forms a process group of its own. */
int pl_shell_execute(lua_State *L);

#endif
