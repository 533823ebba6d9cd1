-- UnICORNN: every unit is an undamped oscillator of its own with place y and velocity z, driven by the input.
-- T. K. Rusch and S. Mishra, "UnICORNN: A recurrent model for learning very long time dependencies", ICML 2021. dt is
-- the time step and alpha the pull back to 0; w, and c, by which a unit has its own time step, are learned.

local pl = require "perilune"

return pl.cell {
  name = "unicornn",
  states = { "y", "z" },
  gates = { { "u", recurrent = false } },
  params = { { "w", init = { 0, 1 } }, { "c", init = { -0.1, 0.1 } } },
  constants = { dt = 0.1, alpha = 1 },
  step = function(gate, state, k)
    local dt = k.dt * pl.sigmoid(k.c)
    local z = state.z - dt * (pl.tanh(k.w * state.y + gate.u) + k.alpha * state.y)
    return { y = state.y + dt * z, z = z }
  end,
}
