-- Speed: recurrences of chosen sizes or over whole sweeps, against what the device can do, against other systems and
-- against an earlier run; a training step, the program's start, and memory over ten thousand training steps. A table on
-- standard output, JSON lines with --out; it is never a test. Operations on large tensors and products are
-- bandwidth.lua's.
--
--   perilune experiments/speed.lua                      LSTM, reference, float32, 2 threads
--   perilune experiments/speed.lua --device cuda --dtype bfloat16
--   perilune experiments/speed.lua --device cuda --sizes 16x1024x12x64,16x1024x1x768 --backend alternating
--   perilune experiments/speed.lua --sweep heads,batch,length --out speed.jsonl
--   perilune experiments/speed.lua --plot speed.jsonl --peers experiments/peers.csv
--   perilune experiments/speed.lua --sweep heads --compare speed.jsonl
--   perilune experiments/speed.lua --what training --device cuda
--   perilune experiments/speed.lua --what startup --device cuda
--   perilune experiments/speed.lua --what memory
--
-- What a row measures, and what its fields mean, perilune.speed says; perilune.speed.floor says what "of floor" is a
-- share of. Rows "recurrence" are given Wx, rows "with input" make it from x. A sweep varies the width of heads, the
-- batch or the length (perilune.speed.sweeps has the sizes); a size that a backend cannot run, or for which memory is
-- too small, is passed over with a word. On a GPU a sweep also shows the first call for each size of heads, both ways,
-- in a process of its own with an empty and with a full cache of kernels.
local pl = require "perilune"
local compare = require "perilune.speed.compare"
local experiment = require "perilune.experiment"
local figures = require "perilune.speed.figures"
local floor = require "perilune.speed.floor"
local options = require "perilune.options"
local process = require "perilune.speed.process"
local records = require "perilune.speed.records"
local speed = require "perilune.speed"
local startup = require "perilune.speed.startup"
local sweeps = require "perilune.speed.sweeps"
local training = require "perilune.speed.training"

local option = options.read {
  usage = "perilune experiments/speed.lua [OPTIONS]",
  about = "Measures recurrences, a training step, the program's start, or memory.",
  { "what", "string", default = "rnn", choices = { "rnn", "training", "startup", "memory" }, help = "what to measure" },
  { "cell", "list", default = { "lstm" }, help = "some of pl.cells" },
  { "device", "string", default = "cpu", help = "where to run: cpu, cuda, cuda:1" },
  { "backend", "list", help = "auto, fused, alternating, reference or vanilla [reference; on a GPU auto, for sweeps "
    .. "fused,alternating]" },
  { "dtype", "list", default = { "float32" }, choices = { "float32", "float64", "bfloat16", "float16" },
    help = "types; training and memory keep float32 parameters and autocast to a 16-bit type" },
  { "threads", "integer", default = 2, minimum = 1, help = "threads of the CPU" },
  { "sizes", "list", help = "batch x time x heads x units; one head may be left out [those of the README's table]" },
  { "sweep", "list", choices = sweeps.names, help = "sizes of sweeps, in place of --sizes" },
  { "work", "list", default = { "recurrence", "input" }, choices = { "recurrence", "input" },
    help = "with Wx given, and with the input projection" },
  { "repeats", "integer", default = 20, minimum = 1, help = "measurements per row, after two to warm up; in a sweep "
    .. "fewer, but 5, where they take longer than 0.3 s" },
  { "out", "string", help = "file for JSON lines" },
  { "compare", "string", help = "an earlier file of JSON lines: prints how much longer each setting takes now" },
  { "plot", "string", help = "draw the sweeps of this file of results, beside it, and do nothing else" },
  { "peers", "string", help = "with --plot: times of other systems, as in experiments/peers.csv" },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Figures, from a file of results alone

local function draw(path)
  local rows, peers = records.read(path), option.peers and options.attempt("peers", records.peers, option.peers)
  local list, base = figures.of(rows, peers), path:gsub("%.jsonl$", "")
  if #list == 0 then error(path .. " has no three rows that differ in one thing alone", 0) end
  for _, one in ipairs(list) do
    local picture = ("%s-%s.svg"):format(base, one.name)
    one.figure:save(picture)
    print(picture)
  end
end

if option.plot then
  options.attempt("plot", draw, option.plot)
  return
end
if option.peers then options.fail("option --peers: it is for --plot FILE") end
if option.compare and option.what ~= "rnn" then options.fail("option --compare: it is for --what rnn") end

-- ---------------------------------------------------------------------------------------------------------------------
-- Recurrences

local SWEEP_SECONDS <const> = 0.3 -- for one row
local on_cpu <const> = option.device == "cpu"
option.sizes = option.sizes or not option.sweep and (on_cpu
  and { "1x256x128", "16x256x128", "16x256x256", "16x128x768", "1x128x768", "64x128x256" }
  or { "16x1024x12x64", "16x1024x6x128", "16x1024x3x256", "16x1024x1x768", "16x1024x1x1024", "1x1024x12x64",
       "1x1024x1x768", "64x1024x12x64", "64x1024x1x768" }) or nil
option.backend = option.backend or on_cpu and { "reference" }
  or option.sweep and { "fused", "alternating" } or { "auto" }

local earlier = option.compare and options.attempt("compare", records.read, option.compare)
local results -- opened when all options are known to be good

-- All sizes, each once, with the text that a user knows them by.
local function chosen_sizes()
  local list, seen = {}, {}
  local function add(size, text)
    local known = sweeps.text(size)
    if not seen[known] then list[#list + 1], size.text = size, text end
    seen[known] = true
  end
  for _, text in ipairs(option.sizes or {}) do
    local size = sweeps.parse(text)
    if not size then options.fail("option --sizes: expected BATCHxTIMExUNITS, got '%s'", text) end
    add(size, text)
  end
  for _, name in ipairs(option.sweep or {}) do
    for _, size in ipairs(sweeps.sizes(name, option.device)) do add(size, sweeps.text(size)) end
  end
  return list
end

local function setting(group, size, with_input, pass)
  return { cell = group.cell, backend = group.backend, dtype = group.dtype, device = option.device, batch = size.batch,
           steps = size.steps, heads = size.heads, head_dim = size.head_dim, with_input = with_input, pass = pass }
end

-- Sets group.plans, by size, where a size has one. In a sweep some sizes may have none, but not all.
local function plan_group(group, sizes)
  group.plans = {}
  for i, size in ipairs(sizes) do
    local ok, found = pcall(speed.plan, setting(group, size))
    if ok then
      group.plans[size] = found
    elseif not option.sweep or i == #sizes and not next(group.plans) then
      options.attempt("backend", error, found, 0)
    end
  end
end

-- Each cell, backend and type, and the sizes, before anything is measured.
local function checked()
  options.attempt("device", pl.synchronize, option.device)
  local groups, sizes = {}, chosen_sizes()
  for _, cell in ipairs(option.cell) do
    options.attempt("cell", function() return pl.cells[cell] end)
    for _, dtype in ipairs(option.dtype) do
      for _, backend in ipairs(option.backend) do
        groups[#groups + 1] = { cell = cell, dtype = dtype, backend = backend }
        plan_group(groups[#groups], sizes)
      end
    end
  end
  return groups, sizes
end

local measured = {} -- rows, for --compare

local function time_size(group, size, with_input)
  for _, pass in ipairs(speed.passes) do
    local ok, row = pcall(speed.measure, setting(group, size, with_input, pass),
      { repeats = option.repeats, seconds = option.sweep and SWEEP_SECONDS or nil })
    if not ok then
      local short = option.sweep and tostring(row):match("[^\n]*out of memory[^\n]*")
      if not short then error(row, 0) end
      print(("%-14s %s"):format(size.text, short))
      return
    end
    print(("%-14s %-10s %-4s %9.3f %9.3f %9.3f %9.3f %9.3f %8.4f %8.1f %8.4f %14d"):format(size.text,
      with_input and "with input" or "recurrence", pass, row.ms, row.ms_p10, row.ms_p90, row.us_per_step,
      row.gflops / 1000, row.of_peak, row.gbytes_per_s, row.of_floor, row.peak_bytes))
    measured[#measured + 1] = row
    row.kind, row.size = "rnn", size.text
    results:write(row)
  end
end

-- What the plans are: in full, or in a sweep only what has none.
local function show_plans(group, sizes)
  for _, size in ipairs(sizes) do
    local plan = group.plans[size]
    if plan then
      if not option.sweep then print(tostring(plan)) end
      results:write { kind = "plan", size = size.text, cell = group.cell, dtype = group.dtype, backend = plan.backend,
                      plan = plan.fused, details = plan.details }
    else
      print(("%-14s cannot run %s"):format(size.text, group.backend))
    end
  end
end

-- The first call for each size of heads; about as much is compiled for any batch and any number of steps.
local function first_calls(group, sizes)
  local seen = {}
  print(("%-14s %9s %9s %9s %14s"):format("first call", "cold ms", "warm ms", "kernels", "compiling ms"))
  for _, size in ipairs(sizes) do
    local heads = ("%d %d"):format(size.heads, size.head_dim)
    if group.plans[size] and not seen[heads] then
      seen[heads] = true
      local row = process.first(setting(group, size, false, "f+b"))
      print(("%-14s %9.1f %9.1f %9d %14.1f"):format(size.text, row.cold_ms, row.warm_ms, row.kernels, row.compile_ms))
      row.kind, row.size, row.cell, row.dtype = "first call", size.text, group.cell, group.dtype
      row.backend = group.plans[size].backend
      results:write(row)
    end
  end
end

local function measure_group(group, sizes)
  local peaks = floor.peaks(option.device, group.dtype)
  print(("%s, %s %s, %s"):format(experiment.device_line(option.device), group.backend, group.cell, group.dtype))
  print(("peak: %.3f TFLOP/s (the best of 12 products %d x %d x %d by pl.matmul), %.0f GB/s (a copy in memory)")
    :format(peaks.gflops / 1000, peaks.n, peaks.n, peaks.n, peaks.gbytes_per_s))
  results:write { kind = "peak", dtype = group.dtype, gflops = peaks.gflops, gbytes_per_s = peaks.gbytes_per_s }
  show_plans(group, sizes)
  print(("%-14s %-10s %-4s %9s %9s %9s %9s %9s %8s %8s %8s %14s"):format("B x T x [N x] D", "work", "pass", "ms", "p10",
    "p90", "us/step", "TFLOP/s", "of peak", "GB/s", "of floor", "peak bytes"))
  for _, work in ipairs(option.work) do
    for _, size in ipairs(sizes) do
      if group.plans[size] then time_size(group, size, work == "input") end
    end
  end
  if option.sweep and not on_cpu then first_calls(group, sizes) end
end

local function recurrences(groups, sizes)
  for _, group in ipairs(groups) do measure_group(group, sizes) end
  if earlier then print(compare.text(measured, earlier, option.compare)) end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Everything else: one cell, backend and type

local function job()
  local one = { device = option.device, repeats = option.repeats }
  for _, name in ipairs { "cell", "backend", "dtype" } do
    if #option[name] > 1 then
      options.fail("option --%s: expected one for --what %s, got %d", name, option.what, #option[name])
    end
    one[name] = option[name][1]
  end
  return one
end

options.attempt("threads", pl.threads, option.threads)
local groups, sizes = checked()
local one = option.what ~= "rnn" and job()
results = options.attempt("out", experiment.results, option.out, option)
if option.what == "rnn" then recurrences(groups, sizes) end
if option.what == "training" then training.step(one, results) end
if option.what == "memory" then training.memory(one, results) end
if option.what == "startup" then startup(one, results) end
results:close()
