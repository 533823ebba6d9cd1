-- The minimal gated unit: a GRU whose one gate both resets and updates.
-- G.-B. Zhou, J. Wu, C.-L. Zhang and Z.-H. Zhou, "Minimal gated unit for recurrent neural networks", International
-- Journal of Automation and Computing 13, 2016. There the gate comes before the product with R, R (f h'); here, as in
-- the GRU of this folder, after it, f (R h'), so that all products of a step are one.

local pl = require "perilune"

return pl.cell {
  name = "mgu",
  states = { "h" },
  gates = { "f", { "u", recurrent = false }, { "g", input = false, bias = false } },
  step = function(gate, state)
    local f = pl.sigmoid(gate.f)
    return { h = (1 - f) * state.h + f * pl.tanh(gate.u + f * gate.g) }
  end,
}
