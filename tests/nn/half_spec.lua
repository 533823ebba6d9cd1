-- Models whose parameters, activations and gradients have 16 bits: every mixer near the float32 model of the same
-- numbers, forward and backward, and trained.
local pl = require "perilune"

local names = {}
for name in pairs(pl.nn.mixers) do names[#names + 1] = name end
table.sort(names)

-- Distance of two tensors over the size of the first.
local function distance(expected, got)
  expected, got = expected:detach():double(), got:detach():double()
  return (expected - got):norm():item() / expected:norm():item()
end

local function new_model(mixer)
  return pl.nn.SequenceModel { mixer = mixer, vocabulary = 11, classes = 7, width = 16, layers = 2, heads = 2,
    convolution = 3 }
end

local nn = pl.nn

-- Layers that no mixer above has, or has in another form: how to make one, the shape of x, and what follows x.
local layers <const> = {
  { "rotary attention", function() return nn.Attention(16, 2, { rotary = true }) end, { 3, 9, 16 } },
  { "bidirectional RNN", function()
    return nn.RNN { input_size = 6, hidden_size = 8, bidirectional = true, layers = 2 }
  end, { 3, 7, 6 }, nil, { 7, 3, 5 } },
  { "GroupNorm", function() return nn.GroupNorm(2, 8) end, { 3, 8, 5 } },
  { "RMSNorm", function() return nn.RMSNorm(8) end, { 3, 5, 8 } },
  { "MLP", function() return nn.MLP(8, { 16, 12 }, 4) end, { 3, 5, 8 } },
  { "gated MLP", function() return nn.MLP(8, 16, 4, { gated = true, activation = "relu" }) end, { 3, 5, 8 } },
  { "Linear", function() return nn.Linear(8, 16) end, { 3, 5, 8 } },
}

describe("a layer in 16 bits", function()
  for _, row in ipairs(layers) do
    local name, make, shape = table.unpack(row)
    it(name .. " gives results and gradients near those in float32", function()
      pl.seed(3)
      local half = make():to("bfloat16")
      local single = make()
      single:load_state_dict(half:state_dict())
      local x, found = pl.randn(shape):to("bfloat16"), {}
      for i, model in ipairs { single, half } do
        local leaf = x:to(i == 1 and "float32" or "bfloat16"):clone():requires_grad()
        local y = model(leaf, table.unpack(row, 4, 5))
        local weights = found[1] and found[1].weights or pl.randn_like(y:detach());
        (y:float() * weights):sum():backward()
        found[i] = { y = y, x = leaf.grad, weights = weights }
        for _, p in ipairs(model:named_parameters()) do found[i][p[1]] = p[2].grad end
      end
      assert.are.equal("bfloat16", found[2].y.dtype)
      for what, expected in pairs(found[1]) do
        local d = distance(expected, found[2][what])
        assert.is_true(d < 0.015, ("%s: the relative distance is %g"):format(what, d))
      end
    end)
  end
end)

describe("a model in 16 bits", function()
  for _, mixer in ipairs(names) do
    it(mixer .. " gives results and gradients near those in float32", function()
      pl.seed(8)
      local ids, labels = pl.randint(1, 11, { 4, 12 }), pl.randint(1, 7, { 4, 12 })
      local single = new_model(mixer)
      local half = new_model(mixer)
      half:load_state_dict(single:state_dict())
      half:to("bfloat16")
      single:load_state_dict(half:state_dict()) -- the numbers that bfloat16 has
      local results = {}
      for i, model in ipairs { single, half } do
        local logits = model(ids)
        pl.nn.cross_entropy(logits, labels):backward()
        results[i] = logits
      end
      assert.are.equal("bfloat16", results[2].dtype)
      assert.is_true(distance(results[1], results[2]) < 0.03)
      for i, pair in ipairs(half:named_parameters()) do
        local name, p = table.unpack(pair)
        assert.are.equal("bfloat16", p.grad.dtype)
        -- mLSTM divides by numbers near zero, which makes much of a rounding.
        local bound = mixer == "mlstm" and 0.2 or 0.05
        local d = distance(single:named_parameters()[i][2].grad, p.grad)
        assert.is_true(d < bound, ("%s: the gradient's relative distance is %g"):format(name, d))
      end
    end)

    it(mixer .. " trains", function()
      pl.seed(9)
      local ids, labels = pl.randint(1, 11, { 4, 12 }), pl.randint(1, 7, { 4, 12 })
      local model = new_model(mixer):to("bfloat16")
      local history = pl.train.loop {
        model = model, optimizer = pl.optim.AdamW(model:parameters(), { lr = 1e-2 }), steps = 25, clip = 1,
        progress = false,
        batch = function() return ids end,
        loss = function(m, batch) return pl.nn.cross_entropy(m(batch), labels) end,
      }
      local first, last = history.steps[1].loss, history.steps[25].loss
      assert.is_true(last < first / 2, ("the loss went from %g to %g"):format(first, last))
    end)
  end

  it("keeps the type of integers", function()
    local module = pl.nn.class("Counting")
    function module:init()
      self.count, self.scale = pl.nn.buffer(pl.tensor({ 300 }, { dtype = "int64" })), pl.nn.buffer(pl.ones { 1 })
    end
    local counting = module():to("bfloat16")
    assert.are.equal("int64", counting.count.dtype)
    assert.are.equal(300, counting.count:select(1, 1):item())
    assert.are.equal("bfloat16", counting.scale.dtype)
  end)
end)
