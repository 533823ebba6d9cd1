-- Speed: recurrences forward and backward against the floating-point peak of the same run, the program's
-- start, and memory over a thousand training steps. A table on standard output, JSON lines with --out; never a test.
--
--   perilune experiments/speed.lua                      LSTM, reference, float32, 2 threads
--   perilune experiments/speed.lua --device cuda --dtype bfloat16 --sizes 16x1024x12x64,16x1024x3x256,16x1024x1x768
--   perilune experiments/speed.lua --what startup
--   perilune experiments/speed.lua --what memory
--
-- GF/s counts the recurrent product alone, 2 B T N G D^2 operations forward and three times that forward and backward,
-- whatever else is computed. Rows "with input" also time a linear layer from D features, the work of PyTorch's nn.LSTM,
-- and count its product, too. The peak is the fastest of several large products of pl.matmul.
local pl = require "perilune"
local experiment = require "perilune.experiment"
local options = require "perilune.options"

local option = options.read {
  usage = "perilune experiments/speed.lua [OPTIONS]",
  about = "Measures recurrences, the program's start, or memory.",
  { "what", "string", default = "rnn", choices = { "rnn", "startup", "memory" }, help = "what to measure" },
  { "cell", "string", default = "lstm", help = "cell" },
  { "device", "string", default = "cpu", help = "where to run" },
  { "backend", "string", help = "how pl.rnn runs the recurrence [reference; on a GPU auto]" },
  { "dtype", "string", default = "float32", choices = { "float32", "float64", "bfloat16", "float16" }, help = "type" },
  { "threads", "integer", default = 2, minimum = 1, help = "threads" },
  { "sizes", "list", help = "batch x time x heads x units; one head may be left out",
    default = { "1x256x128", "16x256x128", "16x256x256", "16x128x768", "1x128x768", "64x128x256" } },
  { "repeats", "integer", default = 20, minimum = 1, help = "measurements per row, after two to warm up" },
  { "seconds", "number", default = 5, minimum = 0, help = "time after which a row has no more repeats" },
  { "out", "string", help = "file for JSON lines" },
}
local on_cpu <const> = option.device == "cpu"
option.backend = option.backend or (on_cpu and "reference" or "auto")

local results -- the file of JSON lines, if there is one

local function record(row)
  if results then results:write(row) end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Time

local function quantile(sorted, share)
  return sorted[math.max(1, math.min(#sorted, math.floor(share * (#sorted - 1) + 1.5)))]
end

-- Runs f in a scope of its own, twice unmeasured; returns median, 10 % and 90 % quantile in ms.
local function measure(f)
  local times, began_s = {}, pl.time()
  for i = -1, option.repeats do
    local started_s = pl.time()
    do
      local _ <close> = pl.scope()
      f()
      pl.synchronize(option.device)
    end
    if i > 0 then times[#times + 1] = (pl.time() - started_s) * 1000 end
    if #times >= 3 and pl.time() - began_s > option.seconds then break end
  end
  table.sort(times)
  return quantile(times, 0.5), quantile(times, 0.1), quantile(times, 0.9)
end

-- Operations per second, in 1e9, of the best large product.
local function peak()
  local n <const> = on_cpu and 1536 or 8192
  local form = { n, n, dtype = option.dtype, device = option.device }
  local a, b = pl.randn(form), pl.randn(form)
  pl.synchronize(option.device)
  local best = math.huge
  pl.no_grad(function()
    for _ = 1, 12 do
      local _ <close> = pl.scope()
      local started_s = pl.time()
      a:matmul(b)
      pl.synchronize(option.device)
      best = math.min(best, pl.time() - started_s)
    end
  end)
  return 2 * n ^ 3 / best / 1e9, n
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Recurrences

local function read_size(text)
  local batch, steps, rest = text:match("^([1-9]%d*)x([1-9]%d*)x(.+)$")
  local heads, units = (rest or ""):match("^([1-9]%d*)x([1-9]%d*)$")
  if not heads then heads, units = "1", (rest or ""):match("^[1-9]%d*$") end
  if not units then options.fail("option --sizes: expected BATCHxTIMExUNITS, got '%s'", text) end
  return tonumber(batch), tonumber(steps), tonumber(heads), tonumber(units)
end

-- Before the first measurement: the cell, the backend and the sizes.
local function check_options()
  options.attempt("device", pl.synchronize, option.device)
  local cell = options.attempt("cell", function() return pl.cells[option.cell] end)
  for _, size in ipairs(option.sizes) do
    local batch, _, heads, units = read_size(size)
    options.attempt("backend", pl.rnn_plan, {
      cell = cell, batch = batch, heads = heads, head_dim = units, dtype = option.dtype, device = option.device,
      backend = option.backend,
    })
  end
end

-- Times one size; with_input says whether the input product is part of the work.
local function time_size(text, with_input, peak_gflops)
  local batch, steps, heads, units = read_size(text)
  local width = heads * units
  local rnn = pl.nn.RNN {
    input_size = width, hidden_size = width, heads = heads, cell = option.cell, backend = option.backend,
  }:to(option.dtype):to(option.device)
  local cell = pl.cells[option.cell]
  local gates = cell:count("input")
  local function drawn(...)
    return pl.randn { dtype = option.dtype, device = option.device, ... }
  end
  local x = drawn(batch, steps, width):requires_grad()
  local wx = drawn(batch, steps, gates, heads, units):requires_grad()
  local initial = drawn(#cell.states, batch, 1, heads, units):requires_grad()
  local seed = drawn(batch, steps, width)
  local layer = rnn.layer1
  local function forward()
    if with_input then return (rnn(x)) end
    local states = pl.rnn(wx, layer.recurrent, layer.bias,
      { cell = cell, backend = option.backend, outputs = "h", states = initial })
    return states:reshape { batch, steps, width }
  end
  local function both()
    forward():backward(seed)
    rnn:zero_grad()
    wx.grad, x.grad, initial.grad = nil, nil, nil
  end
  local products = cell:count("recurrent") * units + (with_input and gates * width or 0)
  local giga_operations = 2 * batch * steps * width * products / 1e9
  for _, pass in ipairs { { "fwd", function() pl.no_grad(forward) end, 1 }, { "f+b", both, 3 } } do
    local ms, low, high = measure(pass[2])
    local rate = pass[3] * giga_operations / (ms / 1000)
    print(("%-14s %-10s %-4s %9.3f %9.3f %9.3f %9.3f %9.1f %7.2f"):format(text,
      with_input and "with input" or "recurrence", pass[1], ms, low, high, ms * 1000 / steps, rate,
      rate / peak_gflops))
    record { kind = "rnn", size = text, with_input = with_input, pass = pass[1], ms = ms, ms_p10 = low, ms_p90 = high,
             gflops = rate, of_peak = rate / peak_gflops }
  end
end

local function recurrences()
  local peak_gflops, n = peak()
  print(("%s, %s %s, %s"):format(experiment.device_line(option.device), option.backend, option.cell, option.dtype))
  print(("peak: %.1f GF/s (the best of 12 products %d x %d x %d by pl.matmul)"):format(peak_gflops, n, n, n))
  record { kind = "peak", gflops = peak_gflops }
  print(("%-14s %-10s %-4s %9s %9s %9s %9s %9s %7s"):format("B x T x [N x] D", "work", "pass", "ms", "p10", "p90",
    "us/step", "GF/s", "of peak"))
  for _, with_input in ipairs { false, true } do
    for _, size in ipairs(option.sizes) do
      local _ <close> = pl.scope()
      time_size(size, with_input, peak_gflops)
    end
  end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Start and memory

-- The command that started this program, from the arguments before the script's name.
local function program()
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return "'" .. arg[first]:gsub("'", "'\\''") .. "'"
end

local function startup()
  for _, what in ipairs { { "nothing", "" }, { "perilune", 'require "perilune"' } } do
    local command = ("%s -e '%s'"):format(program(), what[2])
    local ms, low, high = measure(function() assert(os.execute(command)) end)
    print(("start, run %-28s and leave: %7.2f ms (p10 %.2f, p90 %.2f)"):format(what[1], ms, low, high))
    record { kind = "startup", script = what[2], ms = ms, ms_p10 = low, ms_p90 = high }
  end
end

local function resident_bytes()
  local file <close> = assert(io.open("/proc/self/statm"))
  local pages = file:read("a"):match("^%d+ (%d+)")
  return tonumber(pages) * 4096
end

local function memory()
  local task = pl.task.parity { size = 64, dtype = option.dtype, device = option.device }
  local rnn = pl.nn.RNN { input_size = 2, hidden_size = 32, cell = option.cell, backend = option.backend }
  local model = pl.nn.Sequential(rnn, pl.nn.Linear(32, 2)):to(option.dtype):to(option.device)
  local seen = {}
  print(("%6s %14s %10s %14s %14s"):format("step", "resident bytes", "buffers", "live bytes", "cached bytes"))
  pl.train.loop {
    model = model, optimizer = pl.optim.Adam(model:parameters(), { lr = 3e-3 }), clip = 1,
    steps = 1000, label = "memory",
    batch = function(step) return task:batch(step) end,
    loss = function(m, batch) return pl.nn.cross_entropy(m(batch.x), batch.y) end,
    evaluate_every = 100,
    evaluate = function(_, step)
      local now = pl.memory()[on_cpu and "cpu" or model:parameters()[1].device]
      seen[step] = { kind = "memory", step = step, resident = resident_bytes(), buffers = now.buffers, live = now.live,
                     cached = now.cached }
      record(seen[step])
      print(("%6d %14d %10d %14d %14d"):format(step, seen[step].resident, now.buffers, now.live, now.cached))
      return now.buffers
    end,
  }
  print(("from step 100 to 1000: %+d bytes resident, %+d buffers"):format(seen[1000].resident - seen[100].resident,
    seen[1000].buffers - seen[100].buffers))
end

options.attempt("threads", pl.threads, option.threads)
check_options()
if option.out then results = options.attempt("out", experiment.results, option.out, option) end
local measurements <const> = { rnn = recurrences, startup = startup, memory = memory }
measurements[option.what]()
if results then results:close() end
