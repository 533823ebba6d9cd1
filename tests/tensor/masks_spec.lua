-- masked_fill, tril, triu and allclose: values, types, gradients, and what they refuse.
local pl = require "perilune"
local check = require "tests.tensor.check"

local inf <const>, nan <const> = math.huge, 0 / 0

describe("a mask", function()
  it("fills where it is not zero, also when it broadcasts", function()
    local t = pl.tensor { { 1, 2 }, { 3, nan } }
    local mask = pl.tensor({ false, true }, { dtype = "bool" })
    check.near({ { 1, -inf }, { 3, -inf } }, t:masked_fill(mask, -inf))
    check.near({ { 1, 0 }, { 3, 0 } }, pl.masked_fill(t, pl.tensor { 0, 0.5 }, 0))
    for _, dtype in ipairs { "float16", "float64", "int64", "uint8", "bool" } do
      assert.equal(dtype, pl.ones({ 2, dtype = dtype }):masked_fill(mask, 0).dtype)
    end
  end)

  it("has a gradient where it does not fill", function()
    local x = pl.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "float64" }):requires_grad()
    local w = pl.tensor({ { 2, 3 }, { 4, 5 } }, { dtype = "float64" });
    (x:masked_fill(pl.gt(x, 2.5), 7) * w):sum():backward()
    check.near({ { 2, 3 }, { 0, 0 } }, x.grad)
  end)

  it("must fit the tensor", function()
    local t, wide = pl.ones { 2 }, pl.ones { 3, 2 }
    assert.matches("%[3, 2%]", check.message(t.masked_fill, t, wide, 0))
    assert.matches("masked_fill: mask: expected a tensor, got number", check.message(t.masked_fill, t, 1, 0))
    assert.matches("masked_fill: value: expected a number, got nil", check.message(t.masked_fill, t, t))
    assert.matches("masked_fill: value: expected an integer for int64, got 0.5",
      check.message(pl.masked_fill, t:long(), t, 0.5))
    assert.matches("masked_fill: self: expected a tensor, got number", check.message(pl.masked_fill, 1, t, 0))
  end)
end)

describe("the triangles of a matrix", function()
  it("are the elements on one side of a diagonal", function()
    local t = pl.arange(1, 6):reshape { 2, 3 }
    check.near({ { 1, 0, 0 }, { 4, 5, 0 } }, t:tril())
    check.near({ { 1, 2, 3 }, { 0, 5, 6 } }, t:triu())
    check.near({ { 1, 2, 0 }, { 4, 5, 6 } }, pl.tril(t, 1))
    check.near({ { 0, 2, 3 }, { 0, 0, 6 } }, pl.triu(t, 1))
    check.near({ { 0, 0, 0 }, { 4, 0, 0 } }, pl.tril(t, -1))
    check.near({ { 1, 2, 3 }, { 4, 5, 6 } }, pl.triu(t, -1))
    check.near({ { { 1, 0 }, { inf, 1 } }, { { 1, 0 }, { 1, 1 } } },
      pl.tensor({ { { 1, nan }, { inf, 1 } }, { { 1, 1 }, { 1, 1 } } }):tril())
    for _, dtype in ipairs { "float16", "float64", "int64", "bool" } do
      assert.equal(dtype, pl.ones({ 2, 2, dtype = dtype }):tril().dtype)
    end
  end)

  it("have a gradient where they keep", function()
    local x = pl.ones({ 2, 2, 2, dtype = "float64" }):requires_grad()
    x:tril():sum():backward()
    check.near({ { { 1, 0 }, { 1, 1 } }, { { 1, 0 }, { 1, 1 } } }, x.grad)
  end)

  it("want a matrix and a whole number", function()
    assert.matches("tril: expected at least 2 dimensions, got 1", check.message(pl.tril, pl.ones { 2 }))
    assert.matches("triu: diagonal: expected an integer, got 0.5", check.message(pl.triu, pl.ones { 2, 2 }, 0.5))
    assert.matches("triu: self: expected a tensor, got nil", check.message(pl.triu))
  end)
end)

describe("allclose", function()
  local function close(a, b, options) return pl.allclose(pl.tensor(a), pl.tensor(b), options) end

  it("compares relative to the second, and absolutely", function()
    assert.is_true(close({ 1, 2 }, { 1, 2 }))
    assert.is_false(close({ 1, 2 }, { 1, 2.1 }))
    assert.is_true(close({ 1, 2 }, { 1, 2.1 }, { rtol = 0.1 }))
    assert.is_true(close({ 0 }, { 0.05 }, { rtol = 0, atol = 0.1 }))
    assert.is_false(close({ 100 }, { 0 }, { rtol = 10 }))
    assert.is_true(pl.ones({ 2, 2 }):allclose(1))
    assert.is_true(pl.ones({ 2, 2 }):allclose(pl.ones { 2 }))
    assert.is_true(pl.allclose(pl.zeros { 0 }, pl.zeros { 0 }))
    assert.is_false(pl.allclose(pl.tensor({ (1 << 53) - 1 }, { dtype = "int64" }), 0))
  end)

  it("takes infinities and NaN as PyTorch does", function()
    assert.is_true(close({ inf }, { inf }))
    assert.is_false(close({ inf }, { -inf }))
    assert.is_false(close({ 5 }, { inf }))
    assert.is_false(close({ nan }, { nan }))
    assert.is_true(close({ nan, 1 }, { nan, 1 }, { equal_nan = true }))
    assert.is_false(close({ nan, 1 }, { 1, nan }, { equal_nan = true }))
  end)

  it("leaves nothing behind and says what is wrong", function()
    local a = pl.ones { 2 }
    local before = check.buffers()
    for _ = 1, 3 do a:allclose(a) end
    assert.equal(before, check.buffers())
    assert.matches("allclose: second operand: expected a tensor or a number, got string",
      check.message(a.allclose, a, "x"))
    assert.matches("allclose: unknown option 'tol'", check.message(a.allclose, a, a, { tol = 1 }))
    assert.matches("allclose: rtol: expected a number, got string", check.message(a.allclose, a, a, { rtol = "x" }))
    assert.matches("do not broadcast", check.message(a.allclose, a, pl.ones { 3 }))
  end)
end)
