-- The simple recurrent unit: no product with R, all products of a layer are those of its input.
-- T. Lei, Y. Zhang, S. I. Wang, H. Dai and Y. Artzi, "Simple recurrent units for highly parallelizable recurrence",
-- EMNLP 2018. The gate x is the input on its way past the layer, u its projection W x.

local pl = require "perilune"

return pl.cell {
  name = "sru",
  states = { "h", "c" },
  gates = {
    { "f", recurrent = false }, { "r", recurrent = false },
    { "u", recurrent = false, bias = false }, { "x", recurrent = false, bias = false },
  },
  params = { "vf", "vr" },
  step = function(gate, state, k)
    local f = pl.sigmoid(gate.f + k.vf * state.c)
    local r = pl.sigmoid(gate.r + k.vr * state.c)
    local c = f * state.c + (1 - f) * gate.u
    return { h = r * c + (1 - r) * gate.x, c = c }
  end,
}
