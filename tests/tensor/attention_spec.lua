-- scaled_dot_product_attention on the CPU against the plain composition in float64: sizes about the blocks, types,
-- strides, memory; tests/cuda/attention_spec.lua compares the GPU.
local pl = require "perilune"
local attention = require "tests.attention"
local check = require "tests.tensor.check"

local tolerance <const> = { float64 = 1e-12, float32 = 2e-5, bfloat16 = 2e-2, float16 = 3e-3 }

local function compare(q, k, v, option, what)
  local arriving = pl.randn { q.shape[1], q.shape[2], q.shape[3], q.shape[4], dtype = "float64" }:to(q.dtype)
  local expected = attention.results(attention.plain, q:double(), k:double(), v:double(), arriving, option)
  local got = attention.results(pl.scaled_dot_product_attention, q, k, v, arriving, option)
  for i, t in ipairs(expected) do
    local distance = attention.distance(t, got[i])
    assert.is_true(distance <= tolerance[q.dtype],
      ("%s, %s %s: distance %.3g"):format(what, q.dtype, attention.names[i], distance))
  end
end

local function operand(dtype, ...)
  local shape = { ... }
  shape.dtype = "float64"
  return pl.randn(shape):to(dtype)
end

describe("scaled_dot_product_attention", function()
  before_each(function() pl.seed(31) end)

  local sizes <const> = { 1, 15, 17, 63, 65, 127, 200 }
  for dtype in pairs(tolerance) do
    it("is the plain composition at odd sizes in " .. dtype, function()
      for i, queries in ipairs(sizes) do
        for _, keys in ipairs { queries, sizes[i + 1] or 201, sizes[#sizes - i + 1] } do
          for _, causal in ipairs { false, queries <= keys or nil } do
            local option = { causal = causal, scale = keys % 2 == 0 and 0.2 or nil }
            compare(operand(dtype, 2, 2, queries, 12), operand(dtype, 2, 2, keys, 12), operand(dtype, 2, 2, keys, 12),
              option, ("%d queries, %d keys, causal %s"):format(queries, keys, causal))
          end
        end
      end
    end)
  end

  it("reads views of one [B,T,3 W] and gives heads that join without a copy", function()
    for _, dtype in ipairs { "float32", "bfloat16" } do
      local x = operand(dtype, 2, 37, 3 * 64):requires_grad()
      local function heads(t)
        local q, k, v = t:pieces(3, 64)
        local function split(part) return part:reshape({ 2, 37, 4, 16 }):transpose(2, 3) end
        return split(q), split(k), split(v)
      end
      local q, k, v = heads(x)
      local y = pl.scaled_dot_product_attention(q, k, v, { causal = true })
      assert.is_true(y:transpose(2, 3):is_contiguous());
      (y * y:detach()):sum():backward()
      local got = x.grad:double()
      x.grad = nil
      local wide = x:detach():double():requires_grad()
      q, k, v = heads(wide)
      local z = attention.plain(q, k, v, { causal = true });
      (z * z:detach()):sum():backward()
      assert.is_true(attention.distance(z:detach(), y:detach():double()) < tolerance[dtype])
      assert.is_true(attention.distance(wide.grad, got) < 2 * tolerance[dtype])
    end
  end)

  it("reads keys of other strides, heads that repeat and starts that are not aligned", function()
    local q, k, v = operand("float32", 1, 2, 9, 8), operand("float32", 1, 2, 8, 9), operand("float32", 1, 1, 9, 25)
    compare(q, k:transpose(3, 4), v:narrow(4, 2, 8):expand { 1, 2, 9, 8 }, { causal = true }, "odd strides")
  end)

  it("makes the gradient of one [B,T,3 W] without another copy of it", function()
    local x = operand("float32", 2, 512, 3 * 64):requires_grad()
    local q, k, v = x:pieces(3, 64)
    local function heads(t) return t:reshape({ 2, 512, 4, 16 }):transpose(2, 3) end
    local y = pl.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    local arriving = pl.ones_like(y)
    collectgarbage()
    pl.reset_peak_memory()
    local before = pl.memory().cpu.live
    y:backward(arriving)
    assert.is_true(pl.memory().cpu.peak - before < 1.5 * x:numel() * 4)
  end)

  it("gives only the gradients that are asked for", function()
    local given = { operand("float64", 1, 2, 5, 4), operand("float64", 1, 2, 6, 4), operand("float64", 1, 2, 6, 4) }
    local all = attention.results(attention.plain, given[1], given[2], given[3], pl.ones { 1, 2, 5, 4 }, {})
    for i = 1, 3 do
      local leaf = given[i]:clone():requires_grad()
      local operands = table.move(given, 1, 3, 1, {})
      operands[i] = leaf
      pl.scaled_dot_product_attention(table.unpack(operands)):backward(pl.ones { 1, 2, 5, 4, dtype = "float64" })
      check.same(all[i + 1], leaf.grad, 1e-12)
    end
  end)

  it("takes float32 in the type of autocast and gives float32", function()
    local q, k, v = operand("float32", 1, 2, 40, 16), operand("float32", 1, 2, 40, 16), operand("float32", 1, 2, 40, 16)
    local expected = pl.scaled_dot_product_attention(q:to "bfloat16", k:to "bfloat16", v:to "bfloat16"):float()
    local got
    pl.autocast("bfloat16", function() got = pl.scaled_dot_product_attention(q, k, v) end)
    assert.equal("float32", got.dtype)
    check.same(expected, got)
  end)

  it("holds no scores of all queries", function()
    local heads <const>, steps <const> = 2, 1024
    local q = operand("float32", 1, heads, steps, 16):requires_grad()
    collectgarbage()
    pl.reset_peak_memory()
    local before = pl.memory().cpu.live
    pl.scaled_dot_product_attention(q, q, q, { causal = true }):sum():backward()
    assert.is_true(pl.memory().cpu.peak - before < heads * steps * steps * 4 / 4)
  end)
end)
