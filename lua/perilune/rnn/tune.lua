-- The tuner of fused recurrences: measures the few plans that the model thinks best, once per device, cell and shape,
-- and remembers which was quickest (perilune.rnn.tuned). Which plans there are is perilune.rnn.fused's.

local core = require "perilune.core"
local fused = require "perilune.rnn.fused"
local probe = require "perilune.rnn.probe"
local steps = require "perilune.rnn.steps"
local tuned = require "perilune.rnn.tuned"

local tune = {}

local TRIED_MAX <const>, BUDGET_S <const> = 4, 2
local CLOSE <const> = 1.5 -- times as long: what is predicted to take more than that is not quicker after all

-- ---- the switch -----------------------------------------------------------------------------------------------------

local environment = os.getenv "PERILUNE_TUNE"
local on = not (environment == "0" or environment == "off")

--- pl.tuning([on]): whether plans were measured, and measurements used, before the call.
function tune.tuning(wanted)
  local before = on
  if wanted ~= nil and type(wanted) ~= "boolean" then
    error(("tuning: on: expected true or false, got %s"):format(type(wanted)), 2)
  end
  if wanted ~= nil then on = wanted end
  return before
end

-- ---- measuring ------------------------------------------------------------------------------------------------------

-- Elements of Wx: steps enough that a launch does not decide, and memory that a training would need anyway.
local ELEMENTS <const>, STEPS_MIN <const>, STEPS_MAX <const>, REPEATS <const> = 1 << 25, 64, 512, 7

-- Numbers in -scale..scale that look random and disturb no generator.
local function scattered(shape, scale, dtype, device)
  local rows = 1
  for i = 1, #shape - 1 do rows = rows * shape[i] end
  local of_row = core.arange(1, rows, { device = device }):reshape { rows, 1 } * 12.9898
  local of_column = core.arange(1, shape[#shape], { device = device }) * 78.233
  return (core.sin(of_row + of_column) * scale):reshape(shape):to(dtype)
end

-- What a recurrence of so many steps is given, as core.recurrence takes it, and all of it as a list.
local function inputs_of(problem, count)
  local cell, batch, heads, dim, leaves = problem.cell, problem.batch, problem.heads, problem.head_dim, {}
  local function leaf(shape, scale, dtype)
    leaves[#leaves + 1] = scattered(shape, scale, dtype, problem.device):requires_grad()
    return leaves[#leaves]
  end
  local function weight(part, shape, dtype)
    table.insert(shape, 1, cell:count(part))
    return shape[1] > 0 and leaf(shape, dim ^ -0.5, dtype) or nil
  end
  local x = {
    Wx = leaf({ batch, count, cell:count "input", heads, dim }, 1, problem.dtype),
    R = weight("recurrent", { heads, dim, dim }, problem.dtype), b = weight("bias", { heads, dim }, "float32"),
    initial = leaf({ #cell.states, batch, 1, heads, dim }, 0.5, "float32"), params = {},
  }
  for i in ipairs(cell.params) do x.params[i] = leaf({ heads, dim }, 0.5, "float32") end
  return x, leaves
end

local function median_us(problem, candidate)
  local _ <close> = core.scope()
  local handle = problem.cell:compile { forward_clip = problem.forward_clip }
  local row = problem.batch * math.max(problem.cell:count "input", 1) * problem.heads * problem.head_dim
  local count = math.max(STEPS_MIN, math.min(STEPS_MAX, ELEMENTS // row))
  local x, leaves = inputs_of(problem, count)
  local options = { outputs = "h", cut = false, product = problem.product }
  options[candidate.backend or "fused"] = candidate.arguments
  local seed = scattered({ 1, problem.batch, count, problem.heads, problem.head_dim }, 1, problem.dtype, problem.device)
  local function run()
    local _ <close> = core.scope()
    core.recurrence(handle, x.Wx, x.R, x.b, x.params, x.initial, options):backward(seed)
    for _, leaf in ipairs(leaves) do leaf.grad = nil end -- another's is not to be added to them
  end
  run() -- compiles
  local timers, times = {}, {}
  for i = 1, REPEATS do -- without waiting in between, so that the device always has work
    timers[i] = core.timer(problem.device):start()
    run()
    timers[i]:mark()
  end
  for i, timer in ipairs(timers) do times[i] = timer:stop() end
  table.sort(times)
  return 1000 * times[(REPEATS + 1) // 2] / count
end

--- Microseconds of a step, forward and backward, of a plan (fused.ranked's or steps.choose's) on problem.device,
-- whatever the caller has set: gradients on or off, autocast, the state of the random numbers.
function tune.measure(problem, candidate) return core.with_grad(median_us, problem, candidate) end

-- ---- choosing -------------------------------------------------------------------------------------------------------

-- A copy of what fused.choose returned, with how it came to be chosen.
local function chosen(found, how)
  local copy = {}
  for name, value in pairs(found) do copy[name] = value end
  copy.chosen = how
  return copy
end

--- What was measured for the problem on that chip before, by whatever process; nil where nothing was, or where this
-- program does not know that plan.
function tune.remembered(problem, chip)
  local record = tuned:find(tuned.subject(problem, chip))
  if not record then return nil end
  local known, found = pcall(fused.choose, problem, chip, record.plan) -- a field of another version is an error
  if not known or not found then return nil end
  return chosen(found, { by = "remembered", predicted_us = record.predicted_us, measured_us = record.measured_us,
                         feasible = record.feasible, tried = record.tried,
                         alternating_us = record.alternating_us })
end

-- What is measured for a problem, in this order: the fused plans, and second the alternating one, where it is predicted
-- to take not much longer than the first.
local function candidates_of(ranked, other)
  local list = { table.unpack(ranked) }
  if other.predicted_us < CLOSE * ranked[1].predicted_us then table.insert(list, 2, other) end
  return list
end

-- { best = the quickest of the fused plans, us = its time, tried = how many of them were measured, alternating_us =,
-- failure = the first error }. Another one is not begun when it would end past the budget by what those before it took,
-- unless there is nothing to choose yet; what cannot run is passed over.
local function quickest(problem, candidates, measure)
  local began, found = core.time(), { us = math.huge, tried = 0 }
  for i, candidate in ipairs(candidates) do
    local used = core.time() - began
    if found.best and used + used / (i - 1) > BUDGET_S then break end
    local ok, us = pcall(measure, problem, candidate)
    if not ok then
      found.failure = found.failure or us
    elseif candidate.backend == "alternating" then
      found.alternating_us = us
    else
      found.tried = found.tried + 1
      if us < found.us then found.best, found.us = candidate, us end
    end
  end
  return found
end

local function by_model(best, chip, failure)
  return chosen(best, { by = "model", predicted_us = best.predicted_us, feasible = best.feasible, failure = failure,
                        probed = chip.scale and true or nil })
end

--- Measures anew and remembers. `measure` (default: tune.measure) gives the time of a plan or raises an error; when it
-- raises one for every plan, as when little memory is free, the model chooses, and chosen.failure is the first error.
-- nil and why not where there is no plan.
function tune.measured(problem, chip, measure)
  measure = measure or tune.measure
  local probed = probe.scaled(chip, problem.device, measure)
  local ranked, why_not = fused.ranked(problem, probed, TRIED_MAX)
  if not ranked then return nil, why_not end
  local found = quickest(problem, candidates_of(ranked, steps.choose(problem, probed)), measure)
  local best = found.best
  if not best then return by_model(ranked[1], probed, found.failure) end
  local record = tuned.subject(problem, chip)
  record.plan, record.measured_us, record.tried = best.plan, found.us, found.tried
  record.predicted_us, record.feasible, record.alternating_us = best.predicted_us, best.feasible, found.alternating_us
  record.date = os.date "!%Y-%m-%dT%H:%M:%SZ"
  local kept, why_not_kept = tuned:add { record }
  return chosen(best, { by = "measured", predicted_us = best.predicted_us, measured_us = found.us,
                        feasible = best.feasible, tried = found.tried, alternating_us = found.alternating_us,
                        forgotten = not kept and why_not_kept or nil })
end

--- The chip with what a probe found, unless tuning is off.
function tune.scaled(chip) return on and probe.scaled(chip) or chip end

--- The plan for a problem on a chip (see fused.choose): what is remembered, or else measured, or, with tuning off or
-- where `measure` is false because the chip is not here, what the model thinks best. Beside what fused.choose returns
-- it has chosen = { by = "remembered", "measured" or "model", predicted_us =, feasible = (how many plans were looked
-- at), measured_us = and tried = (how many were measured), alternating_us = (of that backend, measured where it was
-- close), forgotten = (why it could not be remembered) }.
function tune.choose(problem, chip, measure)
  local found = on and tune.remembered(problem, chip)
  if found then return found end
  if on and measure ~= false then return tune.measured(problem, chip, measure) end
  local probed = tune.scaled(chip)
  local ranked, why_not = fused.ranked(problem, probed, 1)
  if not ranked then return nil, why_not end
  return by_model(ranked[1], probed)
end

--- The plan with the fields `given`, as fused.choose; chosen.by is "forced".
function tune.forced(problem, chip, given)
  local found, why_not = fused.choose(problem, chip, given)
  if not found then return nil, why_not end
  return chosen(found, { by = "forced", predicted_us = found.predicted_us })
end

-- ---- explaining -----------------------------------------------------------------------------------------------------

local function measurement(how)
  return ("%.2f us a step (model %.2f), the best of %d measured of %d looked at"):format(how.measured_us,
    how.predicted_us, how.tried, how.feasible)
end

local sentences = {
  measured = function(how)
    local line = "chosen by measurement: " .. measurement(how)
    return how.forgotten and ("%s; it is not remembered: %s"):format(line, how.forgotten) or line
  end,
  remembered = function(how) return "remembered measurement: " .. measurement(how) end,
  model = function(how)
    local line = ("chosen by the model%s: predicted %.2f us a step, of %d looked at")
      :format(how.probed and ", adjusted to this device" or "", how.predicted_us, how.feasible)
    return how.failure and ("%s; measuring failed: %s"):format(line, tostring(how.failure)) or line
  end,
  forced = function(how) return ("forced: predicted %.2f us a step"):format(how.predicted_us) end,
}

--- How a plan was chosen, in a line.
function tune.explain(how) return sentences[how.by](how) end

return tune
