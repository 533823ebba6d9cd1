-- The update gate RNN: one gate chooses between the old state and an Elman step.
-- J. Collins, J. Sohl-Dickstein and D. Sussillo, "Capacity and trainability in recurrent neural networks", ICLR 2017.

local pl = require "perilune"

return pl.cell {
  name = "ugrnn",
  states = { "h" },
  gates = { "c", "g" },
  step = function(gate, state)
    local g = pl.sigmoid(gate.g)
    return { h = g * state.h + (1 - g) * pl.tanh(gate.c) }
  end,
}
