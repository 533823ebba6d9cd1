-- Products in a narrower type: pl.autocast around operations, recurrences and the training loop, on every device.
local pl = require "perilune"
local core = require "perilune.core"
local check = require "tests.tensor.check"

local function distance(expected, got)
  return ((expected - got):norm() / expected:norm()):item()
end

local limit <const> = { bfloat16 = 6e-3, float16 = 8e-4 }

describe("pl.autocast", function()
  after_each(function() assert.is_false(core.autocast()) end)

  for _, device in ipairs(pl.devices()) do
    it("rounds the operands of products and nothing else on " .. device.name, function()
      pl.seed(4)
      local a = pl.randn({ 2, 50, 60, device = device.name }):requires_grad()
      local b = pl.randn({ 60, 30, device = device.name }):requires_grad()
      local weights = pl.randn { 2, 50, 30, device = device.name }
      local function run()
        a.grad, b.grad = nil, nil
        local y = a:matmul(b);
        (y * weights):sum():backward()
        return { y:detach(), a.grad, b.grad }
      end
      local exact = run()
      for dtype, most in pairs(limit) do
        local got = pl.autocast(dtype, run)
        for i, t in ipairs(got) do
          assert.equal("float32", t.dtype)
          local d = distance(exact[i], t)
          assert.is_true(d > most / 100 and d < most, ("%s, %d: relative distance %.3g"):format(dtype, i, d))
        end
        -- What is rounded by hand is the same.
        local by_hand = a:detach():to(dtype):float():matmul(b:detach():to(dtype):float())
        assert.is_true(distance(by_hand, got[1]) < 1e-6)
      end
      assert.equal(0, distance(exact[1], run()[1]))
      local wide = a:detach():double()
      assert.equal(0, distance(wide:matmul(b:double()), pl.autocast("bfloat16", wide.matmul, wide, b:double())))
    end)
  end

  it("is the default of a recurrence's products", function()
    pl.seed(5)
    local Wx, R, b = pl.randn { 3, 7, 4, 2, 8 }, pl.randn { 4, 2, 8, 8 } * 0.3, pl.randn { 4, 2, 8 }
    local h = pl.rnn(Wx, R, b, { cell = "lstm", dtype = "bfloat16" })
    check.same(h, pl.autocast("bfloat16", pl.rnn, Wx, R, b, { cell = "lstm" }), 0, "states")
    assert.is_true(distance(pl.rnn(Wx, R, b, { cell = "lstm" }), h) > 1e-5)
  end)

  it("ends with its function, also by an error, and nests", function()
    assert.same({ 1, 2 }, { pl.autocast("bfloat16", function() return 1, 2 end) })
    assert.is_false(pcall(pl.autocast, "float16", error, "stop"))
    assert.is_false(core.autocast())
    pl.autocast("bfloat16", function()
      pl.autocast("float16", function() assert.equal("float16", core.autocast()) end)
      assert.equal("bfloat16", core.autocast())
    end)
    assert.matches("expected bfloat16 or float16, got float64", check.message(pl.autocast, "float64", print))
  end)

  it("serves the training loop, whose parameters stay float32", function()
    pl.seed(6)
    local model = pl.nn.Linear(8, 4)
    local seen
    local options = {
      model = model, optimizer = pl.optim.AdamW(model:parameters(), { lr = 1e-2 }), steps = 3, progress = false,
      batch = function() return pl.randn { 5, 8 } end,
      loss = function(m, x)
        seen = core.autocast()
        return pl.square(m(x)):mean()
      end,
      autocast = "bfloat16",
    }
    pl.train.loop(options)
    assert.equal("bfloat16", seen)
    for _, p in ipairs(model:parameters()) do assert.equal("float32", p.dtype) end
    options.autocast = "int8"
    assert.matches('autocast: expected "bfloat16" or "float16", got int8', check.message(pl.train.loop, options))
  end)
end)
