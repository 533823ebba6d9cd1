-- nn.linear_cross_entropy against nn.cross_entropy of nn.Linear: values and gradients in all types, and the memory that
-- it is there to save. On every device that is here.
local pl = require "perilune"
local check = require "tests.tensor.check"
local nn = pl.nn

local function distance(expected, got)
  expected, got = expected:detach():to("cpu", "float64"), got:detach():to("cpu", "float64")
  assert.are.same(expected.shape, got.shape)
  return (expected - got):norm():item() / expected:norm():item()
end

-- Leaves x [6,10,W], weight [C,W] and bias [C], and labels, of which some are 0.
local function setting(device, dtype, width, classes)
  pl.seed(6)
  local form = { dtype = dtype, device = device }
  local function leaf(...) return pl.nn.parameter(pl.randn({ ... }):to(form.device, form.dtype)) end
  return { leaf(6, 10, width), leaf(classes, width), leaf(classes) },
    pl.randint(0, classes, { 6, 10 }, { device = device })
end

-- The loss and the gradients of x, weight and bias.
local function results(leaves, loss)
  for _, p in ipairs(leaves) do p.grad = nil end;
  (loss * 3):backward()
  local list = { loss }
  for i, p in ipairs(leaves) do list[i + 1] = p.grad end
  return list
end

local cases <const> = {
  { "float64", 1e-12 }, { "float32", 2e-6 }, { "bfloat16", 2e-2 }, { "float16", 4e-3 },
  { "float32", 2e-2, "bfloat16" }, { "float32", 4e-3, "float16" },
}

for _, found in ipairs(pl.devices()) do
  local device = found.name
  describe("linear_cross_entropy on " .. device, function()
    for _, case in ipairs(cases) do
      local dtype, limit, autocast = table.unpack(case)
      it(("is that of the layer's outputs in %s%s"):format(dtype, autocast and " under autocast " .. autocast or ""),
        function()
          local leaves, labels = setting(device, dtype, 24, 41)
          local x, weight, bias = table.unpack(leaves)
          for _, with in ipairs { {}, { reduction = "sum" }, { label_smoothing = 0.2 } } do
            with.ignore_index = 0
            local function both()
              local whole = nn.cross_entropy(x:matmul(weight:t()) + bias, labels, with)
              local option = { bias = bias, chunk = 7 }
              for name, value in pairs(with) do option[name] = value end
              return whole, nn.linear_cross_entropy(x, weight, labels, option)
            end
            local whole, chunked
            if autocast then
              whole, chunked = pl.autocast(autocast, both)
            else
              whole, chunked = both()
            end
            assert.are.equal(whole.dtype, chunked.dtype)
            local expected, got = results(leaves, whole), results(leaves, chunked)
            for i, what in ipairs { "loss", "x", "weight", "bias" } do
              assert.are.equal(expected[i].dtype, got[i].dtype)
              local d = distance(expected[i], got[i])
              assert.is_true(d <= limit, ("%s: the relative distance is %g"):format(what, d))
            end
          end
        end)
    end

    it("never holds all logits, and without gradients not those of x and weight either", function()
      local rows <const>, width <const>, classes <const>, chunk <const> = 4096, 8, 1000, 64
      local form = { device = device }
      local x, weight = pl.randn({ rows, width }, form):requires_grad(), pl.randn({ classes, width }, form)
      local labels = pl.randint(1, classes, { rows }, form)
      local function peak_of(wanted)
        weight:requires_grad(wanted)
        x:requires_grad(wanted)
        pl.reset_peak_memory()
        local before = pl.memory()[device].live
        local _ <close> = pl.scope()
        local loss = nn.linear_cross_entropy(x, weight, labels, { chunk = chunk })
        if wanted then loss:backward() end
        return pl.memory()[device].peak - before
      end
      peak_of(false) -- what devices keep from their first products on is there then
      local logits, small = chunk * classes * 4, (rows * width + classes * width) * 4
      assert.is_true(peak_of(false) < logits * 1.5 + rows * 8)
      assert.is_true(peak_of(true) < logits * 1.5 + 3 * small + rows * 8)
      assert.is_true(peak_of(true) < rows * classes * 4 / 20)
    end)

    it("takes its chunks by itself where there are more rows than 256 MiB have room for", function()
      local classes <const> = 1 << 19 -- of float32: 128 rows in a chunk
      local x, labels = pl.randn({ 200, 1 }, { device = device }), pl.randint(1, classes, { 200 }, { device = device })
      local weight = pl.rand({ classes, 1 }, { device = device })
      pl.reset_peak_memory()
      local before = pl.memory()[device].live
      local got = nn.linear_cross_entropy(x, weight, labels)
      assert.is_true(pl.memory()[device].peak - before < 257 << 20)
      local shift = (x:narrow(1, 1, 3):matmul(weight:t())):logsumexp(2)
      local own = (x * pl.embedding(weight, labels)):sum(2)
      local some = nn.linear_cross_entropy(x:narrow(1, 1, 3), weight, labels:narrow(1, 1, 3))
      assert.is_true(distance((shift - own:narrow(1, 1, 3)):mean(), some) < 1e-5)
      assert.is_true(math.abs(got:item() - math.log(classes)) < 0.5)
    end)

    it("computes only the gradients that somebody wants, and adds to a weight that is tied", function()
      local leaves, labels = setting(device, "float64", 5, 12)
      local x, weight = leaves[1], leaves[2]
      local option = { ignore_index = 0, chunk = 16 }
      nn.linear_cross_entropy(x:detach(), weight, labels, option):backward()
      assert.is_nil(x.grad)
      local of_weight = weight.grad
      weight.grad = nil
      nn.linear_cross_entropy(x, weight:detach(), labels, option):backward()
      assert.is_nil(weight.grad)
      local ids = pl.randint(1, 12, { 6, 10 }, { device = device })
      local function tied(loss)
        weight.grad = nil
        loss(pl.embedding(weight, ids)):backward()
        return weight.grad
      end
      local whole = tied(function(h) return nn.cross_entropy(h:matmul(weight:t()), labels, { ignore_index = 0 }) end)
      local chunked = tied(function(h) return nn.linear_cross_entropy(h, weight, labels, option) end)
      assert.is_true(distance(whole, chunked) < 1e-12)
      assert.is_true(distance(whole, of_weight) > 1e-3)
    end)
  end)
end

describe("linear_cross_entropy", function()
  it("names what is wrong", function()
    local x, weight, labels = pl.zeros { 3, 4 }, pl.zeros { 5, 4 }, pl.tensor({ 1, 2, 5 }, { dtype = "int64" })
    local function message(...) return check.message(nn.linear_cross_entropy, ...) end
    assert.matches("linear_cross_entropy: x: expected a tensor, got number", message(3, weight, labels))
    assert.matches("weight: expected %[classes, 4%] for an x of that width, got %[5, 3%]",
      message(x, pl.zeros { 5, 3 }, labels))
    assert.matches("weight: expected float32 on cpu as x, got bfloat16 on cpu",
      message(x, weight:to "bfloat16", labels))
    assert.matches("bias: expected %[5%] for as many classes, got %[4%]",
      message(x, weight, labels, { bias = pl.zeros { 4 } }))
    assert.matches("labels: expected the shape of x without the last dimension, got %[2%] for %[3, 4%]",
      message(x, weight, { 1, 2 }))
    assert.matches("labels: expected int64 class numbers from 1, got float32", message(x, weight, pl.ones { 3 }))
    assert.matches('reduction: expected "mean" or "sum", got none', message(x, weight, labels, { reduction = "none" }))
    assert.matches("chunk: expected an integer of at least 1, got 0", message(x, weight, labels, { chunk = 0 }))
    assert.matches("unknown option 'weights'", message(x, weight, labels, { weights = 0 }))
    assert.matches("options: expected a table, got number", message(x, weight, labels, 3))
    assert.matches("value 6 at position 3 is outside 1..5", message(x, weight, { 1, 2, 6 }, { chunk = 2 }))
  end)
end)
