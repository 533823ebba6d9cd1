-- The intersection RNN (+RNN): one gate for the way through time, to h, and one for the way through depth, to y.
-- J. Collins, J. Sohl-Dickstein and D. Sussillo, "Capacity and trainability in recurrent neural networks", ICLR 2017.
-- The gate x is the layer's input as it is. h is fed back and what nn.RNN returns; y, which the paper gives to the next
-- layer, is the second of pl.rnn's states.

local pl = require "perilune"

return pl.cell {
  name = "intersection_rnn",
  states = { "h", "y" },
  gates = { { "x", recurrent = false, bias = false }, "y", "h", "gy", "gh" },
  step = function(gate, state)
    local gy, gh = pl.sigmoid(gate.gy), pl.sigmoid(gate.gh)
    return {
      y = gy * gate.x + (1 - gy) * pl.relu(gate.y),
      h = gh * state.h + (1 - gh) * pl.tanh(gate.h),
    }
  end,
}
