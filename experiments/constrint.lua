-- How fused recurrences are planned: for each shape all plans that fit, the model's choice against the best that was
-- measured, what the model predicts against what was measured, the time to plan, and what each family of constraints is
-- for. A table on standard output, JSON lines with --out; --plot draws them.
--
--   perilune experiments/constrint.lua --device cuda --out constrint.jsonl
--   perilune experiments/constrint.lua --chip A100                         no GPU: plans and constraints only
--   perilune experiments/constrint.lua --plot constrint.jsonl
--
-- "plan ms" is the first planning of a shape, "again us" what it takes to find the plan once more. A plan's time is
-- that of a step of training, forward and backward with the gradients of everything, as
-- `perilune tune` measures it. "tuned" is the best of the four that the model thinks best. "without" counts the plans
-- that fit when a family of constraints is left out, and how many of those a launch would refuse.
local pl = require "perilune"
local chips = require "perilune.rnn.chips"
local constraints = require "perilune.rnn.constraints"
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local fused = require "perilune.rnn.fused"
local options = require "perilune.options"
local plan = require "perilune.rnn.plan"
local sizes = require "perilune.rnn.sizes"
local tune = require "perilune.rnn.tune"

local option = options.read {
  usage = "perilune experiments/constrint.lua [OPTIONS]",
  about = "Measures all plans of fused recurrences, and the planner against them.",
  { "device", "string", help = "the GPU to measure on: cuda, cuda:1" },
  { "chip", "string", help = "a chip to plan for without measuring: A100, RTX 4090, H200, ..." },
  { "shapes", "list", default = {
    "lstm:16x12x64", "lstm:16x6x128", "lstm:16x3x256", "lstm:16x1x512", "lstm:16x1x768", "lstm:16x1x1024",
    "lstm:1x12x64", "lstm:1x1x768", "lstm:64x12x64", "lstm:64x1x768", "lstm:8x1x1536", "lstm:8x1x2048",
    "slstm:16x12x64", "elman:16x12x64", "gru:16x12x64", "gru:16x1x768" }, help = "CELL:BATCHxHEADSxUNITS" },
  { "dtype", "string", default = "bfloat16", choices = { "float32", "bfloat16", "float16" }, help = "type of all" },
  { "most", "integer", default = 1000, minimum = 1, help = "plans to measure per shape, those predicted best" },
  { "out", "string", help = "file for JSON lines" },
  { "plot", "string", help = "draw this file of results, beside it, and do nothing else" },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- The plot, from a file of results alone

local function draw(path)
  local by_scope, series = {}, {}
  for _, row in ipairs(experiment.read(path, "plan")) do
    local of = by_scope[row.scope] or { x = {}, y = {}, label = row.scope }
    by_scope[row.scope] = of
    of.x[#of.x + 1], of.y[#of.y + 1] = row.measured_us, row.predicted_us
  end
  for _, scope in ipairs { "block", "cluster", "grid" } do series[#series + 1] = by_scope[scope] end
  series.title, series.xlabel, series.ylabel = "Fused plans", "measured, us a step", "predicted, us a step"
  series.logx, series.logy = true, true
  local picture = path:gsub("%.jsonl$", "") .. ".svg"
  pl.plot.scatter(series):save(picture)
  return picture
end

if option.plot then
  print(options.attempt("plot", draw, option.plot))
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Shapes

if (option.device == nil) == (option.chip == nil) then options.fail "expected one of --device and --chip" end
local chip = option.chip and options.attempt("chip", chips.named, option.chip)
  or options.attempt("device", core.fused_chip, option.device)
  or options.fail("option --device: expected a GPU, got '%s'", option.device)

local function problem_of(shape)
  local cell, batch, heads, units = shape:match "^(%w+):([1-9]%d*)x([1-9]%d*)x([1-9]%d*)$"
  batch, heads, units = math.tointeger(batch), math.tointeger(heads), math.tointeger(units)
  if not (cell and batch and heads and units) then
    options.fail("option --shapes: expected CELL:BATCHxHEADSxUNITS, got '%s'", shape)
  end
  return {
    cell = options.attempt("shapes", function() return pl.cells[cell] end), batch = batch,
    heads = heads, head_dim = units, dtype = option.dtype, product = option.dtype,
    device = option.device or option.chip, chip = option.chip and chip or nil,
  }
end

local problems = {}
for i, shape in ipairs(option.shapes) do problems[i] = problem_of(shape) end
pl.tuning(false) -- the model alone plans, and all is measured anew
local results <close> = options.attempt("out", experiment.results, option.out, option)

-- ---------------------------------------------------------------------------------------------------------------------
-- Planning and measuring

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

-- Microseconds until the plan of a problem that was planned before is found again.
local function remembered_us(problem)
  plan.choose(problem, "fused")
  local times = {}
  for i = 1, 101 do
    local began_s = pl.time()
    plan.choose(problem, "fused")
    times[i] = 1e6 * (pl.time() - began_s)
  end
  return median(times)
end

-- The row of a shape: plans, the model's choice, the best of the first four and of all, the model's error.
local function measure_all(shape, problem, list)
  local best, tuned, errors = math.huge, math.huge, {}
  for i = 1, math.min(#list, option.most) do
    local us = tune.measure(problem, list[i])
    best, tuned = math.min(best, us), i <= 4 and math.min(tuned, us) or tuned
    list[i].measured_us = us
    results:write { kind = "plan", shape = shape, rank = i, scope = list[i].plan.scope, plan = list[i].plan,
                    predicted_us = list[i].predicted_us, measured_us = us }
  end
  for i = 1, math.min(#list, option.most) do
    if list[i].measured_us <= 1.3 * best then
      errors[#errors + 1] = math.abs(list[i].predicted_us / list[i].measured_us - 1)
    end
  end
  return { measured = math.min(#list, option.most), chosen_us = list[1].measured_us, tuned_us = tuned, best_us = best,
           model_error = median(errors) }
end

local function plan_shape(shape, problem)
  local began_s = pl.time()
  local first, why_not = fused.choose(problem, chip)
  local planning_ms = 1e3 * (pl.time() - began_s)
  if not first then
    print(("%-16s not fused: it %s"):format(shape, why_not()))
    return
  end
  local list = fused.ranked(problem, chip, math.maxinteger - 1)
  local row = option.device and measure_all(shape, problem, list) or {}
  row.kind, row.shape, row.feasible, row.planning_ms = "shape", shape, #list, planning_ms
  row.remembered_us = remembered_us(problem)
  row.plan, row.predicted_us = list[1].plan, list[1].predicted_us
  results:write(row)
  local measured = option.device and ("%8.3f %8.3f %8.3f %7.3f %7.3f %6.0f %%"):format(row.chosen_us, row.tuned_us,
    row.best_us, row.chosen_us / row.best_us, row.tuned_us / row.best_us, 100 * row.model_error) or ""
  print(("%-16s %5d %8.1f %8.1f %9.3f %s"):format(shape, #list, row.planning_ms, row.remembered_us, row.predicted_us,
    measured))
end

-- ---------------------------------------------------------------------------------------------------------------------
-- What each family of constraints is for

local scopes <const> = { block = 0, cluster = 1, grid = 2 }

-- Plans of all scopes without a family, and how many of them a launch would refuse.
local function count_without(problem, family)
  local count, refused, q, handle = 0, 0, sizes.problem(problem), problem.cell:compile()
  for scope, number in pairs(scopes) do
    local p = constraints.state(q, chip, scope, {})
    local without = family and not constraints.lacking[scope][family] and { family } or {}
    local all, stopped = p:all { without = without, nodes = 1000000 }
    if stopped then error(stopped, 0) end
    for _, found in ipairs(all) do
      found.scope = number
      count = count + 1
      if not core.fused_details(chip, handle, problem, found) then refused = refused + 1 end
    end
  end
  return count, refused
end

local function families(shape, problem)
  local words = {}
  for i, family in ipairs { "", table.unpack(constraints.families) } do
    local count, refused = count_without(problem, family ~= "" and family)
    words[i] = ("%6d %5d"):format(count, refused)
    results:write { kind = "families", shape = shape, without = family, plans = count, refused = refused }
  end
  print(("%-16s %s"):format(shape, table.concat(words, " ")))
end

print(option.chip and ("planned for %s, nothing measured"):format(option.chip)
  or experiment.device_line(option.device))
print(("%-16s %5s %8s %8s %9s %s"):format("cell, B x N x D", "plans", "plan ms", "again us", "predicted",
  option.device and "  chosen    tuned     best  chosen/  tuned/  model" or ""))
for i, shape in ipairs(option.shapes) do plan_shape(shape, problems[i]) end
print(("\n%-16s %12s %12s %12s %12s %12s %12s %12s"):format("without", "nothing", "shape", "tiles", "warps",
  "residency", "memory", "use"))
for i, shape in ipairs(option.shapes) do families(shape, problems[i]) end
