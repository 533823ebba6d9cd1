-- Gradients of the default backend against central differences, entry by entry.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"
local zoo = require "tests.recurrence.zoo"

local shape = { B = 2, T = 4, N = 2, D = 3 }
local STEP, TOLERANCE, ENTRIES = 1e-5, 1e-6, 12

local function loss_of(cell, given, options, weights)
  local call = { cell = cell, states = given.states, params = next(given.params) and given.params or nil }
  for key, value in pairs(options) do call[key] = value end
  local states, last = pl.rnn(given.Wx, given.R, given.b, call)
  local loss = (states * weights.states):sum():item()
  return loss + (last * weights.last):sum():item()
end

-- Moves some entries of `t` and compares the change of the loss with its gradient.
local function check(name, t, gradient, loss)
  local flat, slope = t:reshape { t:numel() }, gradient and gradient:reshape { t:numel() }
  local count = t:numel()
  for k = 1, math.min(ENTRIES, count) do
    local i = count <= ENTRIES and k or (k * 7919) % count + 1
    local kept = flat[i]:item()
    flat[i] = kept + STEP
    local above = loss()
    flat[i] = kept - STEP
    local below = loss()
    flat[i] = kept
    local expected, found = (above - below) / (2 * STEP), slope and slope[i]:item() or 0
    local off = math.abs(expected - found) / math.max(1, math.abs(expected))
    assert(off < TOLERANCE, ("d %s[%d] is %.10g; by differences %.10g"):format(name, i, found, expected))
  end
end

local function check_all(cell, options, weights)
  local _ <close> = pl.scope()
  local given = compare.arguments(cell, shape)
  local found = compare.run(cell, given, options, weights)
  local function loss() return loss_of(cell, given, options, weights) end
  for _, name in ipairs { "Wx", "R", "b", "states" } do
    if given[name] then check(name, given[name], found["d " .. name], loss) end
  end
  for name, t in pairs(given.params) do check(name, t, found["d " .. name], loss) end
end

describe("central differences agree with the gradients", function()
  before_each(function() pl.seed(3) end)

  for _, entry in ipairs(zoo) do
    if entry.smooth then
      it("of " .. entry.name, function()
        check_all(entry.cell, {}, {})
        check_all(entry.cell, { lengths = { 2, 4 } }, {})
      end)
    end
  end

  -- m cancels in h, and n stays above 1 when it starts above 0: so the derivative of h with m frozen is its derivative.
  it("of h of slstm", function()
    local cell = pl.cells.slstm
    local last = pl.zeros { #cell.states, shape.B, 1, shape.N, shape.D, dtype = "float64" }
    last:select(1, 1):fill_(0.75)
    check_all(cell, { outputs = "h" }, { last = last })
  end)
end)
