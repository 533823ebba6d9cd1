-- Many cells in one session on a GPU: more than modules stay loaded for. Each agrees with the CPU, and so does one that
-- comes back after its kernels were unloaded.

local pl = require "perilune"
local devices = require "tests.devices"

if not devices.has("cuda", "many cells") then return end

local CELLS <const> = 50 -- two modules each: 24 are held by plans, 64 stay besides

local function cell_of(number)
  return pl.cell {
    name = "drifting " .. number,
    states = { "h" },
    gates = { "x" },
    constants = { drift = number / CELLS },
    step = function(gate, state, k) return { h = pl.tanh(gate.x + k.drift * state.h) } end,
  }
end

-- States and the gradient of R, on the CPU.
local function run(cell, given, device)
  local function leaf(t) return t:to(device):detach():clone():requires_grad() end
  local Wx, R, b = leaf(given.Wx), leaf(given.R), leaf(given.b)
  local states = pl.rnn(Wx, R, b, { cell = cell, backend = device == "cpu" and "reference" or "alternating" })
  states:sum():backward()
  return states:detach():to "cpu", R.grad:to "cpu"
end

local function mean_difference(a, b) return pl.abs(a - b):mean():item() end

describe("many cells", function()
  it("take turns on a GPU", function()
    pl.seed(3)
    local given = { Wx = pl.randn { 2, 6, 1, 2, 8 }, R = 0.3 * pl.randn { 1, 2, 8, 8 }, b = pl.randn { 1, 2, 8 } }
    local first_states, first_gradient
    for i = 1, CELLS do
      local cell = cell_of(i)
      local states, gradient = run(cell, given, "cuda")
      local expected_states, expected_gradient = run(cell, given, "cpu")
      assert.is_true(mean_difference(states, expected_states) < 1e-5, "states of cell " .. i)
      assert.is_true(mean_difference(gradient, expected_gradient) < 1e-4, "gradient of cell " .. i)
      if i == 1 then first_states, first_gradient = states, gradient end
    end
    local states, gradient = run(cell_of(1), given, "cuda")
    assert.equal(0, mean_difference(first_states, states))
    assert.equal(0, mean_difference(first_gradient, gradient))
  end)
end)
