/* Fused recurrences on two streams of one GPU at once: a second device of the same GPU, with a stream, memory and
 * kernels of its own, as two libraries in a process would have them. What they compute must be what each computes
 * alone, and nothing may wait for ever. Skips itself where there is no GPU. */
#include "host/bind/state.h"
#include "host/cpu/cpu.h"
#include "host/cuda/cuda.h"
#include "tests/check.h"

#include <lauxlib.h>
#include <stdlib.h>

/* Blocks of both: few that fit beside each other, and so many that one launch has to wait for the other. */
static const char SCRIPT[] =
    "local pl = require 'perilune'\n"
    "local devices, lstm = { 'cuda:0', 'cuda:63' }, pl.cells.lstm\n"
    "local multiprocessors = require 'perilune.core'.fused_chip('cuda:0').multiprocessors\n"
    "local function problem(device, D, plan)\n"
    "  local opts = { dtype = 'bfloat16', device = device }\n"
    "  local function drawn(...) return pl.randn { dtype = opts.dtype, device = device, ... } end\n"
    "  pl.seed(D)\n"
    "  local x = { Wx = drawn(4, 200, 4, 1, D):requires_grad(), R = drawn(4, 1, D, D) * (1 / D ^ 0.5), b = drawn(4, 1, "
    "D),\n"
    "              seed = drawn(4, 200, 1, D) }\n"
    "  x.plan = pl.rnn_plan { cell = lstm, batch = 4, head_dim = D, dtype = 'bfloat16', device = device, plan = plan "
    "}\n"
    "  return x\n"
    "end\n"
    "local function run(x)\n"
    "  local h = pl.rnn(x.Wx, x.R, x.b, { cell = lstm, plan = x.plan, outputs = 'h' })\n"
    "  h:backward(x.seed:reshape(h.shape))\n"
    "  local gradient = x.Wx.grad\n"
    "  x.Wx.grad = nil\n"
    "  return h:detach(), gradient\n"
    "end\n"
    "local launches = 0\n"
    "for _, case in ipairs {\n"
    "  { D = 64, plan = { scope = 'block' } }, { D = 128, plan = { scope = 'grid' } },\n"
    "  { D = 256, plan = { scope = 'grid', clustered = false } },\n"
    "  { D = 768, plan = { scope = 'grid', blocks = multiprocessors >= 96 and 96 or 48 } },\n"
    "} do\n"
    "  local alone, both = {}, {}\n"
    "  for i, device in ipairs(devices) do\n"
    "    both[i] = problem(device, case.D, case.plan)\n"
    "    alone[i] = { run(both[i]) }\n"
    "    pl.synchronize(device)\n"
    "  end\n"
    "  local wrong = {}\n"
    "  for i = 1, 2 do wrong[i] = pl.zeros { 1, device = devices[i] } end\n"
    "  for _ = 1, 50 do\n"
    "    for i = 1, 2 do\n"
    "      local _ <close> = pl.scope()\n"
    "      local found = { run(both[i]) }\n"
    "      for k = 1, 2 do wrong[i]:copy_(wrong[i] + pl.ne(found[k], alone[i][k]):sum():float()) end\n"
    "      launches = launches + 2\n"
    "    end\n"
    "  end\n"
    "  for i = 1, 2 do\n"
    "    assert(wrong[i]:item() == 0, ('D = %d on stream %d: %d values differ'):format(case.D, i, wrong[i]:item()))\n"
    "    assert(alone[i][1]:float():abs():sum():item() > 0)\n"
    "  end\n"
    "end\n"
    "print(launches .. ' launches on two streams, all as they are alone')\n";

/* The same GPU once more, before its first use. */
static void register_again(const pl_device *device) {
  const pl_cuda *first = device->state;
  pl_cuda *second = calloc(1, sizeof *second);
  *second = (pl_cuda){.device = first->device,
                      .ordinal = first->ordinal,
                      .handle = first->handle,
                      .architecture = first->architecture,
                      .multiprocessors = first->multiprocessors,
                      .shared_bytes_max = first->shared_bytes_max,
                      .total_bytes = first->total_bytes};
  memcpy(second->model, first->model, sizeof second->model);
  second->device.state = second;
  snprintf(second->device.name, sizeof second->device.name, "cuda:63");
  pl_device_register(&second->device);
}

int main(void) {
  pl_device *device;
  lua_State *L = NULL;
  pl_cpu_open();
  pl_cuda_open();
  if (pl_device_named("cuda", &device) != PL_OK) return skipped();
  register_again(device);
  CHECK(pl_state_new(&L) == PL_OK);
  if (L && luaL_dostring(L, SCRIPT) != LUA_OK) fprintf(stderr, "%s\n", lua_tostring(L, -1)), failures++;
  if (L) lua_close(L);
  return finished("two streams");
}
