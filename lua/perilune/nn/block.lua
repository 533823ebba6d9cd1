-- nn.Block: the residual block into which all ways of mixing positions go.
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local container = require "perilune.nn.container"
local convolution = require "perilune.nn.convolution"
local linear = require "perilune.nn.linear"
local module = require "perilune.nn.module"
local norm = require "perilune.nn.norm"

local Block = module.class("nn.Block")

local block_options <const> = declared.options(Block, {
  hidden = check.none, convolution = check.none, dropout = 0,
})

-- Two thirds of four times the width, so that a gated MLP has the parameters of a plain one (Shazeer 2020).
local function hidden_of(size) return (8 * size // 3 + 7) // 8 * 8 end

--- nn.Block(size, mixer [, { hidden =, convolution =, dropout = 0 }]): x [B,T,size] -> [B,T,size], pre-norm, residual:
--
--   x = x + mixer(norm1(x))    or x + mixer(silu(convolution(norm1(x))))
--   x = x + mlp(norm2(x))
--
-- mixer is a module that maps [B,T,size] to the same, such as nn.RNN, nn.Attention, nn.Mamba or nn.MLSTM. The MLP is
-- gated, with silu, of `hidden` units (8/3 size, rounded up to a multiple of 8); `convolution`, off by default, is the
-- width of an nn.CausalConvolution; `dropout` falls on what mixer and MLP add to x.
function Block:init(size, mixer, options)
  local option = check.options("nn.Block", options, block_options)
  self.size = check.integer("nn.Block", "size", size)
  if not module.is_module(mixer) then check.fail("nn.Block: mixer: expected a module, got %s", check.shown(mixer)) end
  self.norm1 = norm.LayerNorm(size)
  if option.convolution then self.convolution = convolution.CausalConvolution(size, option.convolution) end
  self.mixer = mixer
  self.norm2 = norm.LayerNorm(size)
  local hidden = option.hidden or hidden_of(size)
  self.mlp = linear.MLP(size, hidden, size, { gated = true, activation = "silu", bias = false })
  self.dropout = container.Dropout(option.dropout)
end

-- x and what the mixer made of it -> what the block gives.
local function finish(self, x, mixed)
  x = x + self.dropout(mixed)
  return x + self.dropout(self.mlp(self.norm2(x)))
end

function Block:forward(x)
  local h = self.norm1(x)
  if self.convolution then h = pl.silu(self.convolution(h)) end
  return finish(self, x, (self.mixer(h)))
end

--- block:step(x [, state]) -> y, state: as the call, where the positions of x [B,T,size] follow those that led to
-- `state`. The mixer needs a method of the same form, step(x [, state]) -> y, state.
function Block:step(x, state)
  if not self.mixer.step then
    check.fail("nn.Block: step: the mixer %s has no method step(x [, state])", getmetatable(self.mixer).__name)
  end
  state = state or {}
  local h, next_state = self.norm1(x), {}
  if self.convolution then
    h, next_state.before = self.convolution:step(h, state.before)
    h = pl.silu(h)
  end
  h, next_state.mixer = self.mixer:step(h, state.mixer)
  return finish(self, x, h), next_state
end

return { Block = Block }
