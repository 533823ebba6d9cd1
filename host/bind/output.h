/* print and the io library of a session whose output and input go to a front end. */
#ifndef PL_BIND_OUTPUT_H
#define PL_BIND_OUTPUT_H

#include <lua.h>

/* Replaces print, os.execute, io.popen, io.write, io.read, io.lines and the write, read and lines of io.stdout,
 * io.stderr and io.stdin, as far as the attached front end has callbacks. Files that code opens, and io.output(file),
 * work as ever. */
void pl_output_redirect(lua_State *L);

#endif
