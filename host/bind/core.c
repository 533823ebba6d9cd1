/* Puts the C half of the Lua module together. */
#include "host/bind/core.h"

#include "host/bind/bpe.h"
#include "host/bind/call.h"
#include "host/bind/cell.h"
#include "host/bind/comm.h"
#include "host/bind/construct.h"
#include "host/bind/data.h"
#include "host/bind/display.h"
#include "host/bind/distributed.h"
#include "host/bind/evaluate.h"
#include "host/bind/expression.h"
#include "host/bind/fields.h"
#include "host/bind/fused.h"
#include "host/bind/handle.h"
#include "host/bind/json.h"
#include "host/bind/process.h"
#include "host/bind/recording.h"
#include "host/bind/shell.h"
#include "host/bind/source.h"
#include "host/bind/system.h"
#include "host/bind/timer.h"

int pl_open_core(lua_State *L) {
  lua_newtable(L);
  pl_register_handle(L);
  pl_register_calls(L);
  pl_register_construct(L);
  pl_register_fields(L);
  pl_register_cell(L);
  pl_register_fused(L);
  pl_register_system(L);
  pl_register_timer(L);
  pl_register_recording(L);
  pl_register_json(L);
  pl_register_display(L);
  pl_register_expression(L);
  pl_register_source(L);
  pl_register_comm(L);
  pl_register_evaluate(L);
  pl_register_shell(L);
  pl_register_process(L);
  pl_register_data(L);
  pl_register_bpe(L);
  pl_register_distributed(L);
  lua_pushstring(L, PERILUNE_VERSION);
  lua_setfield(L, -2, "version");
  return 1;
}
