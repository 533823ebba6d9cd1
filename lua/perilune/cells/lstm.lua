-- Long short-term memory with a forget gate.
-- S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997; the forget gate is from
-- F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to forget", Neural Computation 12, 2000.

local pl = require "perilune"

return pl.cell {
  name = "lstm",
  states = { "h", "c" },
  gates = { "i", "f", "z", "o" },
  step = function(gate, state)
    local c = pl.sigmoid(gate.f) * state.c + pl.sigmoid(gate.i) * pl.tanh(gate.z)
    return { h = pl.sigmoid(gate.o) * pl.tanh(c), c = c }
  end,
}
