-- The LSTM with multiplicative integration: a gate is a W x U h' + b1 U h' + b2 W x + b, unit by unit, in place of the
-- sum W x + U h' + b.
-- Y. Wu, S. Zhang, Y. Zhang, Y. Bengio and R. Salakhutdinov, "On multiplicative integration with recurrent neural
-- networks", NIPS 2016. The gates xi, hi and bi are the three parts of the gate i, alpha_i, beta1_i and beta2_i its
-- weights.

local pl = require "perilune"

local gates, params = {}, {}
for _, name in ipairs { "i", "f", "z", "o" } do
  gates[#gates + 1] = { "x" .. name, recurrent = false, bias = false }
  gates[#gates + 1] = { "h" .. name, input = false, bias = false }
  gates[#gates + 1] = { "b" .. name, input = false, recurrent = false }
  params[#params + 1] = { "alpha_" .. name, init = 1 }
  params[#params + 1] = { "beta1_" .. name, init = 0.5 }
  params[#params + 1] = { "beta2_" .. name, init = 0.5 }
end

return pl.cell {
  name = "mi_lstm",
  states = { "h", "c" },
  gates = gates,
  params = params,
  step = function(gate, state, k)
    local function integrated(name)
      local x, h = gate["x" .. name], gate["h" .. name]
      return k["alpha_" .. name] * x * h + k["beta1_" .. name] * h + k["beta2_" .. name] * x + gate["b" .. name]
    end
    local i, f, o = pl.sigmoid(integrated "i"), pl.sigmoid(integrated "f"), pl.sigmoid(integrated "o")
    local c = f * state.c + i * pl.tanh(integrated "z")
    return { h = o * pl.tanh(c), c = c }
  end,
}
