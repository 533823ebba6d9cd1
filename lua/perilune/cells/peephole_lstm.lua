-- The LSTM with peepholes: its gates see the memory through one weight per unit, the output gate the new memory.
-- F. A. Gers, N. N. Schraudolph and J. Schmidhuber, "Learning precise timing with LSTM recurrent networks", Journal of
-- Machine Learning Research 3, 2002; the equations are those of A. Graves, "Generating sequences with recurrent neural
-- networks", arXiv:1308.0850, 2013.

local pl = require "perilune"

return pl.cell {
  name = "peephole_lstm",
  states = { "h", "c" },
  gates = { "i", "f", "z", "o" },
  params = { "pi", "pf", "po" },
  step = function(gate, state, k)
    local i = pl.sigmoid(gate.i + k.pi * state.c)
    local f = pl.sigmoid(gate.f + k.pf * state.c)
    local c = f * state.c + i * pl.tanh(gate.z)
    return { h = pl.sigmoid(gate.o + k.po * c) * pl.tanh(c), c = c }
  end,
}
