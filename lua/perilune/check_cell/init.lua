-- pl.check_cell: is a cell right, and where does it run? Gradients against differences, all backends and types against
-- each other, a long sequence, and a page that says it all.

local pl = require "perilune"
local arguments = require "perilune.rnn.arguments"
local backends = require "perilune.check_cell.backends"
local check = require "perilune.nn.check"
local core = require "perilune.core"
local declared = require "perilune.code.declared"
local differences = require "perilune.check_cell.differences"
local long = require "perilune.check_cell.long"
local place = require "perilune.cell.place"
local Report = require "perilune.check_cell.report"

local module = {}

local known <const> = { batch = 3, steps = 12, heads = 2, head_dim = 16, long_steps = 1000, device = check.none }

local function fail(name, message) check.fail("pl.check_cell: %s: %s", name, message) end

local function find_cell(cell)
  local ok, found = pcall(arguments.cell, cell)
  if not ok then fail("cell", (place.strip(found):gsub("^cell: ", ""))) end
  return found
end

-- The GPU to use: the one that was asked for, or the first; nil for none.
local function find_gpu(device)
  if device == nil then return backends.first_gpu() end
  local ok, found = pcall(core.full, { 1 }, 0, { device = check.kind("pl.check_cell", "device", device, "string") })
  if not ok then fail("device", (place.strip(found):gsub("^[^\n]-:%d+: device: ", ""))) end
  return found.device ~= "cpu" and found.device or nil
end

-- f(...) with gradients, and without what the caller has set that changes types or plans.
local function undisturbed(f, ...)
  local autocast, tf32, tuning = core.autocast(false), core.tf32(false), pl.tuning(false)
  local results = table.pack(pcall(core.with_grad, f, ...))
  core.autocast(autocast)
  core.tf32(tf32)
  pl.tuning(tuning)
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

local function run(cell, option, gpu)
  local _ <close> = pl.scope()
  local size = { B = option.batch, T = option.steps, N = option.heads, D = option.head_dim }
  local report = { cell = cell, gpu = gpu, checks = differences.checks(cell), ok = true }
  local compared, takes = backends.checks(cell, size, gpu)
  report.backends, report.widest = takes, backends.widest(cell, gpu)
  for _, list in ipairs { compared, long.checks(cell, option.long_steps) } do
    table.move(list, 1, #list, #report.checks + 1, report.checks)
  end
  for _, one in ipairs(report.checks) do report.ok = report.ok and one.ok ~= false end
  report.parameters = { input = cell:count "input", recurrent = cell:count "recurrent", bias = cell:count "bias",
                        params = #cell.params }
  return setmetatable(report, Report)
end

--- check_cell(cell [, { batch = 3, steps = 12, heads = 2, head_dim = 16, long_steps = 1000, device = }]) -> report:
-- tries a cell, or the one of that name: gradients in float64 against central differences; every backend in every type
-- that it takes, on the CPU and on `device` (default the first GPU, "cpu" for none), against `reference` in float64,
-- results and gradients; states and gradients over long_steps steps, which must stay finite. The report prints as a
-- page and shows as HTML in a notebook. Its fields: ok; checks, a list of { name =, compared =, error =, limit =,
-- ok = (nil where nothing could be compared), note = }; backends, a list of { backend =, device =, dtype =, takes =,
-- why = };
-- widest, what fits the backend fused; parameters, how many gates have each part, and how many params there are. Random
-- numbers, autocast, tf32 and tuning of the session stay as they are.
function module.check_cell(cell, options)
  cell = find_cell(cell)
  local option = check.options("pl.check_cell", options, known)
  for _, name in ipairs { "batch", "steps", "heads", "head_dim", "long_steps" } do
    option[name] = check.integer("pl.check_cell", name, option[name])
  end
  return undisturbed(run, cell, option, find_gpu(option.device))
end
declared.options(module.check_cell, known)

return module
