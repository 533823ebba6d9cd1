-- The gated recurrent unit, its reset gate applied after the product with R, so that all products of a step are one.
-- K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014. The recurrent part of the
-- candidate, g, keeps a bias of its own (torch.nn.GRU's b_hn), n has the input part and the other one (b_in).

local pl = require "perilune"

return pl.cell {
  name = "gru",
  states = { "h" },
  gates = { { "g", input = false }, "r", "z", { "n", recurrent = false } },
  step = function(gate, state)
    local z = pl.sigmoid(gate.z)
    local n = pl.tanh(gate.n + pl.sigmoid(gate.r) * gate.g)
    return { h = z * state.h + (1 - z) * n }
  end,
}
