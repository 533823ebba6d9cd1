-- Losses: cross_entropy, linear_cross_entropy, mse_loss.
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"

local loss = {}

--- cross_entropy(logits [.., C], labels [..] in 1..C [, { ignore_index =, reduction = "mean", label_smoothing = 0 }]).
loss.cross_entropy = pl.cross_entropy

--- linear_cross_entropy(x [.., W], weight [C, W], labels [..] [, options]): that of nn.Linear's outputs, without
-- holding them all.
loss.linear_cross_entropy = pl.linear_cross_entropy

local reductions <const> = {
  mean = function(x) return x:mean() end,
  sum = function(x) return x:sum() end,
  none = function(x) return x end,
}

local mse_options <const> = { reduction = "mean" }

--- mse_loss(x, target [, options]) -> tensor: (x - target)^2, averaged, summed or as it is:
-- { reduction = "mean" | "sum" | "none" }.
function loss.mse_loss(x, target, options)
  local option = check.options("mse_loss", options, mse_options)
  check.choice("mse_loss", "reduction", option.reduction, { "mean", "sum", "none" })
  return reductions[option.reduction](pl.square(check.tensor("mse_loss", "x", x) - target))
end
declared.options(loss.mse_loss, mse_options)

return loss
