-- The chaos-free network: without input its state goes to zero, whatever the weights.
-- T. Laurent and J. von Brecht, "A recurrent neural network without chaos", ICLR 2017.

local pl = require "perilune"

return pl.cell {
  name = "cfn",
  states = { "h" },
  gates = { "theta", "eta", { "x", recurrent = false, bias = false } },
  step = function(gate, state)
    return { h = pl.sigmoid(gate.theta) * pl.tanh(state.h) + pl.sigmoid(gate.eta) * pl.tanh(gate.x) }
  end,
}
