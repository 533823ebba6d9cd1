-- One test over all operations on all devices: values, types, gradients against central differences, strides, float32.
local pl = require "perilune"
local core = require "perilune.core"
local check = require "tests.tensor.check"

local devices = pl.devices()
if #devices == 1 then
  describe("every operation", function() pending("on a GPU: skipped, for there is none here") end)
end

-- Elementwise --------------------------------------------------------------------------------------------------------

local function truth(f) return function(a, b) return f(a, b) and 1 or 0 end end

-- erf by Simpson's rule, far from the series that the program uses.
local function erf(x)
  local n <const>, sum = 4000, 0
  local h = x / n
  for i = 0, n do
    local weight = (i == 0 or i == n) and 1 or i % 2 == 1 and 4 or 2
    sum = sum + weight * math.exp(-(i * h) ^ 2)
  end
  return 2 / math.sqrt(math.pi) * sum * h / 3
end

local function sigmoid(a) return 1 / (1 + math.exp(-a)) end

-- What each row means, in plain Lua and in other words than the table's formulas.
local meaning <const> = {
  add = function(a, b) return a + b end,
  sub = function(a, b) return a - b end,
  mul = function(a, b) return a * b end,
  neg = function(a) return -a end,
  abs = math.abs,
  sign = function(a) return a > 0 and 1 or a < 0 and -1 or 0 end,
  square = function(a) return a ^ 2 end,
  relu = function(a) return math.max(a, 0) end,
  maximum = function(a, b) return math.max(a, b) end,
  minimum = function(a, b) return math.min(a, b) end,
  remainder = function(a, b) return a % b end,
  clamp = function(a, low, high) return a < low and low or a > high and high or a end,
  where = function(a, b, c) if a ~= 0 then return b end return c end,
  gradient_clip = function(a) return a end,
  eq = truth(function(a, b) return a == b end),
  ne = truth(function(a, b) return a ~= b end),
  lt = truth(function(a, b) return a < b end),
  le = truth(function(a, b) return a <= b end),
  gt = truth(function(a, b) return a > b end),
  ge = truth(function(a, b) return a >= b end),
  div = function(a, b) return a / b end,
  pow = function(a, b) return math.exp(b * math.log(a)) end,
  exp = math.exp,
  expm1 = function(a) return math.exp(a) - 1 end,
  log = math.log,
  log1p = function(a) return math.log(1 + a) end,
  sqrt = function(a) return a ^ 0.5 end,
  rsqrt = function(a) return a ^ -0.5 end,
  reciprocal = function(a) return a ^ -1 end,
  sin = math.sin,
  cos = math.cos,
  tanh = function(a) return 1 - 2 / (math.exp(2 * a) + 1) end,
  sigmoid = sigmoid,
  logsigmoid = function(a) return math.log(sigmoid(a)) end,
  softplus = function(a) return math.log(1 + math.exp(a)) end,
  silu = function(a) return a * sigmoid(a) end,
  swiglu = function(a, b) return b * a * sigmoid(a) end,
  gelu = function(a) return a / 2 * (1 + erf(a / math.sqrt(2))) end,
  erf = erf,
  floor = math.floor,
  ceil = math.ceil,
  round = function(a) return math.floor(a + 0.5) end,
}

local function drawn(row, shape, device)
  local operands = {}
  for i = 1, row.arity do
    local form = table.move(shape, 1, #shape, 1, { dtype = "float64" })
    operands[i] = (pl.rand(form) * (row.high - row.low) + row.low):to(device)
  end
  if row.name == "clamp" then -- bounds in order, and not all operands clamped
    operands[2] = operands[2] * 0.25 - 0.75
    operands[3] = operands[3] * 0.25 + 0.75
  end
  return operands
end

local function agrees_with_meaning(row, operands, result)
  local columns, expected = {}, {}
  for i, t in ipairs(operands) do columns[i] = check.flat(t) end
  for k = 1, result:numel() do
    expected[k] = meaning[row.name](columns[1][k], columns[2] and columns[2][k], columns[3] and columns[3][k])
  end
  check.near(expected, check.flat(result), 1e-13, row.name)
end

local types <const> = { "bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64" }

local function expected_type(row, dtype)
  local float = dtype:find "float"
  if row.domain == "test" then return "bool" end
  if row.domain == "real" then return float and dtype or "float32" end
  if dtype == "bool" and row.name ~= "where" then return "int64" end
  return dtype
end

local function type_rules(row, device)
  for _, dtype in ipairs(types) do
    local operands = {}
    for i = 1, row.arity do operands[i] = pl.ones { 2, dtype = dtype, device = device } end
    local result = core[row.name](table.unpack(operands))
    assert.equal(expected_type(row, dtype), result.dtype, row.name .. " of " .. dtype)
    assert.same({ 2 }, result.shape)
  end
end

local function elementwise(row, device)
  local f = core[row.name]
  assert(meaning[row.name], row.name .. ": add its meaning to this test")
  local operands = drawn(row, { 4, 6 }, device)
  local result = f(table.unpack(operands))
  agrees_with_meaning(row, operands, result)
  check.same(result, operands[1][row.name](table.unpack(operands)), 0, row.name .. " as a method")
  type_rules(row, device)
  collectgarbage()

  -- Gradients, also of operands that broadcast.
  local small = drawn(row, { 2, 3 }, device)
  local differentiable = check.gradients(f, small, 1e-6, row.name)
  assert.equal(row.domain ~= "test", differentiable, row.name .. ": part of the graph")
  if row.arity > 1 then
    small[2] = small[2]:narrow(1, 1, 1)
    check.gradients(f, small, 1e-6, row.name .. " broadcast")
    small[1] = small[1]:narrow(2, 1, 1)
    check.gradients(f, small, 1e-6, row.name .. " broadcast both ways")
  end

  -- Strides.
  for i = 1, row.arity do
    for name, form in pairs(check.strided(operands[i])) do
      local given = table.move(operands, 1, row.arity, 1, {})
      given[i] = form
      check.same(result, f(table.unpack(given)), 1e-14, ("%s, operand %d %s"):format(row.name, i, name))
    end
    local given = table.move(operands, 1, row.arity, 1, {})
    given[i] = operands[i]:narrow(1, 2, 1):expand { 4, 6 }
    local packed = table.move(given, 1, row.arity, 1, {})
    packed[i] = given[i]:contiguous()
    assert.is_true(packed[i]:is_contiguous())
    check.same(f(table.unpack(packed)), f(table.unpack(given)), 1e-14, row.name .. ", expanded")
  end

  -- Other float types, against the same numbers in float64; and nothing there.
  for dtype, tolerance in pairs { float32 = 1e-5, float16 = 4e-3, bfloat16 = 3e-2 } do
    local narrow, wide = {}, {}
    for i, t in ipairs(operands) do
      narrow[i] = t:to(dtype)
      wide[i] = narrow[i]:to "float64"
    end
    check.same(f(table.unpack(wide)), f(table.unpack(narrow)):to "float64", tolerance, row.name .. " in " .. dtype)
  end
  check.starved(f, small, row.name, device)
  local empty = drawn(row, { 0, 6 }, device)
  assert.same({ 0, 6 }, f(table.unpack(empty)).shape)
end

-- Other operations ---------------------------------------------------------------------------------------------------

local function whole(list) return function(device) return pl.tensor(list, { dtype = "int64", device = device }) end end

-- Per operation: shapes of float inputs, whole numbers (`index`), the call, and where it is easily said the value of a
-- known case. `flat`: no gradient flows.
local examples <const> = {
  reshape = {
    { { 2, 6 }, call = function(a) return a:reshape { 3, 4 } end },
    { { 2, 3, 4 }, call = function(a) return a:transpose(1, 3):reshape { 4, -1 } end },
    { { 1 }, call = function(a) return a:reshape {} end },
    known = function() return pl.tensor({ 1, 2, 3, 4 }):reshape { 2, 2 }, { { 1, 2 }, { 3, 4 } } end,
  },
  transpose = {
    { { 2, 3, 4 }, call = function(a) return a:transpose(1, -1) * 2 end },
    known = function() return pl.tensor({ { 1, 2 }, { 3, 4 } }):transpose(1, 2), { { 1, 3 }, { 2, 4 } } end,
  },
  permute = {
    { { 2, 3, 4 }, call = function(a) return a:permute { 3, 1, 2 } end },
    known = function() return pl.tensor({ { { 1, 2 } }, { { 3, 4 } } }):permute { 3, 2, 1 },
      { { { 1, 3 } }, { { 2, 4 } } } end,
  },
  narrow = {
    { { 3, 5 }, call = function(a) return a:narrow(2, 2, 3) end },
    { { 3, 5 }, call = function(a) return a:narrow(1, 3, 0) end },
    known = function() return pl.arange(1, 5):narrow(1, 2, 3), { 2, 3, 4 } end,
  },
  pieces = {
    { { 2, 7 }, call = function(a) return a:pieces(2, 3) end },
    { { 2, 8, 3 }, call = function(a)
      local _, second, _, last = a:pieces(-2, 2)
      return second * 2, last
    end },
    { { 3, 0 }, call = function(a) return (a:pieces(1, 3)) end },
    { { 2, 3 }, call = function(a) return a:pieces(2, math.maxinteger) end },
    known = function() return (select(3, pl.arange(1, 7):pieces(1, 3))), { 7 } end,
  },
  select = {
    { { 3, 4 }, call = function(a) return a:select(2, 2), a[-1] end },
    known = function() return pl.tensor({ { 1, 2 }, { 3, 4 } }):select(2, -1), { 2, 4 } end,
  },
  unsqueeze = {
    { { 3, 2 }, call = function(a) return a:unsqueeze(1), a:unsqueeze(-1), a:unsqueeze(3) end },
    known = function() return pl.tensor({ 1, 2 }):unsqueeze(2), { { 1 }, { 2 } } end,
  },
  squeeze = {
    { { 1, 3, 1 }, call = function(a) return a:squeeze(), a:squeeze(1), a:squeeze(2) end },
    known = function() return pl.tensor({ { 1, 2 } }):squeeze(), { 1, 2 } end,
  },
  expand = {
    { { 3, 1 }, call = function(a) return a:expand { 2, 3, 4 } end },
    { { 1, 3 }, call = function(a) return a:expand { 4, -1 } end },
    known = function() return pl.tensor({ 1, 2 }):expand { 2, 2 }, { { 1, 2 }, { 1, 2 } } end,
  },
  contiguous = {
    { { 3, 4 }, call = function(a) return a:transpose(1, 2):contiguous() end },
    { { 3, 4 }, call = function(a) return a:contiguous() * 1 end },
  },
  clone = { { { 3, 4 }, call = function(a) return a:clone() end } },
  detach = { flat = true, { { 3, 4 }, call = function(a) return a:detach() end } },
  cat = {
    { { 2, 3 }, { 2, 1 }, { 2, 0 }, call = function(...) return pl.cat({ ... }, 2) end },
    { { 2, 3 }, { 1, 3 }, call = function(...) return pl.cat { ... } end },
    known = function() return pl.cat({ pl.tensor { 1, 2 }, pl.tensor { 3 } }, -1), { 1, 2, 3 } end,
  },
  stack = {
    { { 2, 3 }, { 2, 3 }, call = function(...) return pl.stack({ ... }, 2), pl.stack({ ... }, -1),
      pl.stack { ... } end },
    known = function() return pl.stack({ pl.tensor { 1, 2 }, pl.tensor { 3, 4 } }, 2), { { 1, 3 }, { 2, 4 } } end,
  },
  sum = {
    { { 2, 3, 4 }, call = function(a) return a:sum(), a:sum(2), a:sum({ 1, 3 }), a:sum(-1, true),
      a:sum { keepdim = true } end },
    { { 3, 20 }, call = function(a) return a:sum(1), a:t():sum(2) end },
    { {}, call = function(a) return a:sum() end },
    known = function() return pl.tensor({ { 1, 2 }, { 3, 4 } }):sum(1), { 4, 6 } end,
  },
  mean = {
    { { 2, 3, 4 }, call = function(a) return a:mean(), a:mean(2), a:mean({ 1, 3 }, true) end },
    known = function() return pl.tensor({ { 1, 2 }, { 3, 6 } }):mean(2), { 1.5, 4.5 } end,
  },
  var = {
    { { 2, 3, 4 }, call = function(a) return a:var(), a:var(2), a:var({ 1, 3 }, true),
      a:var { dim = 3, correction = 0 } end },
    { { 4, 3 }, call = function(a) return a:std(1) end },
    known = function() return pl.tensor({ 1, 2, 3, 6 }):var(), 14 / 3 end,
  },
  max = {
    { { 2, 3, 4 }, call = function(a) return a:max() end },
    { { 2, 3, 4 }, call = function(a) return a:max(2) end },
    { { 2, 3, 4 }, call = function(a) return a:max(-1, true) end },
    { { 5 }, call = function(a) return a:max(1) end },
    known = function() return pl.tensor({ { 1, 5 }, { 7, 2 } }):max(2), { 5, 7 } end,
  },
  min = {
    { { 2, 3, 4 }, call = function(a) return a:min() end },
    { { 2, 3, 4 }, call = function(a) return a:min(1, true) end },
    known = function() return select(2, pl.tensor({ { 1, 5 }, { 7, 2 } }):min(1)), { 1, 2 } end,
  },
  argmax = {
    flat = true,
    { { 2, 3, 4 }, call = function(a) return a:argmax(2), a:argmax() end },
    known = function() return pl.tensor({ { 1, 5 }, { 7, 2 } }):argmax(2), { 2, 1 } end,
  },
  argmin = {
    flat = true,
    { { 2, 3, 4 }, call = function(a) return a:argmin(3, true), a:argmin() end },
    known = function() return pl.tensor({ { 4, 5 }, { 7, 2 } }):argmin(), 4 end,
  },
  norm = {
    { { 2, 3, 4 }, call = function(a) return a:norm(), a:norm(2), a:norm({ 1, 2 }, true) end },
    known = function() return pl.tensor({ { 3, 4 }, { 5, 12 } }):norm(2), { 5, 13 } end,
  },
  cumsum = {
    { { 2, 3, 4 }, call = function(a) return a:cumsum(2), a:cumsum(-1) end },
    known = function() return pl.tensor({ 1, 2, 3 }):cumsum(1), { 1, 3, 6 } end,
  },
  matmul = {
    { { 3, 4 }, { 4, 2 }, call = function(a, b) return a:matmul(b) end },
    { { 4 }, { 4 }, call = function(a, b) return a:matmul(b) end },
    { { 4 }, { 4, 2 }, call = function(a, b) return a:matmul(b) end },
    { { 3, 4 }, { 4 }, call = function(a, b) return a:matmul(b) end },
    { { 2, 3, 4 }, { 4, 5 }, call = function(a, b) return a:matmul(b) end },
    { { 2, 3, 4 }, { 4 }, call = function(a, b) return a:matmul(b) end },
    { { 4 }, { 2, 4, 3 }, call = function(a, b) return a:matmul(b) end },
    { { 2, 1, 3, 4 }, { 3, 4, 2 }, call = function(a, b) return a:matmul(b) end },
    { { 3, 4 }, { 2, 4, 2 }, call = function(a, b) return a:matmul(b) end },
    { { 2, 0 }, { 0, 3 }, call = function(a, b) return a:matmul(b) end },
    { { 0, 2 }, { 2, 3 }, call = function(a, b) return a:matmul(b) end },
    { { 3, 4 }, call = function(a) return a:matmul(a:t()) end },
    { { 1, 4 }, { 1, 4 }, call = function(a, b) return a:expand({ 3, 4 }):matmul(b:expand({ 2, 4 }):t()) end },
    known = function()
      return pl.tensor({ { 1, 2 }, { 3, 4 } }):matmul(pl.tensor { { 5, 6 }, { 7, 8 } }), { { 19, 22 }, { 43, 50 } }
    end,
  },
  softmax = {
    { { 2, 3, 4 }, call = function(a) return a:softmax(), a:softmax(2), a:softmax(1) end },
    known = function() return pl.tensor({ 0, math.log(3) }):softmax(1), { 0.25, 0.75 } end,
  },
  log_softmax = {
    { { 2, 3, 4 }, call = function(a) return a:log_softmax(), a:log_softmax(2) end },
    known = function() return pl.tensor({ 0, math.log(3) }):log_softmax(), { math.log(0.25), math.log(0.75) } end,
  },
  logsumexp = {
    { { 2, 3, 4 }, call = function(a) return a:logsumexp(), a:logsumexp(2), a:logsumexp({ 1, 3 }, true) end },
    known = function() return pl.tensor({ 1000, 1000 + math.log(3) }):logsumexp(), 1000 + math.log(4) end,
  },
  layer_norm = {
    { { 2, 3, 5 }, { 5 }, { 5 }, call = function(a, w, b) return a:layer_norm(w, b) end },
    { { 3, 5 }, { 5 }, call = function(a, b) return a:layer_norm(nil, b, 0.1), a:layer_norm() end },
    { { 3, 37 }, { 37 }, { 37 }, call = function(a, w, b) return a:layer_norm(w, b) end },
    { { 2, 4, 16 }, { 16 }, call = function(a, w) return a:layer_norm(w) end },
    { { 6 }, call = function(a) return a:layer_norm() end },
    { { 0, 3 }, { 3 }, { 3 }, call = function(a, w, b) return a:layer_norm(w, b) end },
    known = function() return pl.tensor({ 1, 3 }):layer_norm(nil, nil, 0), { -1, 1 } end,
  },
  rms_norm = {
    { { 2, 3, 5 }, { 5 }, call = function(a, w) return a:rms_norm(w), a:rms_norm { eps = 0.5 } end },
    { { 3, 37 }, { 37 }, call = function(a, w) return a:rms_norm(w) end },
    known = function() return pl.tensor({ 1, 7 }):rms_norm(nil, 0), { 0.2, 1.4 } end,
  },
  dropout = {
    { { 4, 6 }, call = function(a) pl.seed(3) return a:dropout(0.25) end },
    known = function() return pl.tensor({ 1, 2, 3 }):dropout(0), { 1, 2, 3 } end,
  },
  gather = {
    { { 3, 4 }, index = whole { { 1, 4, 4 }, { 2, 2, 1 } }, call = function(a, index) return a:gather(2, index) end },
    { { 3, 4 }, index = whole { { 1, 3, 3 }, { 2, 2, 1 } }, call = function(a, index) return a:gather(1, index) end },
    known = function() return pl.tensor({ { 1, 2 }, { 3, 4 } }):gather(2, pl.tensor({ { 2 }, { 1 } }):long()),
      { { 2 }, { 3 } } end,
  },
  index_select = {
    { { 3, 4 }, index = whole { 2, 2, 4, 1, 1 }, call = function(a, index) return a:index_select(2, index) end },
    { { 3, 4, 2 }, index = whole { 3, 1 }, call = function(a, index) return a:index_select(1, index) end },
    { { 3, 4, 2 }, index = whole {}, call = function(a, index) return a:index_select(2, index) end },
    known = function() return pl.tensor({ 5, 6, 7 }):index_select(1, pl.tensor({ 3, 1 }):long()), { 7, 5 } end,
  },
  scatter_add = {
    { { 3, 4 }, { 2, 3 }, index = whole { { 1, 4, 4 }, { 2, 2, 1 } },
      call = function(a, source, index) return a:scatter_add(2, index, source) end },
    known = function()
      return pl.tensor({ 1, 2 }):scatter_add(1, pl.tensor({ 2, 2 }):long(), pl.tensor { 10, 20 }), { 1, 32 }
    end,
  },
  embedding = {
    { { 5, 3 }, index = whole { { 1, 5 }, { 5, 2 } }, call = function(a, index) return pl.embedding(a, index) end },
    { { 5, 3 }, index = whole(2), call = function(a, index) return pl.embedding(a, index) end },
    { { 5, 0 }, index = whole { 2, 3 }, call = function(a, index) return pl.embedding(a, index) end },
    known = function() return pl.embedding(pl.tensor { { 1, 2 }, { 3, 4 } }, pl.tensor({ 2, 1 }):long()),
      { { 3, 4 }, { 1, 2 } } end,
  },
  one_hot = {
    flat = true,
    { index = whole { { 1, 3 }, { 2, 3 } }, call = function(index) return pl.one_hot(index, 4) end },
    known = function() return pl.one_hot(pl.tensor({ 2, 1 }):long(), 2), { { 0, 1 }, { 1, 0 } } end,
  },
  scaled_dot_product_attention = {
    { { 2, 3, 5, 4 }, { 2, 3, 7, 4 }, { 2, 3, 7, 4 },
      call = function(q, k, v)
        return pl.scaled_dot_product_attention(q, k, v), q:scaled_dot_product_attention(k, v, { scale = 0.3 })
      end },
    { { 1, 2, 3, 2 }, { 1, 2, 5, 2 }, { 1, 2, 5, 2 },
      call = function(q, k, v) return pl.scaled_dot_product_attention(q, k, v, { causal = true }) end },
    { { 0, 2, 3, 2 }, { 0, 2, 3, 2 }, { 0, 2, 3, 2 },
      call = function(q, k, v) return pl.scaled_dot_product_attention(q, k, v, true) end },
    { { 2, 1, 0, 3 }, { 2, 1, 2, 3 }, { 2, 1, 2, 3 },
      call = function(q, k, v) return pl.scaled_dot_product_attention(q, k, v) end },
    known = function()
      local q, k = pl.tensor { { { { 1 }, { 1 } } } }, pl.tensor { { { { 0 }, { math.log(3) } } } }
      return pl.scaled_dot_product_attention(q, k, pl.tensor { { { { 4 }, { 8 } } } }, { causal = true }),
        { { { { 4 }, { 7 } } } }
    end,
  },
  cross_entropy = {
    { { 3, 4 }, index = whole { 4, 1, 2 }, call = function(a, labels) return pl.cross_entropy(a, labels) end },
    { { 2, 3, 4 }, index = whole { { 4, 1, 2 }, { 1, 1, 3 } },
      call = function(a, labels) return pl.cross_entropy(a, labels, { label_smoothing = 0.2, reduction = "sum" }) end },
    { { 3, 4 }, index = whole { 4, 0, 2 },
      call = function(a, labels)
        return pl.cross_entropy(a, labels, { ignore_index = 0, label_smoothing = 0.1 }),
          pl.cross_entropy(a, labels, { ignore_index = 0, reduction = "none" })
      end },
    { { 4 }, index = whole(3), call = function(a, label) return pl.cross_entropy(a, label) end },
    { { 3, 41 }, index = whole { 41, 1, 2 },
      call = function(a, labels)
        return pl.cross_entropy(a, labels:to "int32", { reduction = "none" }),
          pl.cross_entropy(a, labels:to "uint8", { ignore_index = 2, label_smoothing = 0.3 })
      end },
    { { 0, 4 }, index = whole {}, call = function(a, labels)
      return pl.cross_entropy(a, labels, { reduction = "sum" }) end },
    known = function()
      return pl.cross_entropy(pl.tensor { { 0, math.log(3) }, { 5, 5 } }, { 1, 2 }, { reduction = "none" }),
        { math.log(4), math.log(2) }
    end,
  },
  linear_cross_entropy = {
    { { 5, 3 }, { 4, 3 }, { 4 }, index = whole { 4, 1, 2, 2, 3 },
      call = function(x, w, b, labels)
        return pl.linear_cross_entropy(x, w, labels, { bias = b, chunk = 2, label_smoothing = 0.1 })
      end },
    { { 2, 3, 3 }, { 4, 3 }, index = whole { { 4, 1, 0 }, { 2, 0, 3 } },
      call = function(x, w, labels)
        return pl.linear_cross_entropy(x, w, labels, { ignore_index = 0, chunk = 4 }),
          pl.linear_cross_entropy(x, w, labels, { ignore_index = 0, reduction = "sum" })
      end },
    { { 3 }, { 4, 3 }, index = whole(2), call = function(x, w, label)
      return pl.linear_cross_entropy(x, w, label) end },
    { { 0, 3 }, { 4, 3 }, { 4 }, index = whole {}, call = function(x, w, b, labels)
      return pl.linear_cross_entropy(x, w, labels, { bias = b, reduction = "sum" }) end },
    known = function()
      return pl.linear_cross_entropy(pl.tensor { { 1 }, { 0 } }, pl.tensor { { 0 }, { math.log(3) } }, { 1, 2 },
        { reduction = "sum" }), math.log(4) + math.log(2)
    end,
  },
}

local function arguments(example, device)
  local given = {}
  for i, shape in ipairs(example) do
    local form = table.move(shape, 1, #shape, 1, { dtype = "float64" })
    given[i] = pl.randn(form):to(device)
  end
  return given
end

local function with_index(example, device)
  local index = example.index and example.index(device)
  return function(...)
    if not index then return example.call(...) end
    local given = table.pack(...)
    given[given.n + 1] = index
    return example.call(table.unpack(given, 1, given.n + 1))
  end
end

local function results_agree(expected, got, tolerance, path)
  assert.equal(#expected, #got, path)
  for i, t in ipairs(expected) do check.same(t, got[i]:to(t.dtype), tolerance, ("%s: result %d"):format(path, i)) end
end

local wide_only <const> = { scatter_add = true } -- says so, for 16-bit types

-- Values and gradients in 16-bit types against float64 from the same rounded numbers.
local function in_16_bits(name, call, given, flat)
  for dtype, tolerance in pairs { float16 = 8e-3, bfloat16 = 6e-2 } do
    local narrow, wide = {}, {}
    for i, t in ipairs(given) do
      narrow[i] = t:to(dtype)
      wide[i] = narrow[i]:to "float64"
    end
    results_agree({ call(table.unpack(wide)) }, { call(table.unpack(narrow)) }, tolerance, name .. " in " .. dtype)
    if not flat then
      local expected, got = check.first_gradients(call, wide), check.first_gradients(call, narrow)
      for i, g in pairs(expected) do
        check.same(g, got[i]:to "float64", tolerance, ("%s in %s: gradient %d"):format(name, dtype, i))
      end
    end
  end
end

-- Results and gradients in float64 against those of the same numbers on the CPU.
local function as_on_the_cpu(name, example, given, call, flat)
  local same_call, here = with_index(example, "cpu"), {}
  for i, t in ipairs(given) do here[i] = t:to "cpu" end
  results_agree({ same_call(table.unpack(here)) }, { call(table.unpack(given)) }, 1e-12, name .. " as on the CPU")
  if flat then return end
  local expected, got = check.first_gradients(same_call, here), check.first_gradients(call, given)
  for i = 1, #given do
    assert.equal(expected[i] ~= nil, got[i] ~= nil, name)
    if expected[i] then
      check.same(expected[i], got[i], 1e-10, ("%s as on the CPU: gradient %d"):format(name, i))
    end
  end
end

local function each_example(name, example, device, flat)
  local call, given = with_index(example, device), arguments(example, device)
  local results = { call(table.unpack(given)) }
  collectgarbage()
  local depends = check.gradients(call, given, 1e-6, name)
  assert.equal(not flat, depends, name .. ": part of the graph")
  if device ~= "cpu" and name ~= "dropout" then as_on_the_cpu(name, example, given, call, flat) end
  for i, t in ipairs(given) do
    for form, strided in pairs(check.strided(t)) do
      local trial = table.move(given, 1, #given, 1, {})
      trial[i] = strided
      results_agree(results, { call(table.unpack(trial)) }, 1e-12, ("%s, input %d %s"):format(name, i, form))
      if not flat then check.gradients(call, trial, 1e-6, name .. " " .. form) end
    end
    if #t.shape > 0 and t:numel() > 0 then
      local trial = table.move(given, 1, #given, 1, {})
      trial[i] = t:narrow(1, 1, 1):expand(t.shape)
      local packed = table.move(trial, 1, #given, 1, {})
      packed[i] = trial[i]:clone()
      results_agree({ call(table.unpack(packed)) }, { call(table.unpack(trial)) }, 1e-12, name .. ", expanded")
    end
  end
  check.starved(call, given, name, device)
  local single = {}
  for i, t in ipairs(given) do single[i] = t:float() end
  results_agree(results, { call(table.unpack(single)) }, 1e-5, name .. " in float32")
  if not wide_only[name] then in_16_bits(name, call, given, flat) end
end

describe("every operation", function()
  for _, device in ipairs(devices) do
    for _, row in ipairs(core.pointwise) do
      it(row.name .. " on " .. device.name, function()
        pl.seed(11)
        local before = check.buffers()
        elementwise(row, device.name)
        assert.equal(before, check.buffers(), row.name .. ": buffers left")
      end)
    end
    for _, operation in ipairs(core.operations) do
      it(operation.name .. " on " .. device.name, function()
        local list = assert(examples[operation.name], operation.name .. ": add an example to this test")
        pl.seed(12)
        local before = check.buffers()
        for _, example in ipairs(list) do each_example(operation.name, example, device.name, list.flat) end
        if list.known then
          local got, expected = list.known()
          check.near(expected, got, 1e-6, operation.name)
        end
        assert.equal(before, check.buffers(), operation.name .. ": buffers left")
      end)
    end
  end
end)
