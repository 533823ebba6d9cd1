-- Language models of nn.SequenceModel: their number of parameters, tied embeddings, dropout, start, and loss.
local pl = require "perilune"
local nn = pl.nn
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"
local new_folder = require "tests.new_folder"

local function model_of(options)
  local given = { mixer = "lstm", vocabulary = 11, width = 8, layers = 3, heads = 2, init = "language" }
  for name, value in pairs(options or {}) do given[name] = value end
  return nn.SequenceModel(given)
end

local function deviation(t) return math.sqrt(pl.square(t):mean():item()) end

describe("a language model", function()
  -- Parameters of a model with one and with two blocks tell those of a block and of the rest, as sums over products of
  -- sizes. The seeds' models are too large for a test; the sums are the same.
  local function count(mixer, heads, width, hidden, vocabulary, layers)
    local attention, norms = mixer == "transformer", 4 * width
    local mix = attention and 4 * width ^ 2 or 4 * width ^ 2 + 4 * width ^ 2 / heads + 4 * width
    return math.tointeger(layers * (mix + 3 * width * hidden + norms) + 2 * width * vocabulary + 2 * width)
  end

  for _, case in ipairs { { "lstm", 1, 190 }, { "lstm", 12, 164 }, { "transformer", 12, 162 } } do
    it(("has %d M parameters as %s with %d heads"):format(case[3], case[1], case[2]), function()
      for layers = 1, 2 do
        local m = nn.SequenceModel { mixer = case[1], heads = case[2], width = 24, hidden = 40, vocabulary = 13,
                                     layers = layers, bias = false }
        assert.are.equal(count(case[1], case[2], 24, 40, 13, layers), m:parameter_count())
      end
      assert.are.equal(case[3], count(case[1], case[2], 768, 2048, 50304, 12) // 1000000)
    end)
  end

  it("shares one matrix between embedding and head where tied", function()
    local m, ids = model_of { tied = true, bias = false }, pl.randint(1, 11, { 2, 5 })
    assert.is_nil(m.head)
    assert.are.equal(model_of({ bias = false }):parameter_count() - 11 * 8, m:parameter_count())
    near((m:features(ids)):matmul(m.embedding.weight:t()):totable(), m(ids):totable(), 1e-6)
    near(m(ids):totable(), m:step(ids):totable(), 1e-6)
    local folder = new_folder()
    pl.save(folder .. "/m.safetensors", m:state_dict())
    local held, same = pl.load(folder .. "/m.safetensors"), 0
    for _, tensor in pairs(held) do
      if tensor.shape[1] == 11 then same = same + 1 end
    end
    os.execute("rm -r " .. folder)
    assert.are.equal(1, same)
    local other = model_of { tied = true, bias = false }
    other:load_state_dict(held)
    near(m(ids):totable(), other(ids):totable(), 0)
    m:loss(ids, ids):backward()
    assert.is_true(deviation(m.embedding.weight.grad) > 0)
  end)

  it("drops in training only, and draws other elements each time", function()
    local m, ids = model_of { dropout = 0.5, init = "uniform" }, pl.randint(1, 11, { 2, 5 })
    local plain = model_of { init = "uniform" }
    plain:load_state_dict(m:state_dict())
    assert.is_false(pcall(near, m(ids):totable(), m(ids):totable(), 1e-3))
    m:eval()
    near(plain(ids):totable(), m(ids):totable(), 0)
    assert.are.equal(0.5, m.blocks[2].dropout.p)
  end)

  it("starts at ln V, with the published deviations and biases", function()
    local m, ids = model_of { width = 64, vocabulary = 50, layers = 2 }, pl.randint(1, 50, { 4, 16 })
    assert.near(math.log(50), m:loss(ids, ids):item(), 1e-5)
    assert.near(math.sqrt(2 / 320), deviation(m.embedding.weight), 0.004)
    assert.near(math.sqrt(2 / 320), deviation(m.blocks[1].mixer.layer1.weight), 0.004)
    assert.near(math.sqrt(2 / 320) / 2, deviation(m.blocks[1].mlp.down.weight), 0.002)
    local bias = m.blocks[2].mixer.layer1.bias
    near({ 0, 1, 0, 0 }, bias:mean(3):mean(2):totable(), 0)
    assert.is_true(deviation(m.blocks[2].mixer.layer1.recurrent) > 0)
    local tied = model_of { width = 64, vocabulary = 50, tied = true }
    assert.near(0.02, deviation(tied.embedding.weight), 0.002)
    assert.near(math.log(50), tied:loss(ids, pl.randint(1, 50, { 4, 16 })):item(), 0.1)
  end)

  it("starts an sLSTM without recurrent weights, and with forget biases from 5 to -7", function()
    local m = model_of { mixer = "slstm", width = 10, layers = 3 }
    for index, exponent in ipairs { 0.3, 0.95, 1.6 } do
      local layer, expected = m.blocks[index].mixer.layer1, {}
      for k = 0, 4 do expected[k + 1] = 5 - 12 * (k / 4) ^ exponent end
      near({ expected, expected }, layer.bias:select(1, 2):totable(), 1e-5)
      assert.are.equal(0, deviation(layer.recurrent))
      assert.are.equal(0, deviation(layer.bias:select(1, 1)))
    end
  end)

  for name in pairs(nn.mixers) do
    it("has the loss of its logits with " .. name .. ", in pieces, too", function()
      local m = model_of { mixer = name, init = "uniform" }:to "float64"
      nn.init_language(model_of { mixer = name })
      local ids, labels = pl.randint(1, 11, { 3, 8 }), pl.randint(1, 11, { 3, 8 })
      local expected = pl.cross_entropy(m(ids), labels):item()
      local whole, none = m:loss(ids, labels)
      assert.near(expected, whole:item(), 1e-12)
      assert.is_nil(none)
      local sum, state = 0, true
      for _, piece in ipairs { { 1, 3 }, { 4, 1 }, { 5, 4 } } do
        local loss
        loss, state = m:loss(ids:narrow(2, piece[1], piece[2]), labels:narrow(2, piece[1], piece[2]),
          { state = state, reduction = "sum" })
        sum = sum + loss:item()
      end
      assert.are.equal(m.positions and 8, state.position)
      assert.near(expected, sum / 24, 1e-12)
    end)
  end

  it("learns one batch by heart", function()
    pl.seed(2)
    local m, ids = model_of { width = 32, layers = 2, vocabulary = 20 }, pl.randint(1, 20, { 4, 17 })
    local x, y = ids:narrow(2, 1, 16), ids:narrow(2, 2, 16)
    local optimizer = pl.optim.AdamW(m:parameters(), { lr = 1e-2, weight_decay = 0 })
    local last
    for step = 1, 150 do
      local _ <close> = pl.scope()
      local loss = m:loss(x, y)
      optimizer:zero_grad()
      loss:backward()
      optimizer:step()
      last = loss:item()
      if step == 1 then assert.near(math.log(20), last, 1e-5) end
    end
    assert.is_true(last < 0.01, "loss " .. last)
  end)

  it("names what is wrong", function()
    assert.matches("tied: expected as many classes as symbols, got 3 and 11", message_of(model_of,
      { tied = true, classes = 3 }))
    assert.matches("init: expected one of uniform, language, got 'zero'", message_of(model_of, { init = "zero" }))
    assert.matches("dropout: expected a number of at least 0 and at most 1, got 2", message_of(model_of,
      { dropout = 2 }))
    assert.matches("loss: unknown option 'stat'", message_of(function()
      model_of():loss(pl.ones { 1, 1, dtype = "int64" }, pl.ones { 1, 1, dtype = "int64" }, { stat = {} })
    end))
    assert.matches("state: expected what an earlier step returned", message_of(function()
      model_of():features(pl.ones { 1, 1, dtype = "int64" }, { 1 })
    end))
  end)
end)
