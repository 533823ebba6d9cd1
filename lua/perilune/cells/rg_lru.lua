-- The real-gated linear recurrent unit: a decay per unit, gated by the input, and no product with R.
-- S. De et al., "Griffin: Mixing gated linear recurrences with local attention for efficient language models",
-- arXiv:2402.19427, 2024. The decay is sigmoid(lambda) to the power c r; lambda starts so that it lies between 0.9 and
-- 0.999 where r is 1.

local pl = require "perilune"

return pl.cell {
  name = "rg_lru",
  states = { "h" },
  gates = { { "r", recurrent = false }, { "i", recurrent = false }, { "x", recurrent = false, bias = false } },
  params = { { "lambda", init = { 4.323, 8.987 } } },
  constants = { c = 8 },
  step = function(gate, state, k)
    local log_a = k.c * pl.sigmoid(gate.r) * pl.logsigmoid(k.lambda)
    return { h = pl.exp(log_a) * state.h + pl.sqrt(-pl.expm1(2 * log_a)) * (pl.sigmoid(gate.i) * gate.x) }
  end,
}
