-- Cells for the tests: those of pl.cells and some more, which between them use every feature of pl.cell. Each entry:
-- { cell = object, name = its name, smooth = whether central differences apply, decides = whether a rounding, or the
-- range of a type, may turn a value into quite another one }. tests/cuda/fused_text_test.c takes the first eleven by
-- number; the first fourteen have every feature between them (tests/cuda/recurrence_text_test.c).

local pl = require "perilune"

local zoo = {}

local function add(cell, options)
  options = options or {}
  zoo[#zoo + 1] = { cell = cell, name = cell.name, smooth = options.smooth ~= false, decides = options.decides }
end

add(pl.cells.elman)
add(pl.cells.gru)
add(pl.cells.lstm)
add(pl.cells.slstm, { smooth = false }) -- m is frozen, and the default initial state is a kink

for _, name in ipairs { "peephole_lstm", "cifg", "mgu", "leaky_esn" } do add(pl.cells[name]) end

-- Kinks and choices. Away from them (where random numbers are) it has a derivative.
add(pl.cell {
  name = "max where abs",
  states = { "h", "peak", "count" },
  gates = { "x", "y", { "bias", input = false, recurrent = false } },
  step = function(gate, state)
    local x, y = pl.sin(gate.x), pl.tanh(gate.y) - 0.125
    local up = pl.gt(x, y)
    local peak = pl.maximum(0.9 * state.peak, pl.abs(x - y))
    return {
      h = pl.where(up, x * y, pl.minimum(x, y / 2)) - 0.1 * peak + 0.2 * state.h,
      peak = peak,
      count = 0.5 * state.count + up * pl.sigmoid(gate.bias),
    }
  end,
}, { decides = true })

-- A decay per unit, kept inside (0, 1), a gain that is part of the cell, and a power.
add(pl.cell {
  name = "unit decay",
  states = { "h", "trace" },
  gates = { "x", { "g", recurrent = false, bias = false } },
  params = { "decay" },
  constants = { gain = 1.5 },
  step = function(gate, state, k)
    local a = pl.sigmoid(k.decay)
    local trace = a * state.trace + (1 - a) * gate.x / (1 + gate.g ^ 2) ^ 1.5
    return { h = pl.tanh(k.gain * trace) + pl.log1p(pl.exp(-gate.g ^ 2)) / 4, trace = trace }
  end,
})

-- No gate reads R: nothing is fed back but the state itself.
add(pl.cell {
  name = "no recurrence",
  states = { "h" },
  gates = { { "a", recurrent = false }, { "x", recurrent = false, bias = false } },
  step = function(gate, state) return { h = pl.sigmoid(gate.a) * state.h + pl.erf(gate.x) } end,
})

-- States that no gradient reaches, and one that never changes.
add(pl.cell {
  name = "stopped",
  states = { "h", "slow", "one" },
  gates = { "x" },
  step = function(gate, state)
    local slow = 0.5 * state.slow + pl.stop_gradient(gate.x * state.h)
    return { h = pl.tanh(gate.x + pl.stop_gradient(slow) * state.one), slow = slow, one = 1 }
  end,
}, { smooth = false })

-- A param whose value decides and enters nothing: its gradient is zero.
add(pl.cell {
  name = "threshold",
  states = { "h" },
  gates = { "x" },
  params = { "limit" },
  step = function(gate, state, k)
    return { h = pl.where(pl.gt(gate.x, k.limit), pl.tanh(gate.x), 0.5 * state.h) }
  end,
}, { smooth = false, decides = true })

-- Methods in place of functions, and initial values that are not 0.
add(pl.cell {
  name = "methods",
  states = { { "v", init = -0.25 }, { name = "c", init = 0.5 } },
  gates = { { "drive", bias = false }, "f" },
  constants = { leak = 0.1 },
  step = function(gate, state, k)
    local f = gate.f:sigmoid()
    local c = f * state.c + (1 - f) * gate.drive:softplus()
    return { v = (1 - k.leak) * state.v + k.leak * c:tanh(), c = c }
  end,
})

-- relu, of a product or a state that 16 bits round, and a memory that leaves the range of a type.
local decides = { indrnn = true, intersection_rnn = true, leaky_integrator = true, exponential_lstm = true }

for name, cell in pairs(pl.cells) do
  local there = false
  for _, entry in ipairs(zoo) do there = there or entry.cell == cell end
  if not there then add(cell, { decides = decides[name] }) end
end

return zoo
