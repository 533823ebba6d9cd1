-- The independently recurrent network: a unit sees no other's state, only its own, through one weight u.
-- S. Li, W. Li, C. Cook, C. Zhu and Y. Gao, "Independently recurrent neural network (IndRNN): Building a longer and
-- deeper RNN", CVPR 2018. Over T steps a |u| above 1 grows as its T-th power; the paper keeps it below that bound.

local pl = require "perilune"

return pl.cell {
  name = "indrnn",
  states = { "h" },
  gates = { { "x", recurrent = false } },
  params = { { "u", init = { 0, 1 } } },
  step = function(gate, state, k) return { h = pl.relu(gate.x + k.u * state.h) } end,
}
