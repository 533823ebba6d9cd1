/* Comms: messages between Lua code and widgets of a front end. Targets, open comms and handlers are kept by
 * lua/perilune/comm.lua; this is its way to the front end and back. */
#ifndef PL_BIND_COMM_H
#define PL_BIND_COMM_H

#include "host/bind/session.h"
#include <lua.h>

/* As in host/bind/session.h, on a bare state. */
void pl_comm_receive(lua_State *L, const pl_comm_message *message, pl_outcome *outcome);
json_t *pl_comm_list(lua_State *L, const char *target);

/* Sets comm_send and comm_attach in the table on top of the stack. */
void pl_register_comm(lua_State *L);

#endif
