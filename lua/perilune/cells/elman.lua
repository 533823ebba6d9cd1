-- The simple recurrent network: h = tanh(W x + R h' + b).
-- J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990.

local pl = require "perilune"

return pl.cell {
  name = "elman",
  states = { "h" },
  gates = { "g" },
  step = function(gate) return { h = pl.tanh(gate.g) } end,
}
