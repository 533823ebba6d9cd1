/* A Lua state with its front end. */
#include "host/bind/session.h"
#include "host/bind/comm.h"
#include "host/bind/debugger.h"
#include "host/bind/display.h"
#include "host/bind/evaluate.h"
#include "host/bind/interrupt.h"
#include "host/bind/output.h"
#include "host/bind/shell.h"
#include "host/bind/source.h"
#include "host/bind/state.h"
#include "host/device/device.h"

#include <lua.h>
#include <stdlib.h>

struct pl_session {
  lua_State *L;
  pl_frontend frontend;
};

const char *pl_session_language_version(void) {
  return LUA_VERSION_MAJOR "." LUA_VERSION_MINOR "." LUA_VERSION_RELEASE;
}

static int attach(lua_State *L) {
  pl_display_attach(L, lua_touserdata(L, 1));
  pl_output_redirect(L); /* what is opened below keeps the functions as they then are */
  pl_evaluate_open(L);
  return 0;
}

pl_status pl_session_new(const pl_frontend *frontend, pl_session **session) {
  pl_session *new = pl_allocate(sizeof *new);
  if (frontend) new->frontend = *frontend;
  pl_status status = pl_state_new(&new->L);
  if (status == PL_OK) {
    lua_pushcfunction(new->L, attach);
    lua_pushlightuserdata(new->L, &new->frontend);
    if (lua_pcall(new->L, 1, 0, 0) != LUA_OK) {
      status = PL_FAIL("cannot open the session: %s", lua_tostring(new->L, -1));
      lua_close(new->L);
    }
  }
  if (status != PL_OK) {
    free(new);
    return status;
  }
  pl_interrupt_install(false);
  *session = new;
  return PL_OK;
}

void pl_session_free(pl_session *session) {
  if (!session) return;
  pl_debugger_close();
  pl_shell_end_all(); /* closing their files would wait for them */
  lua_close(session->L);
  free(session);
}

void pl_session_execute(pl_session *session, const char *code, size_t length, const char *name, pl_outcome *outcome) {
  pl_evaluate(session->L, PL_CELL, code, length, name, outcome);
}

void pl_session_evaluate(pl_session *session, const char *expression, size_t length, pl_outcome *outcome) {
  pl_evaluate(session->L, PL_EXPRESSION, expression, length, "expression", outcome);
}

void pl_session_comm(pl_session *session, const pl_comm_message *message, pl_outcome *outcome) {
  pl_comm_receive(session->L, message, outcome);
}

json_t *pl_session_comms(pl_session *session, const char *target) { return pl_comm_list(session->L, target); }

pl_completeness pl_session_is_complete(pl_session *session, const char *code, size_t length, pl_text *indent) {
  pl_completeness state = pl_evaluate_is_complete(session->L, code, length);
  if (state == PL_CODE_INCOMPLETE) pl_source_indent(code, length, indent);
  return state;
}

json_t *pl_session_complete(pl_session *session, const char *code, size_t length, size_t cursor, size_t *start) {
  return pl_evaluate_complete(session->L, code, length, cursor, start);
}

json_t *pl_session_inspect(pl_session *session, const char *code, size_t length, size_t cursor, int detail) {
  return pl_evaluate_inspect(session->L, code, length, cursor, detail);
}

json_t *pl_session_debug(pl_session *session, const json_t *request) { return pl_debugger_answer(session->L, request); }

void pl_session_attend(pl_session *session) {
  (void)session;
  pl_interrupt_attention();
}

json_t *pl_session_gpus(void) {
  json_t *gpus = json_array();
  for (int i = 0, count = pl_device_count(); i < count; i++) {
    pl_device *device = pl_device_at(i);
    pl_memory now;
    size_t available, total;
    pl_device_memory(device, &now);
    if (!device->capacity || now.peak == 0) continue;
    json_t *gpu = json_pack("{s:s, s:s, s:I, s:I, s:I}", "name", device->name, "model", device->model, "live",
                            (json_int_t)now.live, "cached", (json_int_t)now.cached, "peak", (json_int_t)now.peak);
    if (device->capacity(device, &available, &total) == PL_OK) {
      json_object_set_new(gpu, "available", json_integer((json_int_t)available));
      json_object_set_new(gpu, "total", json_integer((json_int_t)total));
    }
    json_array_append_new(gpus, gpu);
  }
  return gpus;
}

void pl_session_interrupt(pl_session *session) {
  (void)session; /* one session per process: the thread that owns it is known to the signal handler */
  pl_interrupt_request();
}

void pl_session_await(pl_session *session, bool on) {
  (void)session;
  pl_interrupt_await(on);
}
