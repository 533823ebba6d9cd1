-- The quasi-recurrent network, its fo-pooling: the gates are convolutions over time, which the caller makes of the
-- input (a window of one step is the projection inside nn.RNN), and only the pooling goes step by step.
-- J. Bradbury, S. Merity, C. Xiong and R. Socher, "Quasi-recurrent neural networks", ICLR 2017.

local pl = require "perilune"

local function convolved(name) return { name, recurrent = false, bias = false } end

return pl.cell {
  name = "qrnn",
  states = { "h", "c" },
  gates = { convolved "z", convolved "f", convolved "o" },
  step = function(gate, state)
    local f = pl.sigmoid(gate.f)
    local c = f * state.c + (1 - f) * pl.tanh(gate.z)
    return { h = pl.sigmoid(gate.o) * c, c = c }
  end,
}
