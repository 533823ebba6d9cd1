-- nn.selective_scan and nn.Mamba against plain loops, and what negative eigenvalues are for.
local pl = require "perilune"
local nn = pl.nn
local against = require "tests.nn.against"
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

local function silu(x) return x / (1 + math.exp(-x)) end

-- y[t][d] for one sequence.
local function scan(x, dt, a, b, c, negative)
  local s, y = {}, {}
  for n = 1, #a do s[n] = {} end
  for t = 1, #x do
    y[t] = {}
    for d = 1, #x[1] do
      y[t][d] = 0
      for n = 1, #a do
        local kept = math.exp(dt[t][d] * a[n][d])
        if negative then kept = 2 * kept - 1 end
        s[n][d] = kept * (s[n][d] or 0) + dt[t][d] * x[t][d] * b[t][n]
        y[t][d] = y[t][d] + c[t][n] * s[n][d]
      end
    end
  end
  return y
end

-- nn.Mamba over nested tables.
local function mamba(inner, state, negative)
  return function(p)
    local result, a = {}, {}
    for n, row in ipairs(p.a_log) do
      a[n] = {}
      for d, value in ipairs(row) do a[n][d] = -math.exp(value) end
    end
    for i, rows in ipairs(p.x) do
      local split, u, dt, b, c = {}, {}, {}, {}, {}
      for t, x in ipairs(rows) do split[t] = against.linear(p["input.weight"], nil, x) end
      local filter = p["convolution.weight"]
      for t = 1, #rows do
        u[t] = {}
        for d = 1, inner do
          local sum = p["convolution.bias"][d]
          for back = 0, math.min(#filter, t) - 1 do sum = sum + filter[#filter - back][d] * split[t - back][d] end
          u[t][d] = silu(sum)
        end
        local selected = against.linear(p["select.weight"], nil, u[t])
        local rank = #selected - 2 * state
        dt[t] = against.linear(p["dt.weight"], p["dt.bias"], table.move(selected, 1, rank, 1, {}))
        for d, value in ipairs(dt[t]) do dt[t][d] = math.log(1 + math.exp(value)) end
        b[t] = table.move(selected, rank + 1, rank + state, 1, {})
        c[t] = table.move(selected, rank + state + 1, rank + 2 * state, 1, {})
      end
      local y = scan(u, dt, a, b, c, negative)
      result[i] = {}
      for t = 1, #rows do
        for d = 1, inner do y[t][d] = (y[t][d] + p.skip[d] * u[t][d]) * silu(split[t][inner + d]) end
        result[i][t] = against.linear(p["output.weight"], nil, y[t])
      end
    end
    return result
  end
end

for _, negative in ipairs { false, true } do
  local kind = negative and "eigenvalues in (-1, 1)" or "eigenvalues in (0, 1)"

  describe("nn.selective_scan with " .. kind, function()
    it("is a linear recurrence", function()
      pl.seed(8)
      local B, T, D, N <const> = 2, 6, 3, 4
      against.f(function(leaf)
        return nn.selective_scan(leaf.x, leaf.dt, leaf.a, leaf.b, leaf.c, negative)
      end, {
        x = pl.randn { B, T, D }, dt = pl.rand { B, T, D } + 0.1, a = -pl.rand { N, D } - 0.1, b = pl.randn { B, T, N },
        c = pl.randn { B, T, N },
      }, function(p)
        local result = {}
        for i = 1, B do result[i] = scan(p.x[i], p.dt[i], p.a, p.b[i], p.c[i], negative) end
        return result
      end)
    end)
  end)

  describe("nn.Mamba with " .. kind, function()
    it("is the paper's layer", function()
      pl.seed(9)
      against.module(nn.Mamba(4, { state = 3, expand = 2, convolution = 3, negative = negative }), pl.randn { 2, 5, 4 },
        mamba(8, 3, negative))
    end)
  end)
end

describe("nn.Mamba", function()
  it("starts with step sizes between 0.001 and 0.1 and a = -n", function()
    local m = nn.Mamba(32, { state = 4 })
    local dt = pl.softplus(m.dt.bias:detach())
    assert.is_true(dt:min():item() > 0.00099 and dt:max():item() < 0.101)
    near({ -1, -2, -3, -4 }, (-pl.exp(m.a_log:detach())):select(2, 64):totable(), 1e-6)
    assert.are.equal(2, m.rank)
  end)

  it("tells parity by an eigenvalue of -1, which only the negative variant has", function()
    local bits, expected, odd = {}, {}, 0
    for t = 1, 300 do
      bits[t] = (t * t + t // 3) % 2
      odd = (odd + bits[t]) % 2
      expected[t] = odd == 1
    end
    -- A first step writes 1; then a step size of 0 keeps the state and a great one turns its sign.
    local dt = pl.tensor({ 1, table.unpack(bits) }):reshape { 1, 301, 1 }
    dt = pl.cat({ dt:narrow(2, 1, 1), dt:narrow(2, 2, 300) * 50 }, 2)
    local x = pl.cat({ pl.ones { 1, 1, 1 }, pl.zeros { 1, 300, 1 } }, 2)
    local one = pl.ones { 1, 301, 1 }
    local function read(negative)
      return nn.selective_scan(x, dt, pl.full({ 1, 1 }, -1), one, one, negative):reshape({ 301 }):totable()
    end
    local turning, positive = read(true), read(false)
    for t = 1, 300 do
      assert.are.equal(expected[t], turning[t + 1] < 0)
      assert.is_true(positive[t + 1] >= 0)
    end
  end)

  it("names what is wrong", function()
    assert.matches("nn.Mamba: size: expected an integer of at least 1, got nothing", message_of(nn.Mamba))
    assert.matches("nn.Mamba: state: expected an integer of at least 1, got 0", message_of(nn.Mamba, 4, { state = 0 }))
    assert.matches("negative: expected a boolean, got 1", message_of(nn.Mamba, 4, { negative = 1 }))
    assert.matches("x: expected a last dimension of 4", message_of(nn.Mamba(4), pl.ones { 1, 2, 5 }))
    local x, a = pl.ones { 1, 2, 3 }, pl.ones { 2, 3 }
    assert.matches("nn.selective_scan: b: expected a last dimension of 2, got shape %[1, 2, 5%]",
      message_of(nn.selective_scan, x, x, a, pl.ones { 1, 2, 5 }, pl.ones { 1, 2, 2 }))
  end)
end)
