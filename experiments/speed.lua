-- Speed: recurrences forward and backward against the floating-point peak of the same run, a training step, the
-- program's start, and memory over ten thousand training steps. A table on standard output, JSON lines with --out; it
-- is never a test. Operations on large tensors and products are bandwidth.lua's.
--
--   perilune experiments/speed.lua                      LSTM, reference, float32, 2 threads
--   perilune experiments/speed.lua --device cuda --dtype bfloat16
--   perilune experiments/speed.lua --device cuda --sizes 16x1024x12x64,16x1024x1x768 --backend alternating
--   perilune experiments/speed.lua --what training --device cuda
--   perilune experiments/speed.lua --what startup --device cuda
--   perilune experiments/speed.lua --what memory
--
-- Times of recurrences are those of the device's own clock (pl.timer: CUDA events on a GPU). TFLOP/s counts the
-- recurrent product alone, 2 B T N G D^2 operations forward and three times that both ways, whatever else is computed.
-- Rows "recurrence" are given Wx and make the gradients of Wx, R, b and the initial states; rows "with input" also time
-- a linear layer from D features, the work of PyTorch's nn.LSTM, and count its product, too. The pass "inf" is
-- inference, which gives h and keeps nothing; "fwd" is the forward way of training, which gives all states and keeps
-- what backward needs; "f+b" is both ways with a gradient on h. The peak is the fastest of several large products of
-- pl.matmul. Peak bytes are what lived at once, arguments included.
local pl = require "perilune"
local experiment = require "perilune.experiment"
local options = require "perilune.options"

local option = options.read {
  usage = "perilune experiments/speed.lua [OPTIONS]",
  about = "Measures recurrences, a training step, the program's start, or memory.",
  { "what", "string", default = "rnn", choices = { "rnn", "training", "startup", "memory" }, help = "what to measure" },
  { "cell", "string", default = "lstm", help = "one of pl.cells" },
  { "device", "string", default = "cpu", help = "where to run: cpu, cuda, cuda:1" },
  { "backend", "string", help = "auto, fused, alternating, reference or vanilla [reference; on a GPU auto]" },
  { "dtype", "string", default = "float32", choices = { "float32", "float64", "bfloat16", "float16" },
    help = "type; training and memory keep float32 parameters and autocast to a 16-bit type" },
  { "threads", "integer", default = 2, minimum = 1, help = "threads of the CPU" },
  { "sizes", "list", help = "batch x time x heads x units; one head may be left out [those of the README's table]" },
  { "repeats", "integer", default = 20, minimum = 1, help = "measurements per row, after two to warm up" },
  { "out", "string", help = "file for JSON lines" },
}
local on_cpu <const> = option.device == "cpu"
option.sizes = option.sizes or (on_cpu
  and { "1x256x128", "16x256x128", "16x256x256", "16x128x768", "1x128x768", "64x128x256" }
  or { "16x1024x12x64", "16x1024x6x128", "16x1024x3x256", "16x1024x1x768", "16x1024x1x1024", "1x1024x12x64",
       "1x1024x1x768", "64x1024x12x64", "64x1024x1x768" })
option.backend = option.backend or (on_cpu and "reference" or "auto")

local results -- opened when all options are known to be good

-- ---------------------------------------------------------------------------------------------------------------------
-- Time and memory

local quantiles <const> = experiment.quantiles
local function measure(f, device) return experiment.measure(f, device, option.repeats) end

-- Operations per second, in 1e9, of the best large product.
local function peak()
  local n <const> = on_cpu and 1536 or 8192
  local _ <close> = pl.scope()
  local form = { n, n, dtype = option.dtype, device = option.device }
  local a, b = pl.randn(form), pl.randn(form)
  local best, timer = math.huge, pl.timer(option.device)
  pl.no_grad(function()
    for _ = 1, 12 do
      local _ <close> = pl.scope()
      timer:start()
      a:matmul(b)
      best = math.min(best, timer:stop())
    end
  end)
  return 2 * n ^ 3 / best / 1e6, n
end

-- What pl.memory() says of the device.
local function memory_now()
  local name = option.device == "cuda" and "cuda:0" or option.device
  return pl.memory()[name]
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

local plans = {} -- by size

-- Before the first measurement: the cell, the backend and the sizes.
local function check_options()
  options.attempt("device", pl.synchronize, option.device)
  local cell = options.attempt("cell", function() return pl.cells[option.cell] end)
  for _, size in ipairs(option.sizes) do
    local batch, _, heads, units = read_size(size)
    plans[size] = options.attempt("backend", pl.rnn_plan, {
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
  local function forward(outputs)
    if with_input then return (rnn(x)) end
    return (pl.rnn(wx, layer.recurrent, layer.bias,
      { cell = cell, backend = option.backend, outputs = outputs, states = initial }))
  end
  local function both()
    forward("h"):reshape { batch, steps, width }:backward(seed)
    rnn:zero_grad()
    wx.grad, x.grad, initial.grad = nil, nil, nil
  end
  local products = cell:count("recurrent") * units + (with_input and gates * width or 0)
  local giga_operations = 2 * batch * steps * width * products / 1e9
  for _, pass in ipairs {
    { "inf", function() pl.no_grad(forward, "h") end, 1 }, { "fwd", function() forward("all") end, 1 },
    { "f+b", both, 3 },
  } do
    pl.reset_peak_memory(option.device)
    local ms, low, high = measure(pass[2], option.device)
    local rate, bytes = pass[3] * giga_operations / (ms / 1000), memory_now().peak
    print(("%-14s %-10s %-4s %9.3f %9.3f %9.3f %9.3f %9.3f %8.4f %14d"):format(text,
      with_input and "with input" or "recurrence", pass[1], ms, low, high, ms * 1000 / steps, rate / 1000,
      rate / peak_gflops, bytes))
    results:write { kind = "rnn", size = text, with_input = with_input, pass = pass[1], ms = ms, ms_p10 = low,
                    ms_p90 = high, us_per_step = ms * 1000 / steps, gflops = rate, of_peak = rate / peak_gflops,
                    peak_bytes = bytes }
  end
end

local function recurrences()
  local peak_gflops, n = peak()
  print(("%s, %s %s, %s"):format(experiment.device_line(option.device), option.backend, option.cell, option.dtype))
  print(("peak: %.3f TFLOP/s (the best of 12 products %d x %d x %d by pl.matmul); medians of %d runs"):format(
    peak_gflops / 1000, n, n, n, option.repeats))
  results:write { kind = "peak", gflops = peak_gflops }
  for _, size in ipairs(option.sizes) do
    print(tostring(plans[size]))
    results:write { kind = "plan", size = size, backend = plans[size].backend, plan = plans[size].fused,
                    details = plans[size].details }
  end
  print(("%-14s %-10s %-4s %9s %9s %9s %9s %9s %8s %14s"):format("B x T x [N x] D", "work", "pass", "ms", "p10", "p90",
    "us/step", "TFLOP/s", "of peak", "peak bytes"))
  for _, with_input in ipairs { false, true } do
    for _, size in ipairs(option.sizes) do
      local _ <close> = pl.scope()
      time_size(size, with_input, peak_gflops)
    end
  end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- A training step

-- The parameters' type, and the type of the products where it is another.
local function training_types()
  local half = option.dtype == "bfloat16" or option.dtype == "float16"
  return half and "float32" or option.dtype, half and option.dtype or nil
end

-- The options of a training loop on parity: one recurrent layer, a linear layer, Adam, gradients clipped.
local function parity_training(shape)
  local dtype, autocast = training_types()
  local task = pl.task.parity { size = shape.batch, min = shape.min, max = shape.max, dtype = dtype,
                                device = option.device }
  local rnn = pl.nn.RNN { input_size = 2, hidden_size = shape.units, cell = option.cell, backend = option.backend }
  local model = pl.nn.Sequential(rnn, pl.nn.Linear(shape.units, 2)):to(dtype):to(option.device)
  return {
    model = model, optimizer = pl.optim.Adam(model:parameters(), { lr = 3e-3 }), clip = 1, autocast = autocast,
    batch = function(step) return task:batch(step) end,
    loss = function(m, batch) return pl.nn.cross_entropy(m(batch.x), batch.y) end,
  }
end

-- From one step's beginning to the next one's: what a user waits for, the batch and the host's work included.
local function training()
  local batch <const>, steps <const>, units <const> = 64, 40, 64
  local warm_up <const>, began_s, times = 20, nil, {}
  local loop = parity_training { batch = batch, min = steps, max = steps, units = units }
  local draw = loop.batch
  loop.steps, loop.progress = warm_up + 10 * option.repeats + 1, false
  loop.batch = function(step)
    local now_s = pl.time()
    if step > warm_up + 1 then times[#times + 1] = 1000 * (now_s - began_s) end
    began_s = now_s
    return draw(step)
  end
  pl.train.loop(loop)
  local count = #times
  local ms, low, high = quantiles(times)
  local draw_ms = measure(function() draw(1) end, "cpu")
  print(("%s, %s %s, %s"):format(experiment.device_line(option.device), option.backend, option.cell, option.dtype))
  print(("parity training step, B=%d T=%d D=%d: %.3f ms (p10 %.3f, p90 %.3f; %d steps), of which %.3f ms are the batch")
    :format(batch, steps, units, ms, low, high, count, draw_ms))
  results:write { kind = "training", batch = batch, steps = steps, units = units, ms = ms, ms_p10 = low, ms_p90 = high,
                  batch_ms = draw_ms }
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Start and memory

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- The command that started this program, from the arguments before the script's name.
local function program()
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return quoted(arg[first])
end

-- What another perilune does first on the device, and what it prints: the time to the result in ms, and what was
-- compiled on the way. `before` is done before the clock starts.
local recurrence <const> = [[
    local wx = pl.randn { 16, 64, pl.cells[cell]:count "input", 1, units, dtype = dtype, device = device }
    local layer = pl.nn.RNN { input_size = units, hidden_size = units, cell = cell }:to(dtype):to(device).layer1
    wx:requires_grad()
    pl.rnn(wx, layer.recurrent, layer.bias, { cell = cell, backend = backend }):sum():backward()
    wx.grad:sum():item()
]]
local first_on_device <const> = {
  { "first operation", "pl.ones { 1000, device = device }:sum():item()" },
  { "first gradient of a recurrence", recurrence },
  { "gradient of a recurrence of 64 units after one of 32", recurrence,
    before = "do local units = 32\n" .. recurrence .. "end" },
}

local function first_on_device_ms(row, cache)
  local code = ([[
    local pl = require "perilune"
    local device, dtype, cell, backend, units = %q, %q, %q, %q, 64
    %s
    local before, began_s = pl.compilations(device), pl.time()
    %s
    local now = pl.compilations(device)
    now.compiled, now.total_ms = now.compiled - before.compiled, now.total_ms - before.total_ms
    now.ms = 1000 * (pl.time() - began_s)
    print(pl.json_encode(now))]]):format(option.device, option.dtype, option.cell, option.backend, row.before or "",
    row[2])
  local pipe = assert(io.popen(("XDG_CACHE_HOME=%s %s -e %s"):format(quoted(cache), program(), quoted(code))))
  local text = pipe:read("a")
  assert(pipe:close())
  return pl.json_decode(text)
end

-- A GPU's first results in a process of their own, without and with compiled kernels on disk.
local function cold_starts()
  local count <const> = math.min(option.repeats, 5) -- each of them is a process with a context on the GPU
  for _, row in ipairs(first_on_device) do
    local times, slowest_ms, total_ms, compiled = { cold = {}, warm = {} }, 0, 0, 0
    for i = 1, count do
      local cache = os.tmpname()
      os.remove(cache)
      for _, state in ipairs { "cold", "warm" } do
        local seen = first_on_device_ms(row, cache)
        times[state][i] = seen.ms
        slowest_ms, total_ms = math.max(slowest_ms, seen.most_ms), total_ms + seen.total_ms
        compiled = compiled + seen.compiled
        assert(state == "cold" or seen.compiled == 0, "a kernel that was on disk was compiled again")
      end
      os.execute("rm -rf " .. quoted(cache))
    end
    for _, state in ipairs { "cold", "warm" } do
      local ms, low, high = quantiles(times[state])
      print(("%s, %s cache of kernels: %7.1f ms (p10 %.1f, p90 %.1f)"):format(row[1], state, ms, low, high))
      results:write { kind = "startup", script = row[1], cache = state, ms = ms, ms_p10 = low, ms_p90 = high }
    end
    print(("  compiled: %d kernels in each, %.1f ms per kernel, at most %.1f ms"):format(compiled // count,
      total_ms / compiled, slowest_ms))
    results:write { kind = "compile", script = row[1], kernels = compiled // count, ms = total_ms / compiled,
                    ms_max = slowest_ms }
  end
end

local function startup()
  for _, what in ipairs { { "nothing", "" }, { "perilune", 'require "perilune"' } } do
    local command = ("%s -e '%s'"):format(program(), what[2])
    local ms, low, high = measure(function() assert(os.execute(command)) end, "cpu")
    print(("start, run %-28s and leave: %7.2f ms (p10 %.2f, p90 %.2f)"):format(what[1], ms, low, high))
    results:write { kind = "startup", script = what[2], ms = ms, ms_p10 = low, ms_p90 = high }
  end
  if not on_cpu then cold_starts() end
end

local function resident_bytes()
  local file <close> = assert(io.open("/proc/self/statm"))
  local pages = file:read("a"):match("^%d+ (%d+)")
  return tonumber(pages) * 4096
end

local function memory()
  local loop = parity_training { batch = 64, units = 32 }
  local first, last
  print(("%6s %14s %10s %14s %14s %14s"):format("step", "resident bytes", "buffers", "live bytes", "cached bytes",
    "peak bytes"))
  loop.steps, loop.label, loop.evaluate_every = 10000, "memory", 1000
  loop.evaluate = function(_, step)
    local now = memory_now()
    last = { kind = "memory", step = step, resident = resident_bytes(), buffers = now.buffers, live = now.live,
             cached = now.cached, peak = now.peak }
    first = first or last
    results:write(last)
    print(("%6d %14d %10d %14d %14d %14d"):format(step, last.resident, last.buffers, last.live, last.cached,
      last.peak))
    return now.buffers
  end
  pl.train.loop(loop)
  print(("from step %d to %d: %+d bytes resident, %+d buffers, %+d bytes live, %+d cached"):format(first.step,
    last.step, last.resident - first.resident, last.buffers - first.buffers, last.live - first.live,
    last.cached - first.cached))
end

options.attempt("threads", pl.threads, option.threads)
check_options()
results = options.attempt("out", experiment.results, option.out, option)
local measurements <const> = { rnn = recurrences, training = training, startup = startup, memory = memory }
measurements[option.what]()
results:close()
