-- The leaky integrator, or rate network: currents x decay with a time constant and integrate what the rates r, which
-- are fed back, and the input drive.
-- H. F. Song, G. R. Yang and X.-J. Wang, "Training excitatory-inhibitory recurrent neural networks for cognitive tasks:
-- A simple and flexible framework", PLoS Computational Biology 12, 2016, without noise; alpha is the time step over the
-- time constant.

local pl = require "perilune"

return pl.cell {
  name = "leaky_integrator",
  states = { "r", "x" },
  gates = { { "u", bias = false } },
  constants = { alpha = 0.2 },
  step = function(gate, state, k)
    local x = (1 - k.alpha) * state.x + k.alpha * gate.u
    return { r = pl.relu(x), x = x }
  end,
}
