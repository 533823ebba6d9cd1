-- Layers that multiply: Linear, Embedding, MLP.
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local initial = require "perilune.nn.initial"
local module = require "perilune.nn.module"

local layers = {}

local Linear = module.class("nn.Linear")

local linear_options <const> = declared.options(Linear, { bias = true })

--- nn.Linear(inputs, outputs [, { bias = true }]): x [.., inputs] -> x W^T + b [.., outputs]; weight is
-- [outputs, inputs]. Both start uniform within +-1/sqrt(inputs).
function Linear:init(inputs, outputs, options)
  local option = check.options("nn.Linear", options, linear_options)
  self.inputs = check.integer("nn.Linear", "inputs", inputs)
  self.outputs = check.integer("nn.Linear", "outputs", outputs)
  local bound = 1 / math.sqrt(inputs)
  self.weight = initial.uniform({ outputs, inputs }, bound)
  if option.bias then self.bias = initial.uniform({ outputs }, bound) end
end

function Linear:forward(x)
  check.tensor("nn.Linear", "x", x, nil, self.inputs)
  local y = x:matmul(self.weight:t())
  return self.bias and y + self.bias or y
end

function Linear:extra()
  return ("%d -> %d%s"):format(self.inputs, self.outputs, self.bias and "" or ", no bias")
end

local Embedding = module.class("nn.Embedding")

--- nn.Embedding(count, dim): ids (integers 1..count, any shape) -> [.., dim]; weight [count, dim] starts normal.
function Embedding:init(count, dim, options)
  check.options("nn.Embedding", options, {})
  self.count, self.dim = check.integer("nn.Embedding", "count", count), check.integer("nn.Embedding", "dim", dim)
  self.weight = initial.normal { count, dim }
end

function Embedding:forward(ids)
  return pl.embedding(self.weight, check.tensor("nn.Embedding", "ids", ids))
end

function Embedding:extra()
  return ("%d x %d"):format(self.count, self.dim)
end

local MLP = module.class("nn.MLP")
local activations <const> = { "gelu", "relu", "silu", "tanh", "sigmoid", "softplus" }

local mlp_options <const> = declared.options(MLP, { activation = "gelu", bias = true, gated = false })

--- nn.MLP(inputs, hidden, outputs [, options]): linear layers with an activation between them; `hidden` is a size or a
-- list of sizes. Options: activation ("gelu"; "relu" "silu" "tanh" "sigmoid" "softplus"), bias (true), gated (false):
-- down(activation(gate(x)) * up(x)), one hidden size.
function MLP:init(inputs, hidden, outputs, options)
  local option = check.options("nn.MLP", options, mlp_options)
  self.activation = check.choice("nn.MLP", "activation", option.activation, activations)
  local sizes = type(hidden) == "table" and hidden or { hidden }
  for _, size in ipairs(sizes) do check.integer("nn.MLP", "hidden", size) end
  local bias = { bias = option.bias }
  if option.gated then
    if #sizes ~= 1 then check.fail("nn.MLP: hidden: expected 1 size when gated, got %d", #sizes) end
    self.hidden, self.gate_up = sizes[1], layers.Linear(inputs, 2 * sizes[1], bias) -- one product in place of two
    self.down = layers.Linear(sizes[1], outputs, bias)
    return
  end
  local before = inputs
  for i, size in ipairs(sizes) do
    self[i] = layers.Linear(before, size, bias)
    before = size
  end
  self[#sizes + 1] = layers.Linear(before, outputs, bias)
end

function MLP:forward(x)
  local activation = pl[self.activation]
  if self.gate_up then
    local gate, up = table.unpack(self.gate_up(x):split(self.hidden, -1))
    return self.down(self.activation == "silu" and pl.swiglu(gate, up) or activation(gate) * up)
  end
  for i = 1, #self - 1 do x = activation(self[i](x)) end
  return self[#self](x)
end

function MLP:extra()
  return self.activation .. (self.gate_up and ", gated" or "")
end

layers.Linear, layers.Embedding, layers.MLP = Linear, Embedding, MLP
return layers
