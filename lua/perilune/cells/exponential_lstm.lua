-- The LSTM with exponential gates and a normaliser n, without the stabiliser m that makes it the sLSTM of this folder:
-- the same h, until c and n overflow.
-- M. Beck et al., "xLSTM: Extended long short-term memory", NeurIPS 2024, the sLSTM before its stabilisation.

local pl = require "perilune"

return pl.cell {
  name = "exponential_lstm",
  states = { "h", "c", "n" },
  gates = { "i", "f", "z", "o" },
  step = function(gate, state)
    local i, f = pl.exp(gate.i), pl.exp(gate.f)
    local c = f * state.c + i * pl.tanh(gate.z)
    local n = f * state.n + i
    return { h = pl.sigmoid(gate.o) * c / n, c = c, n = n }
  end,
}
