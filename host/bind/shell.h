/* Commands that Lua code runs, each a process group of its own that an interrupt ends: os.execute and io.popen of a
 * session with a front end, whose commands read nothing and write to where the process itself does; and programs that
 * are given text and give some back. */
#ifndef PL_BIND_SHELL_H
#define PL_BIND_SHELL_H

#include <lua.h>

/* os.execute([command]), with its results. */
int pl_shell_execute(lua_State *L);

/* io.popen(command [, mode]), with its results. */
int pl_shell_popen(lua_State *L);

/* Ends the commands that io.popen has started and nobody has closed. */
void pl_shell_end_all(void);

/* Sets filter in the table on top of the stack. */
void pl_register_shell(lua_State *L);

#endif
