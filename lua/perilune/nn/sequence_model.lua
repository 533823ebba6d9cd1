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
local language = require "perilune.nn.language"
local loss = require "perilune.nn.loss"
local mixers = require "perilune.nn.mixers"
local module = require "perilune.nn.module"
local norm = require "perilune.nn.norm"
local positions = require "perilune.nn.positions"

local who <const> = "nn.SequenceModel"
local SequenceModel = module.class(who)

local known <const> = declared.options(SequenceModel, {
  mixer = check.none, vocabulary = check.none, classes = check.none, width = 64, layers = 2, heads = 1,
  labels = "every", hidden = check.none, convolution = check.none, positions = "sinusoidal", state = 16,
  backend = check.none, bias = true, dropout = 0, tied = false, init = "uniform",
})

local loss_options <const> = {
  state = check.none, ignore_index = check.none, label_smoothing = 0, reduction = "mean",
}

-- function(width, heads, option) -> module
local function mixer_of(mixer)
  if type(mixer) == "function" then return mixer end
  if require("perilune.cell").is_cell(mixer) then return mixers.recurrent(mixer) end
  local names = {}
  for name in pairs(mixers.mixers) do names[#names + 1] = name end
  table.sort(names)
  return mixers.mixers[check.choice(who, "mixer", mixer, names)]
end

--- nn.SequenceModel{ mixer =, vocabulary =, classes = vocabulary, width = 64, layers = 2, heads = 1 (of attention,
-- mLSTM and recurrent cells; they divide the width), labels = "every" | "last" (position), hidden = (units of the MLPs,
-- as nn.Block has them), convolution = (width of the blocks' causal convolution, none by default), positions =
-- "sinusoidal" | "rotary" (of the transformer; the others need none), state = 16 (of Mamba, per feature), backend =
-- (of recurrent cells, as in pl.rnn), bias = true (of the head and of attention), dropout = 0 (on the embedding, and as
-- nn.Block has it), tied = false (whether the head's matrix is the embedding's; it has no bias then, and there is no
-- `head`), init = "uniform" (each layer's own) | "language" (nn.init_language) }.
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
  check.choice(who, "init", option.init, { "uniform", "language" })
  check.number(who, "dropout", option.dropout, 0, 1)
  self.last_only, self.mixer = option.labels == "last", option.mixer
  local new_mixer, blocks = mixer_of(option.mixer), {}
  self.embedding = linear.Embedding(self.vocabulary, self.width)
  if option.mixer == "transformer" and option.positions == "sinusoidal" then
    self.positions = positions.SinusoidalPositions(self.width)
  end
  self.dropout = container.Dropout(option.dropout)
  for i = 1, self.layers do
    blocks[i] = block.Block(self.width, new_mixer(self.width, self.heads, option),
      { hidden = option.hidden, convolution = option.convolution, dropout = option.dropout })
  end
  self.blocks = container.List(blocks)
  self.norm = norm.LayerNorm(self.width)
  if not option.tied then
    self.head = linear.Linear(self.width, self.classes, { bias = option.bias })
  elseif self.classes ~= self.vocabulary then
    check.fail("%s: tied: expected as many classes as symbols, got %d and %d", who, self.classes, self.vocabulary)
  end
  if option.init == "language" then language.init_language(self) end
end

-- x [B,T,W] at one position of each row: [B,W].
local function at_lengths(x, lengths)
  local batch, steps, width = table.unpack(x.shape)
  if lengths == nil then return x:select(2, steps) end
  check.tensor(who, "lengths", lengths, 1, batch)
  local index = lengths:to(x.device):reshape({ batch, 1, 1 }):expand { batch, 1, width }
  return x:gather(2, index):select(2, 1)
end

-- What the first block reads, where `before` positions went before those of ids.
local function embedded(self, ids, before)
  local x = self.embedding(check.tensor(who, "ids", ids, 2))
  if self.positions then x = self.positions(x, before) end
  return self.dropout(x)
end

--- model:features(ids [, state]) -> x [B,T,width], state: what the head turns into logits. Without a state the
-- sequences are whole, and none is returned. With one, true or what an earlier call returned for as many rows, the
-- positions of ids follow those that led to it.
function SequenceModel:features(ids, state)
  if state == true then state = { position = self.positions and 0, blocks = {} } end
  local x, next_state
  if state then
    if not check.kind(who, "state", state, "table").blocks then
      check.fail("%s: state: expected what an earlier step returned, got another table", who)
    end
    x, next_state = embedded(self, ids, state.position), { blocks = {} }
    if self.positions then next_state.position = state.position + ids.shape[2] end
    for i = 1, self.layers do x, next_state.blocks[i] = self.blocks[i]:step(x, state.blocks[i]) end
  else
    x = embedded(self, ids)
    for i = 1, self.layers do x = self.blocks[i](x) end
  end
  return self.norm(x), next_state
end

-- Features -> logits.
local function read_out(self, x)
  if self.head then return self.head(x) end
  return x:matmul(self.embedding.weight:t())
end

function SequenceModel:forward(ids, lengths)
  local x = self:features(ids)
  return read_out(self, self.last_only and at_lengths(x, lengths) or x)
end

--- model:step(ids [, state]) -> logits, state: as model(ids), where the positions of ids [B,T], often one, follow those
-- that led to `state`, as an earlier step with as many rows returned it. The work does not grow with the positions that
-- went before, but with the transformer, which keeps the keys and values of all.
function SequenceModel:step(ids, state)
  local x, next_state = self:features(ids, state or true)
  return read_out(self, self.last_only and at_lengths(x) or x), next_state
end

--- model:loss_of(x, labels [, { ignore_index =, label_smoothing = 0, reduction = "mean" | "sum" }]): the cross-entropy
-- of the labels [..], given features x [.., width]; the logits of all positions are never there at once.
function SequenceModel:loss_of(x, labels, options)
  local given = { bias = self.head and self.head.bias }
  for name, value in pairs(options or {}) do given[name] = value end
  return loss.linear_cross_entropy(x, self.head and self.head.weight or self.embedding.weight, labels, given)
end

--- model:loss(ids, labels [, { state =, and as loss_of }]) -> loss, state: the cross-entropy of the labels [B,T], one
-- for each position. `state` is as in `features`.
function SequenceModel:loss(ids, labels, options)
  local option = check.options(who .. ":loss", options, loss_options)
  local x, state = self:features(ids, option.state)
  option.state = nil
  return self:loss_of(x, labels, option), state
end
declared.options(SequenceModel.loss, loss_options)

function SequenceModel:extra()
  local mixer = type(self.mixer) == "string" and self.mixer or "own mixer"
  return ("%s, %d symbols -> %d classes"):format(mixer, self.vocabulary, self.classes)
end

return { SequenceModel = SequenceModel }
