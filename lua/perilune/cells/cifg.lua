-- The LSTM whose input and forget gates are coupled: it forgets as much as it writes.
-- K. Greff, R. K. Srivastava, J. Koutnik, B. R. Steunebrink and J. Schmidhuber, "LSTM: A search space odyssey", IEEE
-- Transactions on Neural Networks and Learning Systems 28, 2017: the variant CIFG, with the peepholes of their LSTM
-- (params = { pi = 0, po = 0 } in nn.RNN starts without).

local pl = require "perilune"

return pl.cell {
  name = "cifg",
  states = { "h", "c" },
  gates = { "i", "z", "o" },
  params = { "pi", "po" },
  step = function(gate, state, k)
    local i = pl.sigmoid(gate.i + k.pi * state.c)
    local c = i * pl.tanh(gate.z) + (1 - i) * state.c
    return { h = pl.sigmoid(gate.o + k.po * c) * pl.tanh(c), c = c }
  end,
}
