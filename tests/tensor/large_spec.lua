-- Tensors past one block and one thread: the same numbers as small pieces give, whatever the strides and the threads.
local pl = require "perilune"
local core = require "perilune.core"
local check = require "tests.tensor.check"

-- 90,000 elements: more than the loops' blocks and enough for several threads. No size is a multiple of a vector.
local ROWS <const>, COLUMNS <const> = 250, 360

local function same(expected, got, tolerance, path)
  assert.same(expected.shape, got.shape, path)
  local difference = (expected:double() - got:double()):abs():max():item()
  assert.is_true(difference <= tolerance, ("%s: differs by %s"):format(path, difference))
end

--- Results with one and with three threads must be equal to the bit.
local function with_threads(f)
  local threads = pl.threads(1)
  local first = f()
  pl.threads(3)
  local second = f()
  pl.threads(threads)
  assert.equal(first:numel(), pl.eq(first, second):sum():item(), "depends on the number of threads")
  return second
end

-- The same numbers as several layouts.
local function layouts(t)
  local rows, columns = table.unpack(t.shape)
  local wide = pl.zeros { rows, 2 * columns, dtype = t.dtype }
  wide:narrow(2, 8, columns):copy_(t)
  return { packed = t, transposed = t:t():contiguous():t(), narrowed = wide:narrow(2, 8, columns) }
end

before_each(function() pl.seed(31) end)

describe("large elementwise operations", function()
  for _, row in ipairs(core.pointwise) do
    it(row.name, function()
      local s <close> = pl.scope() -- luacheck: ignore
      local f = core[row.name]
      local operands, halves = {}, { {}, {} }
      for i = 1, row.arity do
        local t = pl.rand { ROWS, COLUMNS } * (row.high - row.low) + row.low
        if i == 2 and row.name ~= "clamp" then t = t[7] end -- a row that broadcasts
        operands[i] = t
      end
      local whole = with_threads(function() return f(table.unpack(operands)) end)
      local size <const> = 50 -- rows of a piece: little enough for one thread
      local pieces = {}
      for start = 1, ROWS, size do
        for i, t in ipairs(operands) do halves[i] = t:dim() == 2 and t:narrow(1, start, size) or t end
        pieces[#pieces + 1] = f(table.unpack(halves, 1, row.arity))
      end
      same(pl.cat(pieces, 1), whole, 0, row.name)
      for name, form in pairs(layouts(operands[1])) do
        local given = table.move(operands, 1, row.arity, 1, {})
        given[1] = form
        same(whole, f(table.unpack(given)), 0, row.name .. " " .. name)
      end
    end)
  end

  it("conversion and copies", function()
    local t = pl.randint(0, 200, { ROWS, COLUMNS })
    for _, dtype in ipairs { "uint8", "int32", "float16", "bfloat16", "float32", "float64" } do
      local expected = t:to(dtype)
      for name, form in pairs(layouts(t)) do
        same(expected, with_threads(function() return form:to(dtype) end), 0, dtype .. " " .. name)
        same(expected, form:to(dtype):clone(), 0, dtype .. " " .. name)
        local target = pl.zeros({ COLUMNS, ROWS, dtype = dtype }):t()
        target:copy_(form)
        same(expected, target, 0, dtype .. " into a transposed tensor from " .. name)
      end
    end
  end)
end)

describe("large reductions", function()
  -- Sums of columns and rows in Lua.
  local function sums(list, rows, columns)
    local by_row, by_column, all = {}, {}, 0
    for i = 1, rows do
      for j = 1, columns do
        local x = list[(i - 1) * columns + j]
        by_row[i], by_column[j], all = (by_row[i] or 0) + x, (by_column[j] or 0) + x, all + x
      end
    end
    return by_row, by_column, all
  end

  for _, dtype in ipairs { "float32", "float64", "int64", "uint8", "bfloat16" } do
    it("sum and mean of " .. dtype, function()
      local t = pl.randint(0, 9, { ROWS, COLUMNS }):to(dtype)
      local by_row, by_column, all = sums(check.flat(t), ROWS, COLUMNS)
      local exact = dtype == "bfloat16" and 5e-3 or 0
      for _, form in pairs(layouts(t)) do
        check.near(by_row, with_threads(function() return form:sum(2) end), exact)
        check.near(by_column, with_threads(function() return form:sum(1) end), exact)
        assert.is_true(math.abs(with_threads(function() return form:sum() end):item() - all) <= exact * all)
        check.near(by_column, form:reshape({ ROWS, 1, COLUMNS }):sum({ 1, 2 }), exact)
        check.near({ all / ROWS / COLUMNS }, form:mean():reshape { 1 }, math.max(exact, 1e-6))
      end
      local deep = t:reshape { 10, 25, 360 }
      check.near(by_column, deep:sum({ 1, 2 }), exact)
      check.near(t:double():reshape({ 10, 25, 360 }):sum({ 1, 3 }):totable(), deep:sum({ 1, 3 }), exact)
      check.near(t:double():reshape({ 10, 25, 360 }):permute({ 2, 1, 3 }):sum(2):totable(), deep:sum(1), exact)
    end)
  end

  it("over middle dimensions are those of every slice", function()
    for _, shape in ipairs { { 7, 5, 130 }, { 60, 3, 9, 70 }, { 4, 1, 6, 8 } } do
      local x = pl.randn { dtype = "float64", table.unpack(shape) }
      local wide = pl.zeros { dtype = "float64", shape[1], 2 * x:numel() // shape[1] }
      local gaps = wide:narrow(2, 3, x:numel() // shape[1]):copy_(x:reshape { shape[1], -1 })
      gaps = gaps:reshape(shape)
      local middle = #shape == 3 and 2 or { 2, 3 }
      local rows = x:reshape { shape[1], -1, shape[#shape] }:transpose(2, 3):contiguous()
      for _, t in ipairs { x, gaps } do
        same(rows:sum(3), with_threads(function() return t:sum(middle) end), 1e-10, "sum")
        same(rows:var(3), with_threads(function() return t:var(middle) end), 1e-10, "var")
        same(rows:norm(3), with_threads(function() return t:norm(middle) end), 1e-10, "norm")
      end
    end
  end)

  it("in float32 lose little", function()
    local ones = pl.full({ 3000000 }, 0.1)
    assert.is_true(math.abs(ones:sum():item() - 300000) < 3) -- one by one it would be 2,000
    assert.is_true(math.abs(ones:reshape({ 1500000, 2 }):sum(1)[2]:item() - 150000) < 1.5)
  end)

  for dtype, exact in pairs { float32 = 3e-7, float64 = 1e-12, bfloat16 = 5e-3 } do
    it("variance and norm of " .. dtype .. " far from 0", function()
      local t = (pl.randn { ROWS, COLUMNS, dtype = "float64" } + 1000):to(dtype)
      local wide = t:double()
      for name, form in pairs(layouts(t)) do
        for _, dims in ipairs { 1, 2, { 1, 2 } } do
          local centred, count = wide - wide:mean(dims, true), wide:numel() // wide:sum(dims):numel()
          local variance, what = (centred * centred):sum(dims) / (count - 1), name .. " " .. count
          local got = with_threads(function() return form:var(dims) end)
          same(pl.ones_like(variance), got / variance, exact, what)
          same(pl.ones_like(variance), form:norm(dims) / (wide * wide):sum(dims):sqrt(), exact, what)
        end
      end
      local deep = t:reshape({ 10, 25, COLUMNS }):permute { 2, 1, 3 }
      same(t:var(1) / t:var(1), deep:var { 1, 2 } / t:var(1), exact, "of two axes")
      assert.equal(0, pl.full({ 3, 70000, dtype = dtype }, 3e18):var(2):max():item())
    end)
  end

  it("extremes and their places", function()
    local t = pl.randint(-1000, 1000, { ROWS, COLUMNS }):float()
    local list = t:totable()
    for _, form in pairs(layouts(t)) do
      for dim = 1, 2 do
        local value, index = form:max(dim)
        local low, low_index = form:min(dim)
        for k = 1, 3 - 2 * (dim - 1) do
          local best, at, least, least_at
          for i = 1, dim == 1 and ROWS or COLUMNS do
            local x = dim == 1 and list[i][k] or dim == 2 and list[k][i]
            if not best or x > best then best, at = x, i end
            if not least or x < least then least, least_at = x, i end
          end
          assert.same({ best, at, least, least_at },
            { value[k]:item(), index[k]:item(), low[k]:item(), low_index[k]:item() })
        end
      end
      assert.equal(t:max(1):max():item(), with_threads(function() return form:max() end):item())
    end
  end)

  it("softmax along either dimension", function()
    local t = pl.randn { ROWS, COLUMNS }
    for name, form in pairs(layouts(t)) do
      for dim = 1, 2 do
        local y = with_threads(function() return form:softmax(dim) end)
        local power = t:double():exp()
        same(power / power:sum(dim, true), y, 1e-6, name)
        same(y:double():log(), form:log_softmax(dim), 1e-5, name)
      end
    end
  end)
end)

describe("large products", function()
  local function product(a, b) -- row by row, through sums only
    local columns = {}
    for j = 1, b.shape[2] do columns[j] = (a * b:select(2, j)):sum(2) end
    return pl.stack(columns, 2)
  end

  it("of every layout", function()
    local a, b = pl.randn { 60, 70, dtype = "float64" }, pl.randn { 70, 30, dtype = "float64" }
    local expected = product(a, b)
    for dtype, tolerance in pairs { float64 = 1e-12, float32 = 2e-5, float16 = 0.2, bfloat16 = 1.5 } do
      for left, x in pairs(layouts(a:to(dtype))) do
        for right, y in pairs(layouts(b:to(dtype))) do
          local name = ("%s %s x %s"):format(dtype, left, right)
          same(expected, x:matmul(y), tolerance, name)
          same(expected, x:expand({ 2, 60, 70 }):matmul(y:expand { 2, 70, 30 })[2], tolerance, name .. " expanded")
          same(expected, y:t():matmul(x:t()):t(), tolerance, name .. " both turned")
        end
      end
    end
  end)

  it("of rows and columns that are views with gaps", function()
    local whole = pl.randn { 40, 40, dtype = "float64" }
    local column, row = whole:narrow(2, 3, 1), whole:narrow(1, 5, 1)
    same(column * row, column:matmul(row), 1e-14, "outer")
    same((row * column:t()):sum(2, true), row:matmul(column), 1e-12, "inner")
    same((whole * row):sum(2), whole:matmul(row[1]), 1e-12, "vector")
    same((whole * column:expand { 40, 40 }):sum(1), whole:select(2, 3):matmul(whole), 1e-12, "vector first")
  end)
end)

describe("large look-ups", function()
  it("agree with one by one", function()
    local weight = pl.randn { 500, 130 }
    local index = pl.randint(1, 500, { 400 })
    local rows = with_threads(function() return pl.embedding(weight, index) end)
    local list = index:totable()
    for _, i in ipairs { 1, 2, 57, 399, 400 } do same(weight[list[i]], rows[i], 0, "row " .. i) end
    same(rows, weight:t():contiguous():t():index_select(1, index), 0, "of a turned table")
    local across = pl.randint(1, 130, { 500, 90 })
    local gathered = with_threads(function() return weight:gather(2, across) end)
    local places = across:totable()
    for _, at in ipairs { { 1, 1 }, { 500, 90 }, { 250, 45 } } do
      local i, j = at[1], at[2]
      assert.equal(weight[i][places[i][j]]:item(), gathered[i][j]:item())
    end
    local counts = pl.zeros({ 500 }):scatter_add(1, index, pl.ones { 400 })
    assert.equal(400, counts:sum():item())
    for _, i in ipairs(list) do assert.is_true(counts[i]:item() >= 1) end
  end)
end)

-- A product of more than 2^30 multiplications on one thread is made in pieces.
describe("a very large product", function()
  local threads
  before_each(function() threads = pl.threads(1) end)
  after_each(function() pl.threads(threads) end)

  local function cycle(n, period)
    local list = {}
    for i = 1, n do list[i] = i % period end
    return pl.tensor(list)
  end

  it("is exact where its numbers are", function()
    local s <close> = pl.scope() -- luacheck: ignore
    local m, n, k = 1010, 1030, 1300
    local row, column, weight = cycle(m, 7):reshape { m, 1 }, cycle(n, 5):reshape { 1, n }, cycle(k, 3)
    local a, b = row * pl.ones { 1, k }, weight:reshape { k, 1 } * column
    local expected = row * column * weight:sum():item()
    for name, one in pairs(layouts(a)) do same(expected, one:matmul(b), 0, name .. " x packed") end
    for name, one in pairs(layouts(b)) do same(expected, a:matmul(one), 0, "packed x " .. name) end
    same(expected:t():contiguous(), b:t():matmul(a:t()), 0, "transposed")
  end)
end)
