-- nn.CausalConvolution: a convolution over time that sees no later position, one filter per feature.
local pl = require "perilune"
local check = require "perilune.nn.check"
local initial = require "perilune.nn.initial"
local module = require "perilune.nn.module"

local CausalConvolution = module.class("nn.CausalConvolution")

--- nn.CausalConvolution(size, width): x [B,T,size] -> y of the same shape, y[t] = bias + the sum over j = 1..width of
-- weight[j] * x[t - width + j] for each feature by itself; what lies before the first position is 0. weight is
-- [width, size], its last row that of the present; both start uniform within +-1/sqrt(width).
function CausalConvolution:init(size, width)
  self.size = check.integer("nn.CausalConvolution", "size", size)
  self.width = check.integer("nn.CausalConvolution", "width", width)
  local bound = 1 / math.sqrt(width)
  self.weight = initial.uniform({ width, size }, bound)
  self.bias = initial.uniform({ size }, bound)
end

function CausalConvolution:forward(x)
  return (self:step(x))
end

--- convolution:step(x [, before]) -> y, before: as the call, where the width - 1 positions `before` [B,width-1,size],
-- as an earlier step returned them, come before x.
function CausalConvolution:step(x, before)
  local batch, steps = table.unpack(check.tensor("nn.CausalConvolution", "x", x, 3, self.size).shape)
  before = before or pl.zeros { batch, self.width - 1, self.size, dtype = x.dtype, device = x.device }
  local padded, y = pl.cat({ before, x }, 2), self.bias
  for j = 1, self.width do y = y + padded:narrow(2, j, steps) * self.weight:select(1, j) end
  return y, padded:narrow(2, steps + 1, self.width - 1)
end

function CausalConvolution:extra()
  return ("%d, width %d"):format(self.size, self.width)
end

return { CausalConvolution = CausalConvolution }
