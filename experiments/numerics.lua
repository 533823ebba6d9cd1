-- Precision: the relative error of recurrences against float64, for each cell, type and backend, per time step and over
-- sequences of growing length, and that of their gradients. A table and a summary on standard output, JSON lines with
-- --out; --plot draws them and prints the table and the summary of several files, from several devices, as one.
--
--   perilune experiments/numerics.lua                            reference and vanilla on the CPU
--   perilune experiments/numerics.lua --device cuda --out numerics-gpu.jsonl
--   perilune experiments/numerics.lua --plot numerics-cpu.jsonl,numerics-gpu.jsonl
--
-- Both sides get the same numbers, rounded to the type: inputs N(0,1), R N(0,1) / sqrt(units), bias N(0,1) / 2, and the
-- forget bias of all units as the row says (of gate f; of the GRU's z, which keeps h; the Elman cell has none). The
-- float64 side is reference, and on a GPU alternating, whose distance from reference is printed. An error is relative
-- in the L2 norm over batch, heads and units. "median" and "largest" are of the errors of the T time steps as the
-- recurrence gives them out, rounded to its type; "last" is that of the last states, which 16-bit types carry on in
-- float32. Gradients are those of the inputs, R, bias and initial states, of h times N(0,1) at every time step. tf32 is
-- float32 whose products a GPU rounds to tf32. Fused plans are the model's, not tuned ones.
local pl = require "perilune"
local error_report = require "perilune.rnn.error_report"
local errors = require "perilune.rnn.errors"
local experiment = require "perilune.experiment"
local options = require "perilune.options"

local cells <const> = { "elman", "gru", "lstm", "slstm" }

local option = options.read {
  usage = "perilune experiments/numerics.lua [OPTIONS]",
  about = "Measures the errors of recurrences against float64.",
  { "cells", "list", default = cells, choices = cells, help = "cells to run" },
  { "dtypes", "list", choices = { "float32", "tf32", "float16", "bfloat16" },
    help = "types of tensors and products [all; on the CPU all but tf32]" },
  { "device", "string", default = "cpu", help = "where to run: cpu, cuda, cuda:1" },
  { "backends", "list", help = "ways to run [reference,vanilla; on a GPU alternating,fused]" },
  { "sizes", "list", help = "batch x heads x units [4x2x32; on a GPU 16x12x64,16x3x256,16x1x768]" },
  { "lengths", "integers", default = { 128, 256, 512, 1024, 2048, 4096 }, minimum = 1, help = "time steps" },
  { "vanilla-most", "integer", default = 512, minimum = 1,
    help = "time steps of vanilla at most; the time of its gradients grows with their square" },
  { "biases", "integers", default = { 0, 3 }, help = "forget biases; the Elman cell is run once" },
  { "threads", "integer", default = 1, minimum = 1, help = "threads of the CPU; so small a size is fastest on one" },
  { "seed", "integer", default = 1, help = "seed of the numbers" },
  { "out", "string", help = "file for JSON lines" },
  { "plot", "list", help = "draw these files of results, beside the first, and do not measure" },
}

local report = error_report.new()

local function read_all(paths)
  for _, path in ipairs(paths) do
    for _, row in ipairs(experiment.read(path, "errors")) do report:add(row) end
  end
end

if option.plot then
  report:head()
  options.attempt("plot", read_all, option.plot)
  report:summarize()
  local pictures = options.attempt("plot", report.save, report, (option.plot[1]:gsub("%.jsonl$", "")))
  print("\n" .. table.concat(pictures, "\n"))
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- What to run

local on_cpu <const> = option.device == "cpu"
local exact_backend <const> = on_cpu and "reference" or "alternating"
local keeping_gate <const> = { gru = "z", lstm = "f", slstm = "f" } -- raising its bias keeps a state for longer
local device_line

option.dtypes = option.dtypes or on_cpu and { "float32", "float16", "bfloat16" }
  or { "float32", "tf32", "float16", "bfloat16" }
option.backends = option.backends or on_cpu and { "reference", "vanilla" } or { "alternating", "fused" }
option.sizes = option.sizes or on_cpu and { "4x2x32" } or { "16x12x64", "16x3x256", "16x1x768" }
table.sort(option.lengths)
local steps_max <const> = option.lengths[#option.lengths]

local function storage_of(dtype) return dtype == "tf32" and "float32" or dtype end

local function read_size(text)
  local batch, heads, units = text:match "^([1-9]%d*)x([1-9]%d*)x([1-9]%d*)$"
  if not batch then options.fail("option --sizes: expected BATCHxHEADSxUNITS, got '%s'", text) end
  return { batch = tonumber(batch), heads = tonumber(heads), head_dim = tonumber(units), steps = steps_max }
end

local function plan_of(cell, size, dtype, backend)
  local shape = read_size(size)
  return options.attempt("backends", pl.rnn_plan, {
    cell = cell, batch = shape.batch, heads = shape.heads, head_dim = shape.head_dim, dtype = storage_of(dtype),
    device = option.device, backend = backend,
  })
end

-- Before the first measurement.
local function check_options()
  options.attempt("threads", pl.threads, option.threads)
  options.attempt("device", pl.synchronize, option.device)
  for _, dtype in ipairs(option.dtypes) do
    if dtype == "tf32" and on_cpu then options.fail "option --dtypes: tf32 is a type of a GPU's products" end
    for _, size in ipairs(option.sizes) do
      for _, backend in ipairs(option.backends) do plan_of(option.cells[1], size, dtype, backend) end
    end
  end
  device_line = experiment.device_line(option.device)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Measuring

-- Time steps whose errors are kept, sqrt(2) apart.
local function kept_steps(count)
  local list, at = {}, 1
  while at <= count + 0.5 do
    local step = math.tointeger(at + 0.5 - (at + 0.5) % 1)
    if step ~= list[#list] then list[#list + 1] = step end
    at = at * 2 ^ 0.5
  end
  if list[#list] ~= count then list[#list + 1] = count end
  return list
end

local function picked(list, steps)
  local made = {}
  for i, step in ipairs(steps) do made[i] = list[step] end
  return made
end

-- Three digits, for files that are kept.
local function rounded(value)
  if type(value) == "table" then
    for i, one in ipairs(value) do value[i] = rounded(one) end
    return value
  end
  return tonumber(("%.3g"):format(value))
end

local function largest(list)
  local most = 0
  for _, value in ipairs(list) do most = math.max(most, value) end
  return most
end

local function append(list, value) list[#list + 1] = rounded(value) end

-- Runs `steps` in the row's type and backend and adds its errors to the row.
local function add_length(row, plan, problem, steps, exact)
  local before = pl.tf32(row.dtype == "tf32")
  local found = errors.run(plan.cell, problem, steps, { plan = plan, gradients = true })
  pl.tf32(before)
  row.lengths[#row.lengths + 1], row.steps = steps, kept_steps(steps)
  for name, state in pairs(found.states) do
    local of = row.states[name] or { median = {}, largest = {}, last = {} }
    local list = errors.per_step(state, exact.states[name])
    row.states[name], of.per_step = of, rounded(picked(list, row.steps))
    append(of.median, error_report.median(list))
    append(of.largest, largest(list))
    append(of.last, errors.relative(found.last[name], exact.last[name]))
  end
  for _, name in ipairs(error_report.gradients) do
    append(row.gradients[name], errors.relative(found.gradients[name], exact.gradients[name]))
  end
  row.gradients.per_step = rounded(picked(errors.per_step(found.gradients.Wx, exact.gradients.Wx), row.steps))
end

-- The rows of the types that are stored as `storage`, which share the exact runs.
local function measure_storage(cell, bias, size, problem, storage, results)
  local _ <close> = pl.scope()
  local given, exact_given = errors.rounded(problem, storage)
  local rows, plans = {}, {}
  for _, dtype in ipairs(option.dtypes) do
    for _, backend in ipairs(storage_of(dtype) == storage and option.backends or {}) do
      local plan = plan_of(cell, size, dtype, backend)
      rows[#rows + 1] = {
        kind = "errors", device = device_line, cell = cell.name, forget_bias = bias, dtype = dtype, backend = backend,
        size = size, scope = plan.fused and plan.fused.scope, lengths = {}, states = {},
        gradients = { Wx = {}, R = {}, b = {}, states = {} },
      }
      plans[#rows] = plan
    end
  end
  for _, steps in ipairs(option.lengths) do
    local _ <close> = pl.scope()
    local exact = errors.run(cell, exact_given, steps, { backend = exact_backend, gradients = true })
    for i, row in ipairs(rows) do
      local _ <close> = pl.scope()
      local shortened = row.backend == "vanilla" and steps > option.vanilla_most
      if not shortened then add_length(row, plans[i], given, steps, exact) end
    end
  end
  for _, row in ipairs(rows) do
    results:write(row)
    report:add(row)
  end
end

-- How far the float64 of a GPU is from that of the CPU, over a short sequence.
local function check_exact(cell, problem, results, size)
  local _ <close> = pl.scope()
  local steps, here = math.min(steps_max, 128), {}
  for name, t in pairs(problem) do here[name] = t:to "cpu" end
  local there = errors.run(cell, problem, steps, { backend = exact_backend, gradients = true })
  local known = errors.run(cell, here, steps, { backend = "reference", gradients = true })
  local h = errors.relative(there.states.h:to "cpu", known.states.h)
  local inputs = errors.relative(there.gradients.Wx:to "cpu", known.gradients.Wx)
  print(("   %-6s %s: float64 on the GPU is %.1e (h) and %.1e (gradient of inputs) from reference, T = %d"):format(
    cell.name, size, h, inputs, steps))
  results:write { kind = "exact", device = device_line, cell = cell.name, size = size, steps = steps, h = h,
                  gradient = inputs }
end

local function storages()
  local list, seen = {}, {}
  for _, dtype in ipairs(option.dtypes) do
    local storage = storage_of(dtype)
    if not seen[storage] then list[#list + 1] = storage end
    seen[storage] = true
  end
  return list
end

local function measure(name, bias, size, results)
  local _ <close> = pl.scope()
  pl.seed(option.seed)
  local cell, gate = pl.cells[name], keeping_gate[name]
  local problem = errors.problem(cell, read_size(size), option.device, gate and { gate = gate, value = bias })
  if not on_cpu and bias == option.biases[1] then check_exact(cell, problem, results, size) end
  for _, storage in ipairs(storages()) do measure_storage(cell, bias, size, problem, storage, results) end
end

check_options()
pl.tuning(false)
local results <close> = options.attempt("out", experiment.results, option.out, option)
print(device_line)
report:head()
for _, size in ipairs(option.sizes) do
  for _, name in ipairs(option.cells) do
    for i, bias in ipairs(option.biases) do
      if keeping_gate[name] then measure(name, bias, size, results)
      elseif i == 1 then measure(name, 0, size, results) end
    end
  end
end
report:summarize()
