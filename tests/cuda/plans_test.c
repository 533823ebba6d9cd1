/* Plans of recurrences and the pieces that their steps run in, by way of a made-up driver: which steps run and in what
 * order, graphs that cannot be made, interrupts, and whose memory goes first. Needs no GPU; the part about memory
 * compiles kernels and is left out without NVRTC. */
#include "host/bind/state.h"
#include "host/cpu/cpu.h"
#include "host/cuda/nvrtc.h"
#include "host/cuda/recurrence_plan.h"
#include "tests/check.h"

#include <lauxlib.h>
#include <stdlib.h>

/* ---- the driver: what is launched runs at once, what is captured runs with its graph ---- */

enum { STEPS_MAX = 20000, FAILED = 1 };

struct pl_cu_graph_ {
  int count, k[STEPS_MAX];
};

static pl_step_arguments arguments; /* where the plan believes its device memory */
static bool backward, capturing;
static int ran[STEPS_MAX], count, launches, fills, interrupt_at;
static int instantiated, execs, graphs;
static pl_cu_result instantiate_result, launch_result;
static pl_cu_graph captured;

static void run_step(int k) { ran[count++] = backward ? arguments.first - k : arguments.first + k; }

static pl_cu_result launch(const pl_cu_launch *how, pl_cu_function function, void **parameters, void **extra) {
  (void)how, (void)function, (void)extra;
  CHECK(*(pl_step_arguments **)parameters[0] == &arguments);
  int k = *(int *)parameters[1];
  if (++launches == interrupt_at) pl_interrupt_set(1);
  if (capturing)
    captured->k[captured->count++] = k;
  else
    run_step(k);
  return 0;
}

static pl_cu_result fill(pl_cu_pointer to, unsigned value, size_t words, pl_cu_stream stream) {
  (void)stream;
  CHECK(!capturing && words == 1 && to == (pl_cu_pointer)(uintptr_t)&arguments.first);
  arguments.first = (int)value;
  fills++;
  return 0;
}

static pl_cu_result begin_capture(pl_cu_stream stream, int mode) {
  (void)stream, (void)mode;
  CHECK(!capturing);
  capturing = true;
  captured = calloc(1, sizeof *captured);
  graphs++;
  return 0;
}

static pl_cu_result end_capture(pl_cu_stream stream, pl_cu_graph *graph) {
  (void)stream;
  CHECK(capturing);
  capturing = false;
  *graph = captured;
  return 0;
}

static pl_cu_result instantiate(pl_cu_graph_exec *exec, pl_cu_graph graph, unsigned long long flags) {
  (void)flags;
  if (instantiate_result) return instantiate_result;
  pl_cu_graph copy = malloc(sizeof *copy);
  *copy = *graph;
  *exec = (pl_cu_graph_exec)(void *)copy;
  instantiated++, execs++;
  return 0;
}

static pl_cu_result launch_graph(pl_cu_graph_exec exec, pl_cu_stream stream) {
  (void)stream;
  if (launch_result) return launch_result;
  pl_cu_graph graph = (pl_cu_graph)(void *)exec;
  for (int i = 0; i < graph->count; i++) run_step(graph->k[i]);
  return 0;
}

static pl_cu_result destroy_graph(pl_cu_graph graph) {
  free(graph);
  graphs--;
  return 0;
}

static pl_cu_result destroy_exec(pl_cu_graph_exec exec) {
  free((void *)exec);
  execs--;
  return 0;
}

static pl_cu_result load_module(pl_cu_module *module, const void *image) {
  (void)image;
  *module = NULL;
  return 0;
}

static pl_cu_result find_function(pl_cu_function *function, pl_cu_module module, const char *name) {
  (void)module, (void)name;
  *function = (pl_cu_function)(void *)&arguments;
  return 0;
}

static pl_cu_result set_current(pl_cu_context context) {
  (void)context;
  return 0;
}

static void install(void) {
  pl_cu.CtxSetCurrent = set_current;
  pl_cu.LaunchKernelEx = launch;
  pl_cu.MemsetD32Async = fill;
  pl_cu.StreamBeginCapture = begin_capture;
  pl_cu.StreamEndCapture = end_capture;
  pl_cu.GraphInstantiate = instantiate;
  pl_cu.GraphLaunch = launch_graph;
  pl_cu.GraphDestroy = destroy_graph;
  pl_cu.GraphExecDestroy = destroy_exec;
  pl_cu.ModuleLoadData = load_module;
  pl_cu.ModuleGetFunction = find_function;
}

/* ---- pieces ---- */

static pl_status run(pl_step_plan *plan, int steps) {
  plan->shape.steps = steps;
  backward = plan->backward;
  arguments.first = pl_step_plan_first(plan);
  count = launches = fills = 0;
  return pl_step_plan_run(plan);
}

/* Whether every step ran once, in order. */
static bool all_ran(const pl_step_plan *plan, int steps) {
  int end = plan->backward && plan->to_initial ? -1 : 0;
  if (count != steps - end) return false;
  for (int i = 0; i < count; i++)
    if (ran[i] != (plan->backward ? steps - 1 - i : i)) return false;
  return true;
}

static pl_step_plan plan_of(pl_cuda *cuda, bool back, bool to_initial) {
  return (pl_step_plan){.shape = {.batch = 2, .heads = 1, .dim = 8, .product = PL_PRODUCT_NONE},
                        .backward = back,
                        .to_initial = to_initial,
                        .arguments = (char *)&arguments,
                        .cuda = cuda};
}

static void pieces(pl_cuda *cuda) {
  static const int lengths[] = {1, 2, 8, 9, 10, 11, 512, 513, 514, 1024, 1100, 5000};
  for (int variant = 0; variant < 3; variant++)
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
      pl_step_plan plan = plan_of(cuda, variant > 0, variant == 2);
      for (int turn = 0; turn < 4; turn++) {
        CHECK(run(&plan, lengths[i]) == PL_OK && all_ran(&plan, lengths[i]));
        CHECK(!capturing && graphs == 0);
        CHECK(turn < 2 || lengths[i] < 12 || launches <= 1 + 8); /* graphs all but for a short rest */
      }
      int made = instantiated;
      CHECK(run(&plan, lengths[i]) == PL_OK && instantiated == made);
      CHECK(fills <= lengths[i] / 512);
      pl_step_graphs_forget(&plan);
      CHECK(execs == 0);
    }
}

static void bounded(pl_cuda *cuda) {
  pl_step_plan one = plan_of(cuda, false, false), other = plan_of(cuda, true, true);
  for (int steps = 20; steps < 220; steps++)
    for (int turn = 0; turn < 3; turn++) {
      pl_step_plan *plan = steps % 2 ? &one : &other;
      CHECK(run(plan, steps) == PL_OK && all_ran(plan, steps));
    }
  CHECK(execs > 1 && execs <= 64);
  pl_step_graphs_forget(&other);
  CHECK(execs > 0);
  CHECK(run(&one, 219) == PL_OK && all_ran(&one, 219) && launches == 0);
  pl_step_graphs_forget(&one);
  CHECK(execs == 0);
}

static void failing_graphs(pl_cuda *cuda) {
  pl_step_plan plan = plan_of(cuda, false, false);
  CHECK(run(&plan, 100) == PL_OK);
  instantiate_result = PL_CU_OUT_OF_MEMORY;
  CHECK(run(&plan, 100) == PL_OK && all_ran(&plan, 100) && execs == 0 && graphs == 0);
  instantiate_result = FAILED;
  CHECK(run(&plan, 100) == PL_ERROR && count == 0 && !capturing && graphs == 0);
  CHECK(strstr(pl_message(), "GraphInstantiate"));
  instantiate_result = 0;
  launch_result = PL_CU_OUT_OF_MEMORY;
  CHECK(run(&plan, 100) == PL_OK && all_ran(&plan, 100) && execs == 1);
  launch_result = 0;
  CHECK(run(&plan, 100) == PL_OK && all_ran(&plan, 100) && launches == 0);
  pl_step_graphs_forget(&plan);
}

static void interrupts(pl_cuda *cuda) {
  pl_step_plan plan = plan_of(cuda, false, false);
  interrupt_at = 50;
  for (int turn = 0; turn < 2; turn++) { /* while steps are launched; while they are captured */
    CHECK(run(&plan, 3000) == PL_INTERRUPTED && launches == 50 && !capturing && graphs == 0);
    pl_interrupt_set(0);
  }
  interrupt_at = 0;
  CHECK(run(&plan, 3000) == PL_OK && all_ran(&plan, 3000));
  pl_step_graphs_forget(&plan);
}

/* ---- memory ---- */

static size_t room = SIZE_MAX;

static pl_status take(pl_device *device, size_t bytes, void **data) {
  if (bytes > room) return PL_FAIL_MEMORY("%s: no room for %zu bytes", device->name, bytes);
  room -= bytes;
  *data = malloc(bytes);
  return PL_OK;
}

static void give(pl_device *device, void *data, size_t bytes) {
  (void)device;
  room += bytes;
  free(data);
}

static pl_recurrence recurrence_of(const pl_cell *cell, int64_t heads) {
  return (pl_recurrence){.cell = cell,
                         .batch = 16,
                         .steps = 4,
                         .heads = heads,
                         .dim = 64,
                         .type = PL_F32,
                         .storage = PL_F32,
                         .product = PL_F32,
                         .step = {{PL_PRODUCT_INSIDE, 8, 1, 1}, {PL_PRODUCT_INSIDE, 8, 1, 1}}};
}

static pl_status find(pl_cuda *cuda, const pl_cell *cell, int64_t heads, pl_step_plan **plan) {
  pl_recurrence q = recurrence_of(cell, heads);
  return pl_step_plan_find(cuda, &q, false, false, plan);
}

static pl_memory memory_of(pl_cuda *cuda) {
  pl_memory now;
  pl_device_memory(&cuda->device, &now);
  return now;
}

static void memory(pl_cuda *cuda, const pl_cell *cell) {
  pl_step_plan *plan, *first;
  pl_buffer *big = NULL;
  CHECK(find(cuda, cell, 1, &first) == PL_OK);
  size_t one = memory_of(cuda).live;
  CHECK(one > 64 * 64 * 4 * sizeof(float) && memory_of(cuda).buffers == 1); /* R in it */
  CHECK(find(cuda, cell, 1, &plan) == PL_OK && plan == first && memory_of(cuda).live == one);

  /* Another cut is another plan, and the first is still there. */
  pl_recurrence wide = recurrence_of(cell, 1);
  wide.step[0].warps = 16;
  CHECK(pl_step_plan_find(cuda, &wide, false, false, &plan) == PL_OK && plan != first && plan->shape.warps == 16);
  CHECK(find(cuda, cell, 1, &plan) == PL_OK && plan == first && plan->shape.warps == 8);

  /* Many shapes: a bounded number of plans, and bytes; the one used last stays. */
  for (int64_t heads = 2; heads <= 40; heads++) {
    CHECK(find(cuda, cell, heads, &plan) == PL_OK);
    CHECK(find(cuda, cell, 1, &plan) == PL_OK && plan == first);
    CHECK(memory_of(cuda).buffers <= 24);
  }
  CHECK(memory_of(cuda).buffers == 24);
  cuda->total_bytes = 16 * 20 * one;
  CHECK(find(cuda, cell, 10, &plan) == PL_OK && find(cuda, cell, 11, &plan) == PL_OK);
  CHECK(memory_of(cuda).live <= 20 * one && memory_of(cuda).buffers == 1);
  CHECK(find(cuda, cell, 30, &plan) == PL_OK && memory_of(cuda).buffers == 1); /* larger than that alone */

  /* The limit binds plans, and takes them before it is an error. */
  cuda->total_bytes = SIZE_MAX;
  CHECK(find(cuda, cell, 2, &plan) == PL_OK && memory_of(cuda).buffers == 2);
  pl_device_limit(&cuda->device, memory_of(cuda).live + 1024);
  CHECK(pl_buffer_new(&cuda->device, 20 * one, &big) == PL_OK && memory_of(cuda).buffers == 2);
  CHECK(find(cuda, cell, 2, &first) == PL_OK && first == plan);
  CHECK(find(cuda, cell, 60, &plan) == PL_OUT_OF_MEMORY);
  CHECK(strstr(pl_message(), "out of memory") && strstr(pl_message(), "limit") && strstr(pl_message(), "peak"));
  CHECK(memory_of(cuda).buffers == 1); /* all plans went to make room */
  pl_buffer_release(big);
  CHECK(memory_of(cuda).live == 0);
  pl_device_limit(&cuda->device, SIZE_MAX);

  /* So does a GPU that is full. */
  pl_device_trim(&cuda->device);
  room = 12 * one;
  for (int64_t heads = 1; heads <= 3; heads++) CHECK(find(cuda, cell, heads, &plan) == PL_OK);
  CHECK(pl_buffer_new(&cuda->device, 8 * one, &big) == PL_OK && memory_of(cuda).buffers == 2);
  CHECK(find(cuda, cell, 3, &first) == PL_OK && first == plan);
  pl_buffer_release(big);
  CHECK(pl_buffer_new(&cuda->device, 100 * one, &big) == PL_OUT_OF_MEMORY && memory_of(cuda).live == 0);
  CHECK(find(cuda, cell, 3, &plan) == PL_OK);
  while (pl_step_plans_shed(&cuda->device)) continue;
  CHECK(memory_of(cuda).live == 0 && memory_of(cuda).buffers == 0);
}

/* ---- cuts ---- */

static bool refuses(const pl_recurrence *q, bool way, const char *words) {
  pl_step_shape shape;
  if (pl_step_shape_of(q, way, &shape) != PL_OK && strstr(pl_message(), words)) return true;
  printf("not \"%s\", but \"%s\"\n", words, pl_message());
  return false;
}

/* What a cut of the LSTM comes to, and the limit that is named where there is none or the kernels cannot do it. */
static void cuts(const pl_cell *cell) {
  pl_step_shape shape;
  pl_recurrence q = recurrence_of(cell, 2);
  q.dim = 100, q.step[0].unit_tiles = 2;
  CHECK(pl_step_shape_of(&q, false, &shape) == PL_OK && shape.tiles == 14 && shape.columns == 8 && shape.chunks == 7);
  CHECK(pl_step_shape_of(&q, true, &shape) == PL_OK && shape.tiles == 13 && shape.columns == 1 && shape.chunks == 25);
  q.step[1].product = PL_PRODUCT_BLAS;
  CHECK(pl_step_shape_of(&q, true, &shape) == PL_OK && shape.product == PL_PRODUCT_BLAS);

  static const struct {
    pl_step_cut cut;
    const char *words;
  } wrong[] = {
      {{PL_PRODUCT_NONE, 0, 0, 0}, "backward: on a GPU, expected a fused plan or how the steps are cut, got neither"},
      {{PL_PRODUCT_NONE, 8, 1, 1}, "backward.product: expected 1 (inside) or 2 (blas), got 0"},
      {{7, 8, 1, 1}, "backward.product: expected 1 (inside) or 2 (blas), got 7"},
      {{PL_PRODUCT_INSIDE, 0, 1, 1}, "backward.warps: expected 1 to 32, got 0"},
      {{PL_PRODUCT_INSIDE, 33, 1, 1}, "backward.warps: expected 1 to 32, got 33"},
      {{PL_PRODUCT_INSIDE, 8, 1, 3}, "backward.unit_tiles: expected 1 to 2 with 8 warps, got 3"},
      {{PL_PRODUCT_INSIDE, 8, -1, 1}, "backward.rows: expected 1 to 2 with 8 warps and unit_tiles 1, got -1"},
      {{PL_PRODUCT_INSIDE, 8, 2, 2}, "backward.rows: expected 1 to 1 with 8 warps and unit_tiles 2, got 2"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    q.step[1] = wrong[i].cut;
    CHECK(refuses(&q, true, wrong[i].words));
  }
  pl_recurrence big = recurrence_of(cell, 2);
  big.step[0] = (pl_step_cut){PL_PRODUCT_INSIDE, 16, 2, 1};
  CHECK(
      refuses(&big, false, "forward: warps 16, rows 2, unit_tiles 1: the sums of a block take 81920 bytes of shared"));
  big = recurrence_of(cell, UINT16_MAX + 1);
  CHECK(refuses(&big, false, "forward.product: inside takes at most 65535 heads, got 65536"));
  big = recurrence_of(cell, 1), big.dim = 2056;
  CHECK(refuses(&big, true, "backward.product: inside adds up at most 512 chunks of 64 bytes, got 514"));
  big = recurrence_of(cell, 1), big.batch = 16 << 16;
  CHECK(refuses(&big, false, "forward.rows: at most 65535 blocks share the batch, got 65536"));
  big = recurrence_of(cell, 1), big.product = PL_F64;
  CHECK(refuses(&big, false, "forward.product: expected blas for float64, got inside"));
}

static const pl_cell *lstm(lua_State **L) {
  if (pl_state_new(L) != PL_OK || luaL_dostring(*L, "return require('perilune').cells.lstm:compile()") != LUA_OK)
    return NULL;
  return *(pl_cell **)luaL_checkudata(*L, -1, "perilune.cell");
}

int main(void) {
  static pl_cuda cuda = {.device = {.name = "made-up", .allocate = take, .release = give, .shed = pl_step_plans_shed},
                         .architecture = 90,
                         .total_bytes = SIZE_MAX,
                         .entered = true};
  lua_State *L = NULL;
  cuda.device.state = &cuda;
  install();
  pl_cpu_open();
  pl_device_register(&cuda.device);
  pieces(&cuda);
  bounded(&cuda);
  failing_graphs(&cuda);
  interrupts(&cuda);
  const pl_cell *cell = lstm(&L);
  CHECK(cell);
  if (cell) cuts(cell);
  if (cell && pl_nvrtc_open() == PL_OK) {
    unsetenv("XDG_CACHE_HOME"); /* cubins of a made-up GPU are not kept */
    unsetenv("HOME");
    memory(&cuda, cell);
  } else
    printf("without NVRTC nothing is said of memory: %s\n", pl_message());
  if (L) lua_close(L);
  return finished("plans of recurrences");
}
