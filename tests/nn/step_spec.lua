-- Going through a sequence step by step with a carried state, as against all at once.
local pl = require "perilune"
local nn = pl.nn
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

local function model_of(options)
  local given = { vocabulary = 7, classes = 5, width = 8, layers = 2, heads = 2, state = 3 }
  for name, value in pairs(options) do given[name] = value end
  return nn.SequenceModel(given):to("float64")
end

-- The logits of model:step over pieces of the given lengths, put together.
local function stepped(model, ids, lengths)
  local pieces, start, state = {}, 1, nil
  for i, length in ipairs(lengths) do
    pieces[i], state = model:step(ids:narrow(2, start, length), state)
    start = start + length
  end
  if model.positions then assert.are.equal(ids.shape[2], state.position) end
  return pl.cat(pieces, 2)
end

describe("model:step", function()
  local names = {}
  for name in pairs(nn.mixers) do names[#names + 1] = name end
  table.sort(names)
  local kinds = { { mixer = pl.cells.janet }, { mixer = "transformer", positions = "rotary" } }
  for _, name in ipairs(names) do
    kinds[#kinds + 1] = { mixer = name }
    kinds[#kinds + 1] = { mixer = name, convolution = 4 }
  end

  for _, kind in ipairs(kinds) do
    local name = type(kind.mixer) == "string" and kind.mixer or "a cell"
    local also = (kind.positions and " rotary" or "") .. (kind.convolution and " and a convolution" or "")
    it(("gives what the call gives with %s%s"):format(name, also), function()
      local m, ids = model_of(kind), pl.randint(1, 7, { 3, 9 })
      local expected = m(ids):totable()
      near(expected, stepped(m, ids, { 1, 1, 1, 1, 1, 1, 1, 1, 1 }):totable(), 1e-10)
      near(expected, stepped(m, ids, { 2, 1, 5, 1 }):totable(), 1e-10)
      near(expected, stepped(m, ids, { 9 }):totable(), 1e-10)
    end)
  end

  it("answers at the last position where the call does", function()
    local m, ids = model_of { mixer = "gru", labels = "last" }, pl.randint(1, 7, { 2, 5 })
    local _, state = m:step(ids:narrow(2, 1, 2))
    near(m(ids):totable(), m:step(ids:narrow(2, 3, 3), state):totable(), 1e-10)
  end)

  it("carries gradients from step to step", function()
    local m, ids = model_of { mixer = "slstm", convolution = 3 }, pl.randint(1, 7, { 2, 6 })
    local gradients = {}
    for i, y in ipairs { m(ids), stepped(m, ids, { 2, 1, 3 }) } do
      m:zero_grad();
      (y * y):sum():backward()
      gradients[i] = {}
      for k, p in ipairs(m:parameters()) do gradients[i][k] = p.grad:totable() end
    end
    near(gradients[1], gradients[2], 1e-9)
  end)

  it("names what is wrong", function()
    local ids = pl.ones { 1, 2, dtype = "int64" }
    local own = model_of { mixer = function(width) return nn.Linear(width, width) end }
    assert.matches("nn.Block: step: the mixer nn.Linear has no method step%(x %[, state%]%)",
      message_of(own.step, own, ids))
    local m = model_of { mixer = "gru" }
    assert.matches("nn.SequenceModel: ids: expected 2 dimensions, got shape %[3%]",
      message_of(m.step, m, pl.ones { 3 }))
    assert.matches("nn.SequenceModel: state: expected a table, got 7", message_of(m.step, m, ids, 7))
    assert.matches("nn.SequenceModel: state: expected what an earlier step returned, got another table",
      message_of(m.step, m, ids, {}))
    local _, state = m:step(ids)
    assert.matches("nn.RNN: states: expected %[S=1, B=3, 1, N=2, D=4%], got %[1, 1, 1, 2, 4%]",
      message_of(m.step, m, pl.ones { 3, 2, dtype = "int64" }, state))
    local both = nn.RNN { input_size = 4, hidden_size = 4, bidirectional = true }
    assert.matches("nn.RNN: step: a bidirectional layer needs the whole sequence at once",
      message_of(both.step, both, pl.ones { 1, 2, 4 }))
    local attention = nn.Attention(4, 1, { causal = false })
    assert.matches("nn.Attention: step: without causal a position needs those after it",
      message_of(attention.step, attention, pl.ones { 1, 2, 4 }))
  end)
end)
