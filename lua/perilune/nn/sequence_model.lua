-- nn.SequenceModel: a whole model of sequences of symbols, alike for all ways of mixing positions.
--
--   local model = nn.SequenceModel{ mixer = "lstm", width = 64, layers = 2, heads = 4, vocabulary = 8, classes = 5 }
--   local logits = model(ids)                      -- ids [B,T] in 1..vocabulary -> [B,T,classes]
--   local task = pl.task.s5{ inputs = "ids" }
--   nn.SequenceModel{ mixer = "gru", vocabulary = task.vocabulary, classes = task.classes }
--
-- It is an embedding, `layers` residual blocks (nn.Block: norm, mixer, gated MLP), a last norm and a linear head. mixer
-- is a name in nn.mixers (transformer mamba mamba_negative mlstm elman gru lstm slstm), a cell made by pl.cell, or a
-- function(width, heads, options) that returns a module.
local declared = require "perilune.code.declared"
local block = require "perilune.nn.block"
local check = require "perilune.nn.check"
local container = require "perilune.nn.container"
local linear = require "perilune.nn.linear"
local mixers = require("perilune.nn.mixers").mixers
local module = require "perilune.nn.module"
local norm = require "perilune.nn.norm"
local positions = require "perilune.nn.positions"
local rnn = require "perilune.nn.rnn"

local who <const> = "nn.SequenceModel"
local SequenceModel = module.class(who)

local known <const> = declared.options(SequenceModel, {
  mixer = check.none, vocabulary = check.none, classes = check.none, width = 64, layers = 2, heads = 1,
  labels = "every", hidden = check.none, convolution = check.none, positions = "sinusoidal", state = 16,
})

-- function(width, heads, option) -> module
local function mixer_of(mixer)
  if type(mixer) == "function" then return mixer end
  if require("perilune.cell").is_cell(mixer) then
    return function(width, heads)
      return rnn.RNN { input_size = width, hidden_size = width, heads = heads, cell = mixer }
    end
  end
  local names = {}
  for name in pairs(mixers) do names[#names + 1] = name end
  table.sort(names)
  return mixers[check.choice(who, "mixer", mixer, names)]
end

--- nn.SequenceModel{ mixer =, vocabulary =, classes = vocabulary, width = 64, layers = 2, heads = 1 (of attention,
-- mLSTM and recurrent cells; they divide the width), labels = "every" | "last" (position), hidden = (units of the MLPs,
-- as nn.Block has them), convolution = (width of the blocks' causal convolution, none by default), positions =
-- "sinusoidal" | "rotary" (of the transformer; the others need none), state = 16 (of Mamba, per feature) }.
--
--   local logits = model(ids [, lengths])
--
-- ids [B,T] in 1..vocabulary -> [B,T,classes], or with labels = "last" [B,classes] at the position that `lengths` (an
-- integer tensor [B]) gives for each row, by default the last.
function SequenceModel:init(options)
  local option = check.options(who, options, known)
  option.classes = option.classes or option.vocabulary
  for _, name in ipairs { "vocabulary", "classes", "width", "layers", "heads" } do
    self[name] = check.integer(who, name, option[name])
  end
  check.choice(who, "labels", option.labels, { "every", "last" })
  check.choice(who, "positions", option.positions, { "sinusoidal", "rotary" })
  self.last_only, self.mixer = option.labels == "last", option.mixer
  local new_mixer, blocks = mixer_of(option.mixer), {}
  self.embedding = linear.Embedding(self.vocabulary, self.width)
  if option.mixer == "transformer" and option.positions == "sinusoidal" then
    self.positions = positions.SinusoidalPositions(self.width)
  end
  for i = 1, self.layers do
    blocks[i] = block.Block(self.width, new_mixer(self.width, self.heads, option),
      { hidden = option.hidden, convolution = option.convolution })
  end
  self.blocks = container.List(blocks)
  self.norm = norm.LayerNorm(self.width)
  self.head = linear.Linear(self.width, self.classes)
end

-- x [B,T,W] at one position of each row: [B,W].
local function at_lengths(x, lengths)
  local batch, steps, width = table.unpack(x.shape)
  if lengths == nil then return x:select(2, steps) end
  check.tensor(who, "lengths", lengths, 1, batch)
  local index = lengths:to(x.device):reshape({ batch, 1, 1 }):expand { batch, 1, width }
  return x:gather(2, index):select(2, 1)
end

function SequenceModel:forward(ids, lengths)
  local x = self.embedding(check.tensor(who, "ids", ids, 2))
  if self.positions then x = self.positions(x) end
  for i = 1, self.layers do x = self.blocks[i](x) end
  if self.last_only then x = at_lengths(x, lengths) end
  return self.head(self.norm(x))
end

--- model:step(ids [, state]) -> logits, state: as model(ids), where the positions of ids [B,T], often one, follow those
-- that led to `state`, as an earlier step with as many rows returned it. The work does not grow with the positions that
-- went before, but with the transformer, which keeps the keys and values of all.
function SequenceModel:step(ids, state)
  local x = self.embedding(check.tensor(who, "ids", ids, 2))
  state = check.kind(who, "state", state or { position = 0, blocks = {} }, "table")
  if not state.blocks then check.fail("%s: state: expected what an earlier step returned, got another table", who) end
  if self.positions then x = self.positions(x, state.position) end
  local next_state = { position = state.position + ids.shape[2], blocks = {} }
  for i = 1, self.layers do x, next_state.blocks[i] = self.blocks[i]:step(x, state.blocks[i]) end
  if self.last_only then x = at_lengths(x) end
  return self.head(self.norm(x)), next_state
end

function SequenceModel:extra()
  local mixer = type(self.mixer) == "string" and self.mixer or "own mixer"
  return ("%s, %d symbols -> %d classes"):format(mixer, self.vocabulary, self.classes)
end

return { SequenceModel = SequenceModel }
