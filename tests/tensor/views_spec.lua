-- Chains of views, drawn at random, against a model in plain tables: values, gradients, copies and in-place changes.
local pl = require "perilune"
local check = require "tests.tensor.check"

-- The model: sizes and the values in row-major order. Values are the positions in the base tensor, so that they say
-- where every gradient must go.

local function count(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return n
end

--- A model of the given shape whose element at `index` (1-based sizes) is that of `from` at source(index).
local function gathered(from, shape, source)
  local strides, n = {}, 1
  for i = #from.shape, 1, -1 do
    strides[i] = n
    n = n * from.shape[i]
  end
  local values, index = {}, {}
  for k = 0, count(shape) - 1 do
    local left = k
    for i = #shape, 1, -1 do
      index[i] = left % shape[i] + 1
      left = left // shape[i]
    end
    local at, offset = source(index), 1
    for i, stride in ipairs(strides) do offset = offset + (at[i] - 1) * stride end
    values[k + 1] = from.values[offset]
  end
  return { shape = shape, values = values }
end

local function copy(list) return table.move(list, 1, #list, 1, {}) end
local function pick(n) return math.random(n) end

local function divisors(n)
  local list = {}
  for i = 1, n do if n % i == 0 then list[#list + 1] = i end end
  return list
end

-- Each takes tensor and model and returns both seen anew, or nothing when it does not apply.
local steps <const> = {
  function(t, m) -- permute
    local order = {}
    for i = 1, #m.shape do table.insert(order, pick(i), i) end
    local shape = {}
    for i, axis in ipairs(order) do shape[i] = m.shape[axis] end
    return t:permute(order), gathered(m, shape, function(index)
      local at = {}
      for i, axis in ipairs(order) do at[axis] = index[i] end
      return at
    end)
  end,
  function(t, m) -- narrow
    if #m.shape == 0 then return end
    local axis = pick(#m.shape)
    local start = pick(m.shape[axis])
    local shape = copy(m.shape)
    shape[axis] = pick(m.shape[axis] - start + 1)
    return t:narrow(axis, start, shape[axis]), gathered(m, shape, function(index)
      local at = copy(index)
      at[axis] = at[axis] + start - 1
      return at
    end)
  end,
  function(t, m) -- select
    if #m.shape < 2 then return end
    local axis = pick(#m.shape)
    local place, shape = pick(m.shape[axis]), copy(m.shape)
    table.remove(shape, axis)
    return t:select(axis, place), gathered(m, shape, function(index)
      local at = copy(index)
      table.insert(at, axis, place)
      return at
    end)
  end,
  function(t, m) -- reshape
    local shape, left = {}, #m.values
    for i = 1, pick(4) do
      local list = divisors(left)
      shape[i] = list[pick(#list)]
      left = left // shape[i]
    end
    shape[#shape + 1] = left
    local asked = copy(shape)
    if pick(2) == 1 then asked[pick(#asked)] = -1 end
    return t:reshape(asked), { shape = shape, values = m.values }
  end,
  function(t, m) -- unsqueeze, then expand
    if #m.shape > 4 or #m.values > 300 then return end
    local axis, size, shape = pick(#m.shape + 1), pick(3), copy(m.shape)
    table.insert(shape, axis, size)
    return t:unsqueeze(axis):expand(shape), gathered(m, shape, function(index)
      local at = copy(index)
      table.remove(at, axis)
      return at
    end)
  end,
}

local function agrees(t, m, path)
  assert.same(m.shape, t.shape, path)
  check.near(m.values, check.flat(t), 0, path)
end

describe("chains of views", function()
  for seed = 1, 8 do
    it("show the right elements and lead gradients back, seed " .. seed, function()
      math.randomseed(seed)
      pl.seed(seed)
      local before = check.buffers()
      for round = 1, 40 do
        local s <close> = pl.scope() -- luacheck: ignore
        local shape = {}
        for i = 1, pick(4) do shape[i] = pick(4) end
        local n = count(shape)
        local x = pl.arange(1, n, { dtype = "float64" }):reshape(shape):clone():requires_grad()
        local t, m = x, { shape = shape, values = {} }
        for i = 1, n do m.values[i] = i end
        for step = 1, 6 do
          local path = ("round %d, step %d"):format(round, step)
          local viewed, model = steps[pick(#steps)](t, m)
          if viewed then
            t, m = viewed, model
            agrees(t, m, path)
            agrees(t:contiguous(), m, path)
            assert.is_true(t:clone():is_contiguous())
          end
        end
        if t.is_leaf then t = t * 1 end
        local weights = pl.randn(copy(m.shape)):double()
        local expected = {}
        for i = 1, n do expected[i] = 0 end
        for k, w in ipairs(check.flat(weights)) do expected[m.values[k]] = expected[m.values[k]] + w end
        (t * weights):sum():backward()
        check.near(expected, check.flat(x.grad), 1e-12, "gradient, round " .. round)
        -- The sum along each dimension, and arithmetic of two layouts.
        local packed = t:detach():clone()
        for dim = 1, t:dim() do check.same(packed:sum(dim), t:sum(dim), 1e-12) end
        check.same(packed * 2, t + packed, 0)
      end
      assert.equal(before, check.buffers())
    end)
  end

  it("are views as long as strides allow", function()
    local x = pl.zeros { 4, 6 }
    x:reshape({ 2, 2, 3, 2 })[1]:fill_(1)
    assert.equal(12, x:sum():item())
    x:t():reshape({ 3, 2, 4 })[1]:fill_(5) -- rows of the transpose can be grouped
    assert.equal(5, x[4][2]:item())
    x:t():reshape({ 24 }):fill_(9) -- this needs a copy
    assert.is_true(x:max():item() < 9)
    x:narrow(2, 1, 3):unsqueeze(2):squeeze(2):fill_(7)
    check.near({ 7, 7, 7 }, x[2]:narrow(1, 1, 3))
  end)

  it("are what ipairs visits: the slices of dimension 1, and then it ends", function()
    local t, seen = pl.tensor { { 1, 2 }, { 3, 4 }, { 5, 6 } }, {}
    for i, row in ipairs(t) do seen[i] = row:totable() end
    assert.same({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, seen)
    for _ in ipairs(pl.zeros { 0, 2 }) do error "there is no slice" end
  end)

  it("split and chunk cover the whole", function()
    local x = pl.arange(1, 7)
    local function lists(parts)
      local result = {}
      for i, part in ipairs(parts) do result[i] = part:totable() end
      return result
    end
    check.near({ { 1, 2, 3 }, { 4, 5, 6 }, { 7 } }, lists(x:split(3)))
    check.near({ { 1 }, { 2, 3, 4, 5, 6, 7 } }, lists(x:split { 1, 6 }))
    check.near({ { 1, 2, 3, 4 }, { 5, 6, 7 } }, lists(x:chunk(2)))
    assert.equal(2, #pl.zeros({ 3, 4 }):chunk(2, -1))
  end)
end)
