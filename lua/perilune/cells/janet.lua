-- An LSTM with nothing but its forget gate.
-- J. van der Westhuizen and J. Lasenby, "The unreasonable effectiveness of the forget gate", arXiv:1804.04849, 2018.
-- beta makes it write a little more than it forgets.

local pl = require "perilune"

return pl.cell {
  name = "janet",
  states = { "h" },
  gates = { "f", "z" },
  constants = { beta = 1 },
  step = function(gate, state, k)
    return { h = pl.sigmoid(gate.f) * state.h + (1 - pl.sigmoid(gate.f - k.beta)) * pl.tanh(gate.z) }
  end,
}
