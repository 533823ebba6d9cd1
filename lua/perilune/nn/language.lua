-- nn.init_language: what the parameters of a language model start with, as published for xLSTM and GPT-2.
local pl = require "perilune"
local check = require "perilune.nn.check"

local language = {}

local function normal(weight, deviation)
  local _ <close> = pl.scope()
  weight:copy_(pl.randn_like(weight) * deviation)
end

-- Biases of a recurrent layer: 0, but for a forget gate's, which are `start`, one per unit of a head.
local function start_biases(layer, start)
  local slot = 0 -- on the gate axis of the bias, which holds the gates that have one
  layer.bias:fill_(0)
  for i, gate in ipairs(layer.cell.gates) do
    local has_bias = layer.cell.parts[i].bias
    if has_bias then slot = slot + 1 end
    if has_bias and gate == "f" then layer.bias:select(1, slot):copy_(start:expand { layer.heads, layer.dim }) end
  end
end

-- Forget biases of an sLSTM's head, from 5 for its first unit down to -7 for the last, the more units near 5 the deeper
-- the block: `depth` is 0 for the first block and 1 for the last (Beck et al. 2024, as their code has it).
local function slstm_biases(dim, depth)
  local k = dim > 1 and pl.linspace(0, 1, dim) or pl.zeros { 1 }
  return 5 - 12 * k ^ (0.3 + 1.3 * depth)
end

local function start_recurrence(layer, depth)
  local slstm = layer.cell.name == "slstm"
  if slstm then layer.recurrent:fill_(0) end
  if layer.bias then start_biases(layer, slstm and slstm_biases(layer.dim, depth) or pl.ones { layer.dim }) end
end

-- The mixers whose matrices are started here; others have forms of their own.
local known <const> = { ["nn.RNN"] = true, ["nn.Attention"] = true }

local function start_block(block, index, layers)
  local depth = layers > 1 and (index - 1) / (layers - 1) or 0
  local function start(module)
    local kind = getmetatable(module).__name
    if kind ~= "nn.Linear" and kind ~= "nn.RNN.Layer" then return end
    normal(module.weight, math.sqrt(2 / (5 * block.size)))
    if kind == "nn.RNN.Layer" then
      start_recurrence(module, depth)
    elseif module.bias then
      module.bias:fill_(0)
    end
  end
  block.mlp:apply(start)
  block.mlp.down.weight:mul_(1 / math.sqrt(2 * layers))
  if not known[getmetatable(block.mixer).__name] then return end
  block.mixer:apply(start)
  if block.mixer.out then block.mixer.out.weight:mul_(1 / math.sqrt(2 * layers)) end
end

--- nn.init_language(model): starts an nn.SequenceModel as language models start. Matrices that are multiplied with
-- features are normal with deviation sqrt(2 / (5 width)) (Nguyen and Salazar 2019), those whose result is added to the
-- residual stream smaller by sqrt(2 layers) (GPT-2), the embedding has deviation 0.02 where the head shares it, else
-- that of matrices, and an own head is 0, so that the first loss is ln(classes). Biases are 0, but those of forget
-- gates: 1, and in an sLSTM, whose recurrent matrix is 0, 5 - 12 k^(0.3 + 1.3 depth) for the units k = 0 .. 1 of a head
-- and depth = 0 .. 1 of the block (Beck et al. 2024, xLSTM). Recurrent matrices of other cells, convolutions, and
-- mixers other than nn.RNN and nn.Attention stay as they are.
function language.init_language(model)
  check.kind("nn.init_language", "model", model, "table")
  local _ <close> = pl.scope()
  pl.no_grad(function()
    normal(model.embedding.weight, model.head and math.sqrt(2 / (5 * model.width)) or 0.02)
    for i = 1, model.layers do start_block(model.blocks[i], i, model.layers) end
    if model.head then
      for _, parameter in ipairs(model.head:parameters()) do parameter:fill_(0) end
    end
  end)
  return model
end

return language
