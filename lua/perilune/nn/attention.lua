-- nn.Attention: multi-head self-attention (Vaswani et al. 2017, "Attention is all you need").
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local heads = require "perilune.nn.heads"
local linear = require "perilune.nn.linear"
local module = require "perilune.nn.module"
local positions = require "perilune.nn.positions"

local Attention = module.class("nn.Attention")

local attention_options <const> = declared.options(Attention, { causal = true, rotary = false, bias = true })

--- nn.Attention(size, heads [, { causal = true, rotary = false, bias = true }]): x [B,T,size] -> [B,T,size]. With
-- queries, keys and values q, k, v of D = size / heads features per head, made of x by `qkv` (weight [3 size, size]), a
-- head gives softmax(q k^T / sqrt(D)) v, and `out` mixes the heads. causal: a position sees itself and those before it.
-- rotary: queries and keys are turned by nn.rotary; otherwise the layer knows nothing of positions.
function Attention:init(size, count, options)
  local option = check.options("nn.Attention", options, attention_options)
  self.size, self.heads, self.dim = size, count, heads.units("nn.Attention", size, count)
  self.causal, self.rotary = option.causal, option.rotary
  if self.rotary and self.dim % 2 ~= 0 then
    check.fail("nn.Attention: rotary: expected heads of an even number of features, got %d", self.dim)
  end
  self.qkv = linear.Linear(size, 3 * size, { bias = option.bias })
  self.out = linear.Linear(size, size, { bias = option.bias })
end

-- The call, where the positions of x follow those whose keys and values `past` holds.
local function attend(self, x, past)
  check.tensor("nn.Attention", "x", x, 3, self.size)
  local before = past and past.k.shape[3] or 0
  local q, k, v = table.unpack(self.qkv(x):split(self.size, 3))
  q, k, v = heads.split(q, self.heads), heads.split(k, self.heads), heads.split(v, self.heads)
  if self.rotary then q, k = positions.rotary(q, before), positions.rotary(k, before) end
  if past then k, v = pl.cat({ past.k, k }, 3), pl.cat({ past.v, v }, 3) end
  local seen = pl.scaled_dot_product_attention(q, k, v, { causal = self.causal })
  return self.out(heads.join(seen)), { k = k, v = v }
end

function Attention:forward(x)
  return (attend(self, x))
end

--- attention:step(x [, state]) -> y, state: as the call, where the positions of x follow those that led to `state`, the
-- keys and values { k =, v = } [B,H,positions,D] of all of them; its work grows with their number. Causal only.
function Attention:step(x, state)
  if not self.causal then check.fail "nn.Attention: step: without causal a position needs those after it" end
  return attend(self, x, state)
end

function Attention:extra()
  return ("%d, %d heads%s"):format(self.size, self.heads, self.causal and "" or ", not causal")
end

return { Attention = Attention }
