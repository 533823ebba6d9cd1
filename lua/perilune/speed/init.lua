-- How fast one recurrence runs, and how near to what the device can do: the measuring of experiments/speed.lua, for
-- notebooks, too.
--
--   local speed = require "perilune.speed"
--   local row = speed.measure { cell = "lstm", batch = 16, steps = 256, heads = 4, head_dim = 64, pass = "f+b" }
--   print(row.ms, row.ms_p10, row.ms_p90, row.of_floor)
--
-- A setting is a table: cell (a name or a cell), batch, steps, heads [1], head_dim, dtype [float32], device [cpu],
-- backend [auto], with_input [false], pass [f+b]. With with_input the work is that of PyTorch's nn.LSTM: a linear layer
-- from heads * head_dim features, then the recurrence; without, Wx is given. The passes: "inf" is inference, which
-- gives h and keeps nothing; "fwd" the forward way of training, which gives all states and keeps what backward needs;
-- "f+b" both ways with a gradient on h, to the gradients of Wx (or x), R, b and the initial states.
local check = require "perilune.nn.check"
local experiment = require "perilune.experiment"
local floor = require "perilune.speed.floor"
local pl = require "perilune"

local speed = {}

--- The passes, in the order of tables.
speed.passes = { "inf", "fwd", "f+b" }

local LEAST <const> = 5 -- measurements of a row, however long one takes

local known <const> = {
  cell = check.none, batch = check.none, steps = check.none, heads = 1, head_dim = check.none, dtype = "float32",
  device = "cpu", backend = "auto", with_input = false, pass = "f+b",
}

-- The setting with its defaults, its cell as an object (cell) and the way it runs (plan).
local function completed(setting)
  local s = check.options("speed", setting, known)
  for _, name in ipairs { "batch", "steps", "heads", "head_dim" } do check.integer("speed", name, s[name]) end
  check.choice("speed", "pass", s.pass, speed.passes)
  s.plan = pl.rnn_plan { cell = s.cell, batch = s.batch, heads = s.heads, head_dim = s.head_dim, dtype = s.dtype,
                         device = s.device, backend = s.backend }
  s.cell = s.plan.cell
  return s
end

-- A function that does the work of the setting once, on tensors that are there already.
local function work_of(s)
  local cell, width = s.cell, s.heads * s.head_dim
  local rnn = pl.nn.RNN {
    input_size = width, hidden_size = width, heads = s.heads, cell = cell, backend = s.backend,
  }:to(s.dtype):to(s.device)
  local layer, params = rnn.layer1, {}
  for _, name in ipairs(cell.params) do params[name] = layer["param_" .. name] end
  local function drawn(...) return pl.randn { dtype = s.dtype, device = s.device, ... } end
  local x = s.with_input and drawn(s.batch, s.steps, width)
    or drawn(s.batch, s.steps, cell:count "input", s.heads, s.head_dim)
  local initial = drawn(#cell.states, s.batch, 1, s.heads, s.head_dim)
  x:requires_grad()
  initial:requires_grad()
  local function forward(outputs)
    if s.with_input then return (rnn(x)) end
    return (pl.rnn(x, layer.recurrent, layer.bias,
      { cell = cell, backend = s.backend, outputs = outputs, states = initial, params = params }))
  end
  if s.pass == "inf" then return function() pl.no_grad(forward, "h") end end
  if s.pass == "fwd" then return function() forward "all" end end
  local seed = drawn(s.batch, s.steps, width)
  return function()
    forward("h"):reshape { s.batch, s.steps, width }:backward(seed)
    rnn:zero_grad()
    x.grad, initial.grad = nil, nil
  end
end

local function once(f)
  local _ <close> = pl.scope()
  f()
end

-- The seconds that f takes, with what it put on the device.
local function seconds_of(f, device)
  local began_s = pl.time()
  once(f)
  pl.synchronize(device)
  return pl.time() - began_s
end

--- Times f() on a device's own clock (pl.timer), each call in a scope of its own, after two to warm up. Nothing waits
-- in between: a GPU has work while the script prepares the next call, as in a training loop. options: repeats [20];
-- with `seconds` fewer, at least 5, where all of them would take longer. Returns a list of ms, one for each that was
-- measured.
function speed.times(f, device, options)
  local repeats = options.repeats or 20
  seconds_of(f, device) -- compiles, and gives memory to what it keeps
  local each_s = seconds_of(f, device)
  if options.seconds then
    repeats = math.min(repeats, math.max(LEAST, math.floor(options.seconds / each_s)))
  end
  if device ~= "cpu" then once(f) end -- so that the first measured one, too, waits behind another
  local timers, times = {}, {}
  for i = 1, repeats do
    timers[i] = pl.timer(device):start()
    once(f)
    timers[i]:mark()
  end
  for i, timer in ipairs(timers) do times[i] = timer:stop() end
  return times
end

--- What pl.memory() says of a device.
function speed.memory(device)
  return pl.memory()[device == "cuda" and "cuda:0" or device]
end

-- The fields of a row that say what was measured.
local function subject(s)
  return {
    cell = s.cell.name, backend = s.plan.backend, dtype = s.dtype, batch = s.batch, steps = s.steps, heads = s.heads,
    head_dim = s.head_dim, with_input = s.with_input, pass = s.pass,
    device = experiment.device_name(experiment.device_line(s.device)),
  }
end

--- How a setting would run: the object of pl.rnn_plan. What is wrong with the setting is an error.
function speed.plan(setting) return completed(setting).plan end

--- Measures a setting; options as for speed.times. Returns the setting's fields, with the names of the cell, of
-- the backend that ran and of the device ("NVIDIA H200"), and
-- ms, ms_p10, ms_p90 (median and quantiles), repeats (how many were measured), us_per_step;
-- gflops and gbytes_per_s (operations and bytes of perilune.speed.floor in that time), of_peak (gflops as a share of
-- what the device's large products reach); floor_ms (less is not possible), floor_by ("products", "memory" or "steps":
-- what it follows from), of_floor (floor_ms / ms); peak_bytes (what lived at once in
-- another call, arguments included).
function speed.measure(setting, options)
  local s = completed(setting)
  local peaks = floor.peaks(s.device, s.dtype)
  local least = floor.of(s, peaks)
  local _ <close> = pl.scope()
  local f = work_of(s)
  local times = speed.times(f, s.device, options or {})
  collectgarbage() -- layers measured earlier
  pl.reset_peak_memory(s.device)
  once(f)
  local row = subject(s)
  row.repeats = #times
  row.ms, row.ms_p10, row.ms_p90 = experiment.quantiles(times)
  row.us_per_step = row.ms * 1000 / s.steps
  row.gflops, row.gbytes_per_s = least.operations / row.ms / 1e6, least.bytes / row.ms / 1e6
  row.of_peak = row.gflops / peaks.gflops
  row.floor_ms, row.floor_by, row.of_floor = least.ms, least.by, least.ms / row.ms
  row.peak_bytes = speed.memory(s.device).peak
  return row
end

--- What the first call of a setting takes in this process, its tensors being there: { ms =, kernels = (compiled for
-- it), compile_ms = (spent on that) }. Afterwards the process has what it needs, so this is measured once.
function speed.first(setting)
  local s = completed(setting)
  local _ <close> = pl.scope()
  local f = work_of(s)
  pl.synchronize(s.device)
  local before = pl.compilations(s.device)
  local ms = 1000 * seconds_of(f, s.device)
  local now = pl.compilations(s.device)
  return { ms = ms, kernels = now.compiled - before.compiled, compile_ms = now.total_ms - before.total_ms }
end

return speed
