-- pl.nn: modules, layers and losses, one file per family.
local module = require "perilune.nn.module"

local nn = { class = module.class, parameter = module.parameter, buffer = module.buffer, is_module = module.is_module }
for _, family in ipairs {
  "linear", "norm", "container", "rnn", "torch", "positions", "attention", "convolution", "mlstm", "mamba", "block",
  "sequence_model", "language", "generate", "loss",
} do
  for name, layer in pairs(require("perilune.nn." .. family)) do nn[name] = layer end
end
nn.mixers = require("perilune.nn.mixers").mixers
return nn
