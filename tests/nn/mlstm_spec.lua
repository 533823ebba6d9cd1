-- nn.MLSTM: both forms against plain loops without a stabiliser, and against each other.
local pl = require "perilune"
local nn = pl.nn
local against = require "tests.nn.against"
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

local function sigmoid(x) return 1 / (1 + math.exp(-x)) end

-- (x - mean) / sqrt(variance + 1e-5)
local function standardised(x)
  local mean, variance, y = 0, 0, {}
  for _, v in ipairs(x) do mean = mean + v / #x end
  for _, v in ipairs(x) do variance = variance + (v - mean) ^ 2 / #x end
  for i, v in ipairs(x) do y[i] = (v - mean) / math.sqrt(variance + 1e-5) end
  return y
end

-- One head over the rows of a sequence: c [value][key] and n, as the paper's equations have them.
local function head_outputs(p, rows, size, dim, head, heads)
  local c, n, outputs = {}, {}, {}
  for a = 1, dim do
    c[a], n[a] = {}, 0
    for b = 1, dim do c[a][b] = 0 end
  end
  for t, x in ipairs(rows) do
    local qkv = against.linear(p["qkv.weight"], p["qkv.bias"], x)
    local gates = against.linear(p["gates.weight"], p["gates.bias"], x)
    local input, forget = math.exp(gates[head]), sigmoid(gates[heads + head])
    local function part(i, k) return qkv[i * size + (head - 1) * dim + k] end
    local denominator, h = 0, {}
    for b = 1, dim do
      local key = part(1, b) / math.sqrt(dim)
      n[b] = forget * n[b] + input * key
      denominator = denominator + n[b] * part(0, b)
      for a = 1, dim do c[a][b] = forget * c[a][b] + input * part(2, a) * key end
    end
    for a = 1, dim do
      h[a] = 0
      for b = 1, dim do h[a] = h[a] + c[a][b] * part(0, b) end
      h[a] = h[a] / math.max(math.abs(denominator), 1)
    end
    outputs[t] = standardised(h)
  end
  return outputs
end

local function loops(size, heads)
  return function(p)
    local result = {}
    for i, rows in ipairs(p.x) do
      local y = {}
      for t, x in ipairs(rows) do y[t] = against.linear(p["gate.weight"], p["gate.bias"], x) end
      for head = 1, heads do
        local first = (head - 1) * size // heads
        for t, h in ipairs(head_outputs(p, rows, size, size // heads, head, heads)) do
          for k, value in ipairs(h) do
            local at = first + k
            y[t][at] = sigmoid(y[t][at]) * (value * p["norm.weight"][at] + p["norm.bias"][at])
          end
        end
      end
      for t = 1, #rows do y[t] = against.linear(p["out.weight"], p["out.bias"], y[t]) end
      result[i] = y
    end
    return result
  end
end

-- A module whose gates depend on the input, with larger queries and keys, so that |n q| is above and below 1.
local function module_of(size, heads)
  local m = nn.MLSTM(size, heads)
  pl.no_grad(function()
    m.gates.weight:copy_(pl.randn(m.gates.weight.shape))
    m.qkv.weight:mul_(3)
  end)
  return m
end

describe("nn.MLSTM", function()
  it("is the paper's recurrence, in its parallel form", function()
    pl.seed(5)
    against.module(module_of(6, 2), pl.randn { 2, 4, 6 }, loops(6, 2))
  end)

  it("is the paper's recurrence, in its recurrent form", function()
    pl.seed(6)
    against.module(module_of(6, 2), pl.randn { 2, 4, 6 }, loops(6, 2), function(m, x) return (m:recurrent(x)) end)
  end)

  it("gives the same in both forms, in one go and in pieces", function()
    local m = module_of(8, 2):to("float64")
    local x = pl.randn { 3, 50, 8, dtype = "float64" }
    local expected = m(x)
    local left, state = m:recurrent(x:narrow(2, 1, 20))
    local right, last = m:recurrent(x:narrow(2, 21, 30), state)
    near(expected:totable(), pl.cat({ left, right }, 2):totable(), 1e-9)
    assert.are.same({ 3, 2, 4, 4 }, last.c.shape)
    assert.are.same({ 3, 2, 1, 4 }, last.n.shape)
    assert.are.same({ 3, 2, 1, 1 }, last.m.shape)
  end)

  it("has the same gradients in both forms", function()
    local m = module_of(4, 1):to("float64")
    local x, seed = pl.randn { 2, 12, 4, dtype = "float64" }, pl.randn { 2, 12, 4, dtype = "float64" }
    local gradients = {}
    for i, call in ipairs { function() return m(x) end, function() return (m:recurrent(x)) end } do
      m:zero_grad()
      call():backward(seed)
      gradients[i] = {}
      for k, p in ipairs(m:parameters()) do gradients[i][k] = p.grad:totable() end
    end
    near(gradients[1], gradients[2], 1e-9)
  end)

  it("stays finite where the exponentials would not", function()
    local m = nn.MLSTM(4, 2)
    for _, bias in ipairs { 500, -500 } do
      pl.no_grad(function() m.gates.bias:narrow(1, 1, 2):fill_(bias) end)
      local x = pl.randn { 1, 30, 4 }
      local y, stepped = m(x), m:recurrent(x)
      assert.is_true(y:abs():max():item() < 1e3)
      near(y:totable(), stepped:totable(), 1e-4)
      y:sum():backward()
      for _, p in ipairs(m:parameters()) do assert.is_true(p.grad:abs():max():item() < math.huge) end
    end
  end)

  it("names what is wrong", function()
    assert.matches("nn.MLSTM: size: expected a multiple of the 4 heads, got 6", message_of(nn.MLSTM, 6, 4))
    assert.matches("x: expected a last dimension of 6, got shape %[1, 2, 4%]",
      message_of(nn.MLSTM(6, 2), pl.ones { 1, 2, 4 }))
  end)
end)
