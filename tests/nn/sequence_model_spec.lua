-- nn.Block, nn.mixers and nn.SequenceModel: what they are made of, and that every mixer fits.
local pl = require "perilune"
local nn = pl.nn
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

local names = {}
for name in pairs(nn.mixers) do names[#names + 1] = name end
table.sort(names)

local integer <const> = { dtype = "int64" }

local function model_of(options)
  local given = { mixer = "lstm", vocabulary = 7, classes = 5, width = 8, layers = 2, heads = 2, state = 3 }
  for name, value in pairs(options) do given[name] = value end
  return nn.SequenceModel(given)
end

describe("nn.Block", function()
  it("adds the mixer's result and the MLP's, each of a norm", function()
    local mixer = nn.Linear(6, 6)
    local m = nn.Block(6, mixer):to("float64")
    local x = pl.randn { 2, 3, 6, dtype = "float64" }
    local h = x + mixer(m.norm1(x))
    near((h + m.mlp(m.norm2(h))):totable(), m(x):totable(), 1e-12)
    assert.are.equal(16, m.mlp.hidden)
    assert.is_not_nil(tostring(m):find "mixer: nn.Linear")
  end)

  it("takes a convolution before the mixer, and a size of the MLP", function()
    local m = nn.Block(6, nn.RNN { input_size = 6, hidden_size = 6, cell = "gru" }, { convolution = 4, hidden = 10 })
    m:to("float64")
    local x = pl.randn { 2, 5, 6, dtype = "float64" }
    local h = x + (m.mixer(pl.silu(m.convolution(m.norm1(x)))))
    near((h + m.mlp(m.norm2(h))):totable(), m(x):totable(), 1e-12)
    assert.are.equal(10, m.mlp.hidden)
    assert.are.equal(4, m.convolution.width)
  end)

  it("names what is wrong", function()
    assert.matches("nn.Block: mixer: expected a module, got 'lstm'", message_of(nn.Block, 6, "lstm"))
    assert.matches("unknown option 'conv'; expected convolution, dropout, hidden",
      message_of(nn.Block, 6, nn.Linear(6, 6), { conv = 4 }))
  end)
end)

describe("nn.SequenceModel", function()
  it("knows the mixers by name", function()
    assert.are.same({ "elman", "gru", "lstm", "mamba", "mamba_negative", "mlstm", "slstm", "transformer" }, names)
    for _, name in ipairs { "elman", "gru", "lstm", "slstm" } do
      assert.are.equal(name, model_of({ mixer = name }).blocks[2].mixer.layer1.cell.name)
    end
    assert.is_true(model_of({ mixer = "mamba_negative" }).blocks[1].mixer.negative)
    assert.is_false(model_of({ mixer = "mamba" }).blocks[1].mixer.negative)
  end)

  for _, name in ipairs(names) do
    it("reads symbols from the left with " .. name, function()
      local m = model_of { mixer = name, convolution = 4 }
      local ids = pl.randint(1, 7, { 3, 9 })
      local y = m(ids)
      assert.are.same({ 3, 9, 5 }, y.shape)
      local changed = pl.cat({ ids:narrow(2, 1, 5), pl.remainder(ids:narrow(2, 6, 4), 7) + 1 }, 2)
      local z = m(changed)
      near(y:narrow(2, 1, 5):totable(), z:narrow(2, 1, 5):totable(), 1e-5)
      assert.is_false(pcall(near, y:select(2, 6):totable(), z:select(2, 6):totable(), 1e-5))
      pl.cross_entropy(y, pl.randint(1, 5, { 3, 9 })):backward()
      for _, p in ipairs(m:named_parameters()) do assert(p[2].grad, p[1] .. " has a gradient") end
    end)

    it("remembers the first symbol with " .. name, function()
      local m = model_of { mixer = name }
      local y = m(pl.tensor({ { 1, 3, 3, 3 }, { 2, 3, 3, 3 } }, integer)):select(2, 4)
      assert.is_false(pcall(near, y:select(1, 1):totable(), y:select(1, 2):totable(), 1e-7))
    end)

    it("has the same weights and losses for the same seed with " .. name, function()
      local losses = {}
      for i = 1, 2 do
        pl.seed(4)
        local m = model_of { mixer = name }
        local optimizer = pl.optim.Adam(m:parameters(), { lr = 1e-2 })
        local task = pl.task.cycle_navigation { size = 8, max = 12, inputs = "ids" }
        losses[i] = {}
        for step = 1, 3 do
          local batch = task:batch(step)
          local loss = pl.cross_entropy(m(batch.x), batch.y)
          optimizer:zero_grad()
          loss:backward()
          optimizer:step()
          losses[i][step] = loss:item()
        end
      end
      assert.are.same(losses[1], losses[2])
    end)
  end

  it("is embedding, blocks, norm and head", function()
    local m = model_of { mixer = "gru" }
    local ids = pl.randint(1, 7, { 2, 4 })
    near(m.head(m.norm(m.blocks[2](m.blocks[1](m.embedding(ids))))):totable(), m(ids):totable(), 0)
    local t = model_of { mixer = "transformer" }
    near(t.head(t.norm(t.blocks[2](t.blocks[1](t.positions(t.embedding(ids)))))):totable(), t(ids):totable(), 0)
    local r = model_of { mixer = "transformer", positions = "rotary" }
    assert.is_nil(r.positions)
    assert.is_true(r.blocks[1].mixer.rotary)
    assert.are.equal(7, model_of({ classes = 7 }).head.outputs)
    assert.are.equal(7, nn.SequenceModel({ mixer = "elman", vocabulary = 7 }).classes)
    assert.matches("^nn.SequenceModel%(gru, 7 symbols %-> 5 classes%) {", tostring(m))
  end)

  it("answers at the last position, or at each row's length", function()
    local every, last = model_of {}, model_of { labels = "last" }
    last:load_state_dict(every:state_dict())
    local ids, lengths = pl.randint(1, 7, { 3, 6 }), { 6, 1, 4 }
    local y = every(ids):totable()
    near({ y[1][6], y[2][6], y[3][6] }, last(ids):totable(), 1e-6)
    near({ y[1][6], y[2][1], y[3][4] }, last(ids, pl.tensor(lengths, integer)):totable(), 1e-6)
  end)

  it("takes a cell or a function as the mixer", function()
    local cell = pl.cells.janet
    assert.are.equal("janet", model_of({ mixer = cell }).blocks[1].mixer.layer1.cell.name)
    local m = model_of { mixer = function(width, heads, option)
      assert.are.same({ 8, 2, 7 }, { width, heads, option.vocabulary })
      return nn.Linear(width, width)
    end }
    assert.are.same({ 1, 2, 5 }, m(pl.ones { 1, 2, dtype = "int64" }).shape)
  end)

  it("learns a task and is measured by it", function()
    pl.seed(1)
    local task = pl.task.parity { size = 32, min = 1, max = 6, inputs = "ids", labels = "last", ragged = true }
    local m = model_of { vocabulary = 2, classes = 2, width = 16, heads = 1, layers = 1, labels = "last" }
    local optimizer = pl.optim.Adam(m:parameters(), { lr = 1e-2 })
    for step = 1, 200 do
      local _ <close> = pl.scope()
      local batch = task:batch(step)
      local loss = pl.cross_entropy(m(batch.x, batch.lengths), batch.y)
      optimizer:zero_grad()
      loss:backward()
      optimizer:step()
    end
    assert.are.equal(1, (task:accuracy(m, 5, 200)))
  end)

  it("names what is wrong", function()
    assert.matches("nn.SequenceModel: mixer: expected one of elman, gru, .*, transformer, got 'rnn'",
      message_of(model_of, { mixer = "rnn" }))
    assert.matches("vocabulary: expected an integer of at least 1, got nothing",
      message_of(nn.SequenceModel, { mixer = "gru" }))
    assert.matches("unknown option 'size'", message_of(model_of, { size = 3 }))
    assert.matches("multiple of the 3 heads, got 8", message_of(model_of, { heads = 3 }))
    assert.matches("labels: expected one of every, last, got 'first'", message_of(model_of, { labels = "first" }))
    assert.matches("positions: expected one of sinusoidal, rotary, got 'none'",
      message_of(model_of, { positions = "none" }))
    assert.matches("ids: expected 2 dimensions, got shape %[3%]", message_of(model_of {}, pl.ones { 3 }))
    assert.matches("lengths: expected a last dimension of 2, got shape %[3%]",
      message_of(model_of { labels = "last" }, pl.ones { 2, 4, dtype = "int64" }, pl.ones { 3, dtype = "int64" }))
  end)
end)
