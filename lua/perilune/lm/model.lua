-- The model that experiments/lm.lua trains: a pl.nn.SequenceModel and, for text that is read on and on, the state that
-- is carried from step to step, which checkpoints hold, too.
local pl = require "perilune"
local states = require "perilune.nn.state"
local nn = pl.nn

local Language = nn.class "lm.Language"

--- lm.Language(option, vocabulary): option as experiments/lm.lua has them. With option.stateful the model keeps a state
-- for each of the `accumulate` parts of a batch.
function Language:init(option, vocabulary)
  self.net = nn.SequenceModel {
    mixer = option.model, vocabulary = vocabulary, width = option.width, layers = option.layers, heads = option.heads,
    hidden = option.hidden, dropout = option.dropout, tied = option.tied, backend = option.backend, bias = false,
    positions = "rotary", -- of a transformer: sinusoids would drown an embedding that starts small
    init = "language",
  }
  self.carries, self.parts = option.stateful, option.accumulate
  self:to(option.dtype):to(option.device)
end

--- Makes room for the states of `rows` sequences in each part of a batch; called once the parameters have their place.
function Language:carry(rows)
  local device = self.net.embedding.weight.device
  local _ <close> = pl.scope()
  local _, state = pl.no_grad(self.net.features, self.net, pl.ones { rows, 1, dtype = "int64", device = device }, true)
  self.states = {}
  for part = 1, self.parts do
    local count = 0
    self.states[part] = states.map(state, function(t)
      count = count + 1
      local name = ("state_%d_%d"):format(part, count)
      self[name] = nn.buffer(t:clone())
      return self[name]
    end)
  end
end

--- The mean loss of a batch { x =, y =, part = (of the batch, from 1 on), first = (whether sequences begin) }.
function Language:loss(batch)
  if not self.carries then return (self.net:loss(batch.x, batch.y)) end
  local own = self.states[batch.part]
  local state = batch.first or states.map(own, function(t) return t:clone() end)
  local loss, after = self.net:loss(batch.x, batch.y, { state = state })
  pl.no_grad(states.assign, own, after)
  return loss
end

--- The mean loss of all ids of a text [count], in `rows` sequences which are read in pieces of `length`. The state is
-- carried from piece to piece where it is in training. The last count - 1 modulo rows ids are left out.
function Language:loss_of(ids, rows, length)
  local each = (ids.shape[1] - 1) // rows
  if each == 0 then rows, each = 1, ids.shape[1] - 1 end
  local function in_rows(first) return ids:narrow(1, first, rows * each):reshape { rows, each } end
  local x, y, state, sum = in_rows(1), in_rows(2), self.carries or nil, 0
  for first = 1, each, length do
    local _ <close> = pl.scope()
    local count = math.min(length, each - first + 1)
    local loss
    loss, state = self.net:loss(x:narrow(2, first, count), y:narrow(2, first, count), { state = state })
    sum = sum + loss:item() * count
    state = state and states.map(state, function(t) return t:keep() end)
  end
  return sum / each
end

--- The parameters as groups for an optimiser: weight decay is for matrices, but for the embedding's (which is the
-- head's, too, where they are tied).
function Language:groups()
  local matrices, others = {}, {}
  for _, pair in ipairs(self.net:named_parameters()) do
    local name, parameter = pair[1], pair[2]
    local is_matrix = name:match "weight$" and #parameter.shape == 2 or name:match "recurrent$"
    table.insert(is_matrix and parameter ~= self.net.embedding.weight and matrices or others, parameter)
  end
  return { { params = matrices }, { params = others, weight_decay = 0 } }
end

--- Numbers that enter products: all but an embedding of its own and those of norms and biases, which hardly count.
function Language:product_parameters()
  return self.net:parameter_count() - (self.net.head and self.net.embedding.weight:numel() or 0)
end

return Language
