-- The gradient of a cell against differences of its loss, entry by entry in float64. What the equations stop the
-- gradient of stays as it is while an entry moves, and kinks and jumps are told from errors.

local pl = require "perilune"
local arguments = require "perilune.rnn.arguments"
local core = require "perilune.core"
local equations = require "perilune.check_cell.equations"
local problem = require "perilune.check_cell.problem"
local vanilla = require "perilune.rnn.vanilla"

local differences = {}

local SIZE <const> = { B = 2, T = 4, N = 1, D = 3 }
local STEP <const>, LIMIT <const> = 1e-5, 1e-6

-- The cell with a step that evaluates its traced equations on tensors. The first run keeps copies of the values of
-- stop_gradient (one may be an initial state, whose entries are moved), later ones take them in place of their own:
-- then the gradient is the derivative.
local function frozen(cell)
  local kept, at, first = {}, 0, true
  local function stopped(value)
    at = at + 1
    if first then kept[at] = core.is_tensor(value) and value:clone():keep() or value end
    return kept[at]
  end
  local function run_step(_, gates, states, params)
    return equations.on_tensors(cell, gates, states, params, stopped)
  end
  local function restart() first, at = at == 0 and first, 0 end
  return setmetatable({ run_step = run_step }, { __index = cell }), restart
end

-- A function that returns the loss of `given` as its tensors are now.
local function loss_of(cell, given)
  local stand_in, restart = frozen(cell)
  return function()
    local _ <close> = pl.scope()
    local x = arguments.check(given.Wx, given.R, given.b, problem.options(cell, given, "vanilla"))
    x.cell = stand_in
    local loss = problem.loss(given, vanilla(x)):item()
    restart()
    return loss
  end
end

-- How the loss changes with an entry that does not change as the gradient says: { kind =, low =, high = }, the least
-- and the greatest slope beside it. At a kink the slopes of both sides stay apart as the step shrinks; at a jump they
-- grow.
local function looked_at(here, at)
  local function sides(step)
    local right, left = (at(step) - here) / step, (here - at(-step)) / step
    return math.min(left, right), math.max(left, right)
  end
  local low, high = sides(STEP)
  local near_low, near_high = sides(STEP / 8)
  local share = (near_high - near_low) / (high - low)
  local kind = share > 4 and "jump" or share > 0.5 and "kink" or "error"
  return { kind = kind, low = near_low, high = near_high }
end

-- Compares one entry. Returns its error, and "kink" or "jump" where there is one.
local function compare(here, at, gradient)
  local slope = (at(STEP) - at(-STEP)) / (2 * STEP)
  local off = math.abs(slope - gradient) / math.max(1, math.abs(slope))
  if off <= LIMIT then return off end
  local found = looked_at(here, at)
  if found.kind == "jump" then return 0, "jump" end
  local room = LIMIT * math.max(1, math.abs(gradient)) * 10
  if found.kind == "kink" and gradient > found.low - room and gradient < found.high + room then return 0, "kink" end
  return off == off and off or math.huge
end

local said <const> = {
  kink = "%d of %d entries at a kink (%s): the gradient lies between the slopes of the two sides",
  jump = "%d of %d entries at a jump (%s): a difference across it is no slope, and they are left out",
}

-- The check of one input: its gradient against how `loss` changes as its entries are moved.
local function check_input(cell, input, gradient, loss)
  local flat, slope, count = input.tensor:reshape { input.tensor:numel() }, gradient:totable(), input.tensor:numel()
  local here, worst, met = loss(), 0, { kink = 0, jump = 0 }
  for i = 1, count do
    local kept = flat[i]:item()
    local function at(step)
      flat[i] = kept + step
      local value = loss()
      flat[i] = kept
      return value
    end
    local off, kind = compare(here, at, slope[i])
    worst = math.max(worst, off)
    if kind then met[kind] = met[kind] + 1 end
  end
  local notes = {}
  for _, kind in ipairs { "kink", "jump" } do
    if met[kind] > 0 then
      notes[#notes + 1] = said[kind]:format(met[kind], count, table.concat(equations.rough(cell), ", "))
    end
  end
  local compared = met.jump < count
  if not compared then notes[#notes + 1] = "nothing is left to compare" end
  return {
    name = "gradient of " .. input.name, compared = "central differences of the loss, float64", error = worst,
    limit = LIMIT, ok = compared and worst <= LIMIT, note = table.concat(notes, "; "),
  }
end

--- The checks of all gradients of `cell`, a list; in place of them one that says why there is none for a cell with
-- gradient_clip, whose gradient is no derivative.
function differences.checks(cell)
  if equations.uses(cell, { gradient_clip = true }) then
    return { {
      name = "gradients", compared = "central differences of the loss, float64",
      note = "not compared: gradient_clip makes the gradient something else than the derivative",
    } }
  end
  local given = problem.new(cell, SIZE, 7)
  given.states = problem.warm_states(cell, given)
    or core.full({ #cell.states, SIZE.B, 1, SIZE.N, SIZE.D }, 0.5, { dtype = "float64" })
  local found, checks = problem.run(cell, given, "reference"), {}
  local loss = loss_of(cell, given)
  pl.no_grad(function()
    for _, input in ipairs(problem.inputs(cell, given)) do
      local gradient = found["d " .. input.name]
      checks[#checks + 1] = check_input(cell, input, gradient:reshape { gradient:numel() }, loss)
    end
  end)
  return checks
end

return differences
