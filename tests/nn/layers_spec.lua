-- Layers against plain Lua loops over the same numbers.
local pl = require "perilune"
local nn = pl.nn
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

local function apply(vectors, f)
  local result = {}
  for i, v in ipairs(vectors) do result[i] = f(v) end
  return result
end

local function linear(weight, bias, x)
  local y = {}
  for o, row in ipairs(weight) do
    y[o] = bias and bias[o] or 0
    for i, w in ipairs(row) do y[o] = y[o] + w * x[i] end
  end
  return y
end

-- (x - mean) / sqrt(variance + eps) over a list.
local function standardised(x, eps)
  local mean, variance = 0, 0
  for _, v in ipairs(x) do mean = mean + v / #x end
  for _, v in ipairs(x) do variance = variance + (v - mean) ^ 2 / #x end
  return apply(x, function(v) return (v - mean) / math.sqrt(variance + eps) end)
end

describe("nn.Linear", function()
  it("is x W^T + b over the last dimension", function()
    local m = nn.Linear(3, 4):to("float64")
    local x = pl.randn { 2, 5, 3, dtype = "float64" }
    local weight, bias = m.weight:totable(), m.bias:totable()
    near(apply(x:totable(), function(rows)
      return apply(rows, function(v) return linear(weight, bias, v) end)
    end), m(x):totable(), 1e-12)
  end)

  it("has no bias when told so, and gradients by hand", function()
    local m = nn.Linear(2, 2, { bias = false }):to("float64")
    assert.is_nil(m.bias)
    assert.are.equal(1, #m:parameters())
    local x = pl.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "float64" })
    m(x):sum():backward()
    near({ { 4, 6 }, { 4, 6 } }, m.weight.grad:totable(), 1e-12)
  end)

  it("has a gradient that nobody copies", function()
    for _, dtype in ipairs { "float32", "bfloat16" } do
      local m = nn.Linear(300, 400, { bias = false }):to(dtype)
      local loss = m(pl.ones { 2, 5, 300, dtype = dtype }):sum()
      pl.reset_peak_memory()
      local before, bytes = pl.memory().cpu.live, 300 * 400 * (dtype == "float32" and 4 or 2)
      loss:backward()
      assert.is_true(pl.memory().cpu.peak - before < 1.5 * bytes)
      near(10, m.weight.grad:float():min():item(), 0)
    end
  end)

  it("starts within +-1/sqrt(inputs)", function()
    local m = nn.Linear(16, 200)
    for _, p in ipairs(m:parameters()) do
      local greatest = p:detach():abs():max():item()
      assert.is_true(greatest <= 0.25 and greatest > 0.2)
    end
  end)

  it("names the argument that is wrong", function()
    assert.matches("inputs: expected an integer of at least 1, got 0", message_of(nn.Linear, 0, 3))
    assert.matches("outputs: expected an integer of at least 1, got nothing", message_of(nn.Linear, 3))
    assert.matches("unknown option 'bais'; expected bias", message_of(nn.Linear, 3, 3, { bais = false }))
    local m = nn.Linear(3, 4)
    assert.matches("x: expected a last dimension of 3, got shape %[2, 5%]", message_of(m, pl.zeros { 2, 5 }))
    assert.matches("x: expected a tensor, got 7", message_of(m, 7))
    assert.matches("layers_spec.lua:%d+:", message_of(function()
      local made = nn.Linear("three", 1)
      return made
    end))
  end)
end)

describe("nn.Embedding", function()
  it("takes rows by 1-based ids", function()
    local m = nn.Embedding(5, 3)
    local weight = m.weight:totable()
    local ids = pl.tensor({ { 5, 1 }, { 2, 2 } }, { dtype = "int64" })
    near({ { weight[5], weight[1] }, { weight[2], weight[2] } }, m(ids):totable(), 0)
    m(ids):sum():backward()
    near({ { 1, 1, 1 }, { 2, 2, 2 }, { 0, 0, 0 }, { 0, 0, 0 }, { 1, 1, 1 } }, m.weight.grad:totable(), 0)
  end)
end)

describe("normalising layers", function()
  it("LayerNorm against its formula", function()
    local m = nn.LayerNorm(6):to("float64")
    m:load_state_dict { weight = pl.randn { 6, dtype = "float64" }, bias = pl.randn { 6, dtype = "float64" } }
    local x, weight, bias = pl.randn { 4, 6, dtype = "float64" }, m.weight:totable(), m.bias:totable()
    near(apply(x:totable(), function(v)
      local y = standardised(v, 1e-5)
      for i = 1, 6 do y[i] = y[i] * weight[i] + bias[i] end
      return y
    end), m(x):totable(), 1e-10)
  end)

  it("RMSNorm against its formula", function()
    local m = nn.RMSNorm(5):to("float64")
    m:load_state_dict { weight = pl.randn { 5, dtype = "float64" } }
    local x, weight = pl.randn { 3, 5, dtype = "float64" }, m.weight:totable()
    near(apply(x:totable(), function(v)
      local squares, y = 0, {}
      for _, e in ipairs(v) do squares = squares + e * e / 5 end
      for i, e in ipairs(v) do y[i] = e / math.sqrt(squares + 1e-6) * weight[i] end
      return y
    end), m(x):totable(), 1e-10)
  end)

  it("GroupNorm over [B,C,T] takes a group's channels and all of T together", function()
    local m = nn.GroupNorm(2, 4):to("float64")
    m:load_state_dict { weight = pl.randn { 4, dtype = "float64" }, bias = pl.randn { 4, dtype = "float64" } }
    local x, weight, bias = pl.randn { 2, 4, 3, dtype = "float64" }, m.weight:totable(), m.bias:totable()
    local expected = apply(x:totable(), function(channels)
      local result = {}
      for g = 0, 1 do
        local flat = {}
        for c = 1, 2 do table.move(channels[2 * g + c], 1, 3, #flat + 1, flat) end
        flat = standardised(flat, 1e-5)
        for c = 1, 2 do
          local n = 2 * g + c
          result[n] = {}
          for t = 1, 3 do result[n][t] = flat[3 * (c - 1) + t] * weight[n] + bias[n] end
        end
      end
      return result
    end)
    near(expected, m(x):totable(), 1e-10)
  end)

  it("GroupNorm with channels_last treats every position alone", function()
    local m = nn.GroupNorm(2, 6, { channels_last = true }):to("float64")
    local x = pl.randn { 2, 3, 6, dtype = "float64" }
    local expected = apply(x:totable(), function(rows)
      return apply(rows, function(v)
        local left, right = standardised({ v[1], v[2], v[3] }, 1e-5), standardised({ v[4], v[5], v[6] }, 1e-5)
        return table.move(right, 1, 3, 4, left)
      end)
    end)
    near(expected, m(x):totable(), 1e-10)
    assert.matches("channels: expected a multiple of the 2 groups, got 7", message_of(nn.GroupNorm, 2, 7))
    assert.matches("expected 6 channels in dimension 3", message_of(m, pl.zeros { 2, 6, 5 }))
  end)
end)

describe("nn.Dropout", function()
  it("zeroes a share and scales the rest in training, and does nothing otherwise", function()
    pl.seed(5)
    local m = nn.Dropout(0.25)
    local x = pl.ones { 100, 100 }
    local zeros = 0
    for _, row in ipairs(m(x):totable()) do
      for _, value in ipairs(row) do
        if value == 0 then zeros = zeros + 1 else near(1 / 0.75, value, 1e-6) end
      end
    end
    assert.is_true(math.abs(zeros / 10000 - 0.25) < 0.03)
    near(x:totable(), m:eval()(x):totable(), 0)
    near({ 0, 0 }, nn.Dropout(1)(pl.ones { 2 }):totable(), 0)
    near({ 1, 1 }, nn.Dropout(0)(pl.ones { 2 }):totable(), 0)
    assert.matches("p: expected a number of at least 0 and at most 1, got 2", message_of(nn.Dropout, 2))
  end)
end)

describe("nn.MLP and nn.Sequential", function()
  it("MLP is linear, activation, linear", function()
    local m = nn.MLP(3, 5, 2, { activation = "tanh" }):to("float64")
    local s = m:state_dict()
    local x = pl.randn { 4, 3, dtype = "float64" }
    local function layer(i, v) return linear(s[i .. ".weight"]:totable(), s[i .. ".bias"]:totable(), v) end
    near(apply(x:totable(), function(v)
      return layer(2, apply(layer(1, v), function(h) return (math.exp(2 * h) - 1) / (math.exp(2 * h) + 1) end))
    end), m(x):totable(), 1e-10)
  end)

  it("gated MLP is down(activation(gate) * up)", function()
    local m = nn.MLP(3, 4, 2, { activation = "sigmoid", gated = true, bias = false }):to("float64")
    local s = m:state_dict()
    local x = pl.randn { 2, 3, dtype = "float64" }
    near(apply(x:totable(), function(v)
      local gate = linear(s["gate_up.weight"]:narrow(1, 1, 4):totable(), nil, v)
      local h = linear(s["gate_up.weight"]:narrow(1, 5, 4):totable(), nil, v)
      for i, g in ipairs(gate) do h[i] = h[i] / (1 + math.exp(-g)) end
      return linear(s["down.weight"]:totable(), nil, h)
    end), m(x):totable(), 1e-10)
    assert.matches("activation: expected one of gelu",
      message_of(nn.MLP, 1, 1, 1, { activation = "swish" }))
  end)

  it("Sequential applies modules and functions in turn", function()
    local m = nn.Sequential(nn.Linear(2, 3), pl.relu, nn.Linear(3, 1))
    local x = pl.randn { 4, 2 }
    near(m[3](pl.relu(m[1](x))):totable(), m(x):totable(), 0)
    assert.are.equal(4, #m:parameters())
    assert.matches("module 2: expected a module, got a number", message_of(nn.Sequential, nn.Linear(1, 1), 3))
  end)
end)

describe("losses", function()
  it("cross_entropy against the logarithm of the softmax", function()
    local logits = pl.tensor({ { 1, 2, 0.5 }, { -1, 0, 3 } }, { dtype = "float64" })
    local labels = { 2, 1 }
    local total = 0
    for i, row in ipairs(logits:totable()) do
      local sum = 0
      for _, v in ipairs(row) do sum = sum + math.exp(v) end
      total = total - math.log(math.exp(row[labels[i]]) / sum)
    end
    near(total / 2, nn.cross_entropy(logits, pl.tensor(labels, { dtype = "int64" })):item(), 1e-12)
  end)

  it("mse_loss averages, sums or neither", function()
    local x = pl.tensor({ 1, 2, 4 }, { dtype = "float64" })
    local y = pl.tensor({ 1, 0, 1 }, { dtype = "float64" })
    near(13 / 3, nn.mse_loss(x, y):item(), 1e-12)
    near(13, nn.mse_loss(x, y, { reduction = "sum" }):item(), 1e-12)
    near({ 0, 4, 9 }, nn.mse_loss(x, y, { reduction = "none" }):totable(), 1e-12)
    assert.matches("reduction: expected one of mean, sum, none, got 'avg'",
      message_of(nn.mse_loss, x, y, { reduction = "avg" }))
  end)
end)
