-- The LSTM with exponential input and forget gates and a normaliser n, without a stabiliser: c and n may overflow.
-- M. Beck et al., "xLSTM: Extended long short-term memory", NeurIPS 2024, the sLSTM before its stabilisation. Of the
-- forget gates that the paper allows this one has exp, the sLSTM of this folder the sigmoid.

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
