-- The update of an echo state network with leaky units; there R and the input weights stay as they were drawn.
-- H. Jaeger, M. Lukosevicius, D. Popovici and U. Siewert, "Optimization and applications of echo state networks with
-- leaky-integrator neurons", Neural Networks 20, 2007, without feedback from the output; a is the leaking rate, gamma
-- the time step over the time constant.

local pl = require "perilune"

return pl.cell {
  name = "leaky_esn",
  states = { "x" },
  gates = { { "u", bias = false } },
  constants = { a = 1, gamma = 0.3 },
  step = function(gate, state, k) return { x = (1 - k.a * k.gamma) * state.x + k.gamma * pl.tanh(gate.u) } end,
}
