/* From the tables that lua/perilune/cell emits to pl_cell, and the call of the recurrent operation. What comes from Lua
 * is checked here once, so that devices can run programs without looking. */
#include "host/bind/cell.h"

#include "host/bind/handle.h"
#include <stdlib.h>
#include <string.h>

static const char CELL[] = "perilune.cell";

pl_cell *pl_check_cell(lua_State *L, int index) { return *(pl_cell **)luaL_checkudata(L, index, CELL); }

static int collect(lua_State *L) {
  pl_cell **cell = lua_touserdata(L, 1);
  if (*cell) pl_cell_release(*cell);
  *cell = NULL;
  return 0;
}

static lua_Integer integer_field(lua_State *L, int index, const char *name, lua_Integer low, lua_Integer high) {
  int exact;
  lua_getfield(L, index, name);
  lua_Integer value = lua_tointegerx(L, -1, &exact);
  if (!exact || value < low || value > high)
    pl_error(L, "cell: %s: expected an integer in %d..%d, got %s", name, (int)low, (int)high,
             luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  return value;
}

static int table_field(lua_State *L, int index, const char *name) {
  if (lua_getfield(L, index, name) != LUA_TTABLE)
    pl_error(L, "cell: %s: expected a table, got %s", name, luaL_typename(L, -1));
  return (int)luaL_len(L, -1);
}

static uint8_t register_at(lua_State *L, int position, int low, int high) {
  int exact;
  lua_geti(L, -1, position);
  lua_Integer value = lua_tointegerx(L, -1, &exact);
  if (!exact || value < low || value >= high)
    pl_error(L, "cell: a program uses register %s outside %d..%d", luaL_tolstring(L, -1, NULL), low, high - 1);
  lua_pop(L, 1);
  return (uint8_t)value;
}

/* The instruction on top of the stack: { operation, target, a, b, c }. */
static pl_instruction read_instruction(lua_State *L, const pl_program *program) {
  if (!lua_istable(L, -1)) pl_error(L, "cell: code: expected tables, got %s", luaL_typename(L, -1));
  lua_geti(L, -1, 1);
  pl_op op = lua_type(L, -1) == LUA_TSTRING ? pl_pointwise_named(lua_tostring(L, -1)) : PL_OPS;
  if (op == PL_OPS) pl_error(L, "cell: unknown operation '%s'", luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  int fixed = program->inputs + program->constants, all = program->registers;
  return (pl_instruction){.op = (uint8_t)op,
                          .target = register_at(L, 2, fixed, all),
                          .a = register_at(L, 3, 0, all),
                          .b = register_at(L, 4, 0, all),
                          .c = register_at(L, 5, 0, all)};
}

static void read_program(lua_State *L, int index, const char *name, int inputs, int outputs, pl_program *program) {
  table_field(L, index, name);
  int at = lua_gettop(L);
  program->inputs = (int)integer_field(L, at, "inputs", inputs, inputs);
  int constants = table_field(L, at, "constants");
  program->registers = (int)integer_field(L, at, "registers", inputs + constants, PL_REGISTERS_MAX);
  program->constant = pl_allocate((size_t)constants * sizeof(double));
  program->constants = constants;
  for (int i = 0; i < constants; i++) {
    lua_geti(L, -1, i + 1);
    program->constant[i] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  int count = table_field(L, at, "code");
  program->code = pl_allocate((size_t)count * sizeof *program->code);
  program->count = count;
  for (int i = 0; i < count; i++) {
    lua_geti(L, -1, i + 1);
    program->code[i] = read_instruction(L, program);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  if (table_field(L, at, "outputs") != outputs) pl_error(L, "cell: %s: expected %d outputs", name, outputs);
  program->output = pl_allocate((size_t)outputs * sizeof *program->output);
  program->outputs = outputs;
  for (int i = 0; i < outputs; i++) {
    lua_geti(L, -1, i + 1);
    bool zero = lua_tointeger(L, -1) == -1;
    lua_pop(L, 1);
    program->output[i] = zero ? -1 : register_at(L, i + 1, 0, program->registers);
  }
  lua_pop(L, 2);
}

static bool flag(lua_State *L, const char *name) {
  lua_getfield(L, -1, name);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static int new_cell(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  pl_cell **handle = lua_newuserdatauv(L, sizeof *handle, 0);
  *handle = NULL;
  luaL_setmetatable(L, CELL);
  pl_cell *cell = *handle = pl_allocate(sizeof *cell);
  cell->count = 1;
  lua_getfield(L, 1, "key");
  cell->key = pl_duplicate(luaL_checkstring(L, -1));
  lua_pop(L, 1);
  cell->gates = table_field(L, 1, "gates");
  if (cell->gates > PL_GATES_MAX) return pl_error(L, "cell: at most %d gates, got %d", PL_GATES_MAX, cell->gates);
  for (int i = 0; i < cell->gates; i++) {
    if (lua_geti(L, -1, i + 1) != LUA_TTABLE) return pl_error(L, "cell: gates: expected tables");
    cell->has_input[i] = flag(L, "input");
    cell->has_recurrent[i] = flag(L, "recurrent");
    cell->has_bias[i] = flag(L, "bias");
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  cell->states = (int)integer_field(L, 1, "states", 1, PL_STATES_MAX);
  cell->params = (int)integer_field(L, 1, "params", 0, PL_PARAMS_MAX);
  cell->saves = (int)integer_field(L, 1, "saves", 0, PL_SAVES_MAX);
  if (table_field(L, 1, "initial") != cell->states) return pl_error(L, "cell: initial: expected a number per state");
  for (int i = 0; i < cell->states; i++) {
    lua_geti(L, -1, i + 1);
    cell->initial[i] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  int g = cell->gates, s = cell->states, p = cell->params, v = cell->saves;
  read_program(L, 1, "forward", g + s + p, s + v, &cell->forward);
  read_program(L, 1, "backward", v + s + s + p + s, g + s + p, &cell->backward);
  return 1;
}

/* cell_text(cell) -> what devices compile for it, as text */
static int cell_text(lua_State *L) {
  const pl_cell *cell = pl_check_cell(L, 1);
  pl_text text = {0};
  pl_device_cell_text(cell, &text);
  lua_pushlstring(L, text.data ? text.data : "", text.length);
  pl_text_release(&text);
  return 1;
}

/* ---- the recurrence ---- */

typedef struct {
  pl_recurrence r;
  pl_tensor *input, *recurrent, *bias, *initial, *lengths, *parameters[PL_PARAMS_MAX];
  char outputs;
  pl_tensor *states, *last;
} recurrence_run;

static pl_status run_recurrence(void *context) {
  recurrence_run *run = context;
  return pl_recur(run->r, run->input, run->recurrent, run->bias, run->parameters, run->initial, run->lengths,
                  run->outputs, &run->states, &run->last);
}

static int number_field(lua_State *L, int table, const char *of, const char *name) {
  if (lua_getfield(L, table, name) != LUA_TNUMBER) pl_error(L, "recurrence: %s.%s: expected a number", of, name);
  int value = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return value;
}

static int plan_field(lua_State *L, int table, const char *name) { return number_field(L, table, "fused", name); }

void pl_read_fused_plan(lua_State *L, int table, pl_fused_plan *plan) {
  *plan = (pl_fused_plan){
      .scope = plan_field(L, table, "scope"),
      .rows = plan_field(L, table, "rows"),
      .blocks = plan_field(L, table, "blocks"),
      .parts = plan_field(L, table, "parts"),
      .clustered = plan_field(L, table, "clustered"),
      .groups = plan_field(L, table, "groups"),
      .splits = plan_field(L, table, "splits"),
      .writers = {plan_field(L, table, "writers_forward"), plan_field(L, table, "writers_backward")},
      .ring = plan_field(L, table, "ring"),
      .registers = {plan_field(L, table, "registers_forward"), plan_field(L, table, "registers_backward")},
      .resident = plan_field(L, table, "resident"),
  };
}

void pl_read_step_cuts(lua_State *L, int table, pl_step_cut cuts[2]) {
  static const char *const ways[] = {"forward", "backward"};
  for (int way = 0; way < 2; way++) {
    if (lua_getfield(L, table, ways[way]) != LUA_TTABLE)
      pl_error(L, "recurrence: alternating.%s: expected a table", ways[way]);
    int of_way = lua_gettop(L);
    cuts[way] = (pl_step_cut){
        .product = number_field(L, of_way, ways[way], "product"),
        .warps = number_field(L, of_way, ways[way], "warps"),
        .rows = number_field(L, of_way, ways[way], "rows"),
        .unit_tiles = number_field(L, of_way, ways[way], "unit_tiles"),
    };
    lua_pop(L, 1);
  }
}

/* Options at index 7, which holds the lengths. */
static void read_recurrence_options(lua_State *L, int index, recurrence_run *run) {
  luaL_checktype(L, index, LUA_TTABLE);
  lua_getfield(L, index, "outputs");
  run->outputs = *luaL_optstring(L, -1, "all");
  lua_getfield(L, index, "cut");
  run->r.cut = lua_toboolean(L, -1);
  lua_getfield(L, index, "clip");
  run->r.clip = luaL_optnumber(L, -1, 0);
  run->r.product = run->input->array.dtype;
  if (lua_getfield(L, index, "product") != LUA_TNIL) run->r.product = pl_dtype_named(luaL_checkstring(L, -1));
  if (run->r.product == PL_DTYPES || !pl_dtype_is_float(run->r.product))
    pl_error(L, "recurrence: product: expected a floating-point type, got '%s'", lua_tostring(L, -1));
  if (lua_getfield(L, index, "fused") == LUA_TTABLE) pl_read_fused_plan(L, lua_gettop(L), &run->r.plan);
  if (lua_getfield(L, index, "alternating") == LUA_TTABLE) pl_read_step_cuts(L, lua_gettop(L), run->r.step);
  lua_getfield(L, index, "lengths");
  run->lengths = pl_optional_tensor(L, lua_gettop(L), "recurrence", "lengths");
}

/* recurrence(cell, Wx, R, b, params, initial, options) -> states or nil, last */
static int recurrence(lua_State *L) {
  lua_settop(L, 7);
  recurrence_run run = {0};
  run.r.cell = pl_check_cell(L, 1);
  run.input = pl_check_tensor(L, 2, "recurrence", "Wx");
  run.recurrent = pl_optional_tensor(L, 3, "recurrence", "R");
  run.bias = pl_optional_tensor(L, 4, "recurrence", "b");
  run.initial = pl_optional_tensor(L, 6, "recurrence", "states");
  for (int i = 0; i < run.r.cell->params; i++) {
    luaL_checktype(L, 5, LUA_TTABLE);
    lua_geti(L, 5, i + 1);
    run.parameters[i] = pl_check_tensor(L, -1, "recurrence", "params"); /* held by the table */
    lua_pop(L, 1);
  }
  read_recurrence_options(L, 7, &run);
  pl_tensor **states = pl_push_handle(L), **last = pl_push_handle(L);
  pl_run(L, "rnn", run_recurrence, &run);
  *states = run.states;
  *last = run.last;
  if (!run.states) {
    lua_pushnil(L);
    lua_replace(L, -3);
  }
  return 2;
}

void pl_register_cell(lua_State *L) {
  static const luaL_Reg functions[] = {{"cell", new_cell}, {"cell_text", cell_text}, {"recurrence", recurrence}, {0}};
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, CELL);
  lua_pushcfunction(L, collect);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}
