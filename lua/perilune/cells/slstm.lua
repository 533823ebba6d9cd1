-- The sLSTM: an LSTM with exponential gates, a normaliser n, and a stabiliser m that keeps the exponents small.
-- M. Beck et al., "xLSTM: Extended long short-term memory", NeurIPS 2024.
-- m cancels in c / n, so it carries no gradient. n = 0 marks a state that nothing was written to yet: m starts at i,
-- and l may lie so far above it that exp(l - m) times the empty c would not be a number: hence the bound of 80.
-- From there on n is at least 1; the bound is for states that come from elsewhere. Where n is 1, as after every first
-- step, the bound takes nothing of its gradient (a maximum would take half), else what cancels would have a gradient.

local pl = require "perilune"

return pl.cell {
  name = "slstm",
  states = { "h", "c", "n", "m" },
  gates = { "i", "f", "z", "o" },
  step = function(gate, state)
    local l = pl.logsigmoid(gate.f) + state.m
    local m = pl.stop_gradient(pl.where(pl.eq(state.n, 0), gate.i, pl.maximum(gate.i, l)))
    local a, e = pl.exp(gate.i - m), pl.exp(l - pl.stop_gradient(pl.maximum(m, l - 80)))
    local c = e * state.c + a * pl.tanh(gate.z)
    local n = e * state.n + a
    n = pl.where(pl.lt(n, 1), 1, n)
    return { h = pl.sigmoid(gate.o) * c / n, c = c, n = n, m = m }
  end,
}
