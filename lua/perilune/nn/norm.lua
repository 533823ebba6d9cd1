-- Layers that normalise: LayerNorm, RMSNorm, GroupNorm.
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local initial = require "perilune.nn.initial"
local module = require "perilune.nn.module"

local LayerNorm = module.class("nn.LayerNorm")

local layer_options <const> = declared.options(LayerNorm, { eps = 1e-5, affine = true, bias = true })

--- nn.LayerNorm(size [, { eps = 1e-5, affine = true, bias = true }]): (x - mean) / sqrt(variance + eps) * weight + bias
-- over the last dimension, the variance without Bessel's correction (Ba et al. 2016).
function LayerNorm:init(size, options)
  local option = check.options("nn.LayerNorm", options, layer_options)
  self.size = check.integer("nn.LayerNorm", "size", size)
  self.eps = check.number("nn.LayerNorm", "eps", option.eps, 0)
  if option.affine then
    self.weight = initial.constant({ size }, 1)
    if option.bias then self.bias = initial.constant({ size }, 0) end
  end
end

function LayerNorm:forward(x)
  return pl.layer_norm(check.tensor("nn.LayerNorm", "x", x, nil, self.size), self.weight, self.bias, self.eps)
end

function LayerNorm:extra()
  return tostring(self.size)
end

local RMSNorm = module.class("nn.RMSNorm")

local rms_options <const> = declared.options(RMSNorm, { eps = 1e-6, affine = true })

--- nn.RMSNorm(size [, { eps = 1e-6, affine = true }]): x / sqrt(mean(x^2) + eps) * weight over the last dimension
-- (Zhang and Sennrich 2019).
function RMSNorm:init(size, options)
  local option = check.options("nn.RMSNorm", options, rms_options)
  self.size = check.integer("nn.RMSNorm", "size", size)
  self.eps = check.number("nn.RMSNorm", "eps", option.eps, 0)
  if option.affine then self.weight = initial.constant({ size }, 1) end
end

function RMSNorm:forward(x)
  return pl.rms_norm(check.tensor("nn.RMSNorm", "x", x, nil, self.size), self.weight, self.eps)
end

RMSNorm.extra = LayerNorm.extra

local GroupNorm = module.class("nn.GroupNorm")

local group_options <const> = declared.options(GroupNorm, { eps = 1e-5, affine = true, channels_last = false })

--- nn.GroupNorm(groups, channels [, { eps = 1e-5, affine = true, channels_last = false }]): each group of channels of a
-- row is normalised by its own mean and variance (Wu and He 2018). x is [B, channels, ..] and a group spans all that
-- follows; with channels_last x is [.., channels] and every position stands alone (one group per head of an RNN).
function GroupNorm:init(groups, channels, options)
  local option = check.options("nn.GroupNorm", options, group_options)
  self.groups = check.integer("nn.GroupNorm", "groups", groups)
  self.channels = check.integer("nn.GroupNorm", "channels", channels)
  if channels % groups ~= 0 then
    check.fail("nn.GroupNorm: channels: expected a multiple of the %d groups, got %d", groups, channels)
  end
  self.eps = check.number("nn.GroupNorm", "eps", option.eps, 0)
  self.channels_last = option.channels_last
  if option.affine then
    self.weight = initial.constant({ channels }, 1)
    self.bias = initial.constant({ channels }, 0)
  end
end

-- Sizes that let a vector of the channels broadcast over x.
local function channel_shape(self, x)
  local shape = {}
  for i = 1, #x.shape do shape[i] = 1 end
  shape[self.channels_last and #shape or 2] = self.channels
  return shape
end

function GroupNorm:forward(x)
  check.tensor("nn.GroupNorm", "x", x)
  local shape = x.shape
  local channels = shape[self.channels_last and #shape or 2]
  if channels ~= self.channels then
    check.fail("nn.GroupNorm: x: expected %d channels in dimension %d, got shape %s", self.channels,
      self.channels_last and #shape or 2, check.shape_text(shape))
  end
  local rows = self.channels_last and x:numel() // channels or shape[1]
  local grouped = x:reshape { rows, self.groups, x:numel() // (rows * self.groups) }
  local y = pl.layer_norm(grouped, nil, nil, self.eps):reshape(shape)
  if not self.weight then return y end
  local broadcast = channel_shape(self, x)
  return y * self.weight:reshape(broadcast) + self.bias:reshape(broadcast)
end

function GroupNorm:extra()
  return ("%d groups of %d"):format(self.groups, self.channels // self.groups)
end

return { LayerNorm = LayerNorm, RMSNorm = RMSNorm, GroupNorm = GroupNorm }
