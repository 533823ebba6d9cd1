-- nn.Attention and positions against plain loops.
local pl = require "perilune"
local nn = pl.nn
local against = require "tests.nn.against"
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

-- Features k and k + D/2 of a vector turned by position / 10000^(2k/D).
local function turned(x, position)
  local y, half = {}, #x // 2
  for k = 1, half do
    local angle = position / 10000 ^ (2 * (k - 1) / #x)
    y[k] = x[k] * math.cos(angle) - x[half + k] * math.sin(angle)
    y[half + k] = x[half + k] * math.cos(angle) + x[k] * math.sin(angle)
  end
  return y
end

local function dot(a, b)
  local total = 0
  for i, v in ipairs(a) do total = total + v * b[i] end
  return total
end

-- One head at one position: the values weighted by the softmax of q k / sqrt(D).
local function attend(q, keys, values, last)
  local weights, sum, y = {}, 0, {}
  for s = 1, last do
    weights[s] = math.exp(dot(q, keys[s]) / math.sqrt(#q))
    sum = sum + weights[s]
  end
  for k = 1, #q do
    y[k] = 0
    for s = 1, last do y[k] = y[k] + weights[s] / sum * values[s][k] end
  end
  return y
end

-- The layer over nested tables.
local function loops(size, heads, option)
  local dim = size // heads
  return function(p)
    local result = {}
    for b, rows in ipairs(p.x) do
      local mixed = {}
      for t = 1, #rows do mixed[t] = {} end
      for head = 1, heads do
        local part = { {}, {}, {} } -- queries, keys, values
        for t, row in ipairs(rows) do
          local all = against.linear(p["qkv.weight"], p["qkv.bias"], row)
          for i = 1, 3 do
            part[i][t] = table.move(all, (i - 1) * size + (head - 1) * dim + 1, (i - 1) * size + head * dim, 1, {})
            if option.rotary and i < 3 then part[i][t] = turned(part[i][t], t - 1) end
          end
        end
        for t = 1, #rows do
          local y = attend(part[1][t], part[2], part[3], option.causal == false and #rows or t)
          table.move(y, 1, dim, #mixed[t] + 1, mixed[t])
        end
      end
      result[b] = {}
      for t, y in ipairs(mixed) do result[b][t] = against.linear(p["out.weight"], p["out.bias"], y) end
    end
    return result
  end
end

describe("nn.Attention", function()
  for name, option in pairs {
    causal = {}, ["not causal"] = { causal = false }, rotary = { rotary = true }, ["without biases"] = { bias = false },
  } do
    it("is softmax(q k^T / sqrt(D)) v per head, " .. name, function()
      pl.seed(3)
      against.module(nn.Attention(8, 2, option), pl.randn { 2, 4, 8 }, loops(8, 2, option))
    end)
  end

  it("sees no later position", function()
    local m = nn.Attention(6, 3)
    local x = pl.randn { 1, 5, 6 }
    local changed = pl.cat({ x:narrow(2, 1, 3), pl.randn { 1, 2, 6 } }, 2)
    near(m(x):narrow(2, 1, 3):totable(), m(changed):narrow(2, 1, 3):totable(), 1e-6)
  end)

  it("depends on distances only when rotary", function()
    local m = nn.Attention(8, 1, { rotary = true, causal = false, bias = false }):to("float64")
    local x = pl.randn { 1, 3, 8, dtype = "float64" }
    local q, k = pl.randn { 1, 8, dtype = "float64" }, pl.randn { 1, 8, dtype = "float64" }
    local function product(i, j)
      return (nn.rotary(q:expand { 9, 8 }):select(1, i) * nn.rotary(k:expand { 9, 8 }):select(1, j)):sum():item()
    end
    near(product(2, 5), product(6, 9), 1e-12)
    assert.is_true(math.abs(product(2, 5) - product(2, 6)) > 1e-6)
    assert.are.same({ 1, 3, 8 }, m(x).shape)
  end)

  it("names what is wrong", function()
    assert.matches("nn.Attention: size: expected a multiple of the 3 heads, got 8", message_of(nn.Attention, 8, 3))
    assert.matches("heads: expected an integer of at least 1, got nothing", message_of(nn.Attention, 8))
    assert.matches("rotary: expected heads of an even number of features, got 3",
      message_of(nn.Attention, 6, 2, { rotary = true }))
    assert.matches("unknown option 'mask'; expected bias, causal, rotary", message_of(nn.Attention, 6, 2, { mask = 1 }))
    assert.matches("x: expected 3 dimensions, got shape %[4, 6%]", message_of(nn.Attention(6, 2), pl.ones { 4, 6 }))
  end)
end)

describe("positions", function()
  it("rotary turns pairs of features by the position's angle", function()
    against.f(function(leaves) return nn.rotary(leaves.x) end, { x = pl.randn { 2, 3, 5, 6 } }, function(p)
      local result = {}
      for b, heads in ipairs(p.x) do
        result[b] = {}
        for h, rows in ipairs(heads) do
          result[b][h] = {}
          for t, row in ipairs(rows) do result[b][h][t] = turned(row, t - 1) end
        end
      end
      return result
    end)
    assert.matches("nn.rotary: x: expected an even number of features, got 3", message_of(nn.rotary, pl.ones { 2, 3 }))
  end)

  it("SinusoidalPositions adds sines and cosines of falling frequency", function()
    against.module(nn.SinusoidalPositions(6), pl.randn { 2, 7, 6 }, function(p)
      local result = {}
      for b, rows in ipairs(p.x) do
        result[b] = {}
        for t, row in ipairs(rows) do
          local y = {}
          for k = 0, 2 do
            local angle = (t - 1) / 10000 ^ (2 * k / 6)
            y[2 * k + 1], y[2 * k + 2] = row[2 * k + 1] + math.sin(angle), row[2 * k + 2] + math.cos(angle)
          end
          result[b][t] = y
        end
      end
      return result
    end)
    assert.matches("size: expected an even number of features, got 5", message_of(nn.SinusoidalPositions, 5))
  end)
end)
