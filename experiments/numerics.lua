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
local error_rows = require "perilune.rnn.error_rows"
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
    for _, row in ipairs(experiment.read(path, "errors")) do report:add(row):print(row) end
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
local device_line

option.dtypes = option.dtypes or on_cpu and { "float32", "float16", "bfloat16" }
  or { "float32", "tf32", "float16", "bfloat16" }
option.backends = option.backends or on_cpu and { "reference", "vanilla" } or { "alternating", "fused" }
option.sizes = option.sizes or on_cpu and { "4x2x32" } or { "16x12x64", "16x3x256", "16x1x768" }
table.sort(option.lengths)

local function read_size(text)
  local batch, heads, units = text:match "^([1-9]%d*)x([1-9]%d*)x([1-9]%d*)$"
  if not batch then options.fail("option --sizes: expected BATCHxHEADSxUNITS, got '%s'", text) end
  return tonumber(batch), tonumber(heads), tonumber(units)
end

-- What perilune.rnn.error_rows measures.
local function spec_of(cell, forget_bias, size)
  local batch, heads, head_dim = read_size(size)
  return {
    cell = cell, forget_bias = forget_bias, batch = batch, heads = heads, head_dim = head_dim, device = option.device,
    lengths = option.lengths, dtypes = option.dtypes, backends = option.backends, vanilla_most = option.vanilla_most,
    seed = option.seed,
  }
end

-- Before the first measurement.
local function check_options()
  options.attempt("threads", pl.threads, option.threads)
  options.attempt("device", pl.synchronize, option.device)
  for _, dtype in ipairs(option.dtypes) do
    if dtype == "tf32" and on_cpu then options.fail "option --dtypes: tf32 is a type of a GPU's products" end
    for _, size in ipairs(option.sizes) do
      for _, backend in ipairs(option.backends) do
        local batch, heads, head_dim = read_size(size)
        options.attempt("backends", pl.rnn_plan, {
          cell = option.cells[1], batch = batch, heads = heads, head_dim = head_dim,
          dtype = error_rows.storage_of(dtype), device = option.device, backend = backend,
        })
      end
    end
  end
  device_line = experiment.device_line(option.device)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Measuring

-- How far the float64 of a GPU is from that of the CPU, over a short sequence.
local function check_exact(spec, size, results)
  local _ <close> = pl.scope()
  local cell, problem, here = pl.cells[spec.cell], error_rows.problem(spec), {}
  local steps = math.min(option.lengths[#option.lengths], 128)
  for name, t in pairs(problem) do here[name] = t:to "cpu" end
  local there = errors.run(cell, problem, steps,
    { backend = error_rows.exact_backend(option.device), gradients = true })
  local known = errors.run(cell, here, steps, { backend = "reference", gradients = true })
  local h = errors.relative(there.states.h:to "cpu", known.states.h)
  local inputs = errors.relative(there.gradients.Wx:to "cpu", known.gradients.Wx)
  print(("   %-6s %s: float64 on the GPU is %.1e (h) and %.1e (gradient of inputs) from reference, T = %d"):format(
    cell.name, size, h, inputs, steps))
  results:write { kind = "exact", device = device_line, cell = cell.name, size = size, steps = steps, h = h,
                  gradient = inputs }
end

local function measure(name, bias, size, results)
  local spec = spec_of(name, bias, size)
  if not on_cpu and bias == option.biases[1] then check_exact(spec, size, results) end
  for _, row in ipairs(error_rows.measure(spec)) do
    results:write(row)
    report:add(row):print(row)
  end
end

check_options()
pl.tuning(false)
local results <close> = options.attempt("out", experiment.results, option.out, option)
print(device_line)
report:head()
for _, size in ipairs(option.sizes) do
  for _, name in ipairs(option.cells) do
    for i, bias in ipairs(option.biases) do
      if error_rows.has_forget_bias(name) then measure(name, bias, size, results)
      elseif i == 1 then measure(name, 0, size, results) end
    end
  end
end
report:summarize()
