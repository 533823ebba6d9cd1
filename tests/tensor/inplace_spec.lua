-- In-place changes: what other views see, overlapping memory, and broadcasting.
local pl = require "perilune"
local check = require "tests.tensor.check"

describe("in-place changes", function()
  it("of one view show in the others", function()
    local t = pl.zeros { 2, 3 }
    t[1] = 5
    t:t()[2]:add_(1)
    t:narrow(2, 3, 1):copy_(pl.tensor { { 7 }, { 8 } })
    check.near({ { 5, 6, 7 }, { 0, 1, 8 } }, t)
  end)

  it("from an overlapping view see the old values", function()
    local n <const> = 5000
    local t = pl.arange(1, n)
    t:narrow(1, 2, n - 1):copy_(t:narrow(1, 1, n - 1))
    assert.equal(1, t[2]:item())
    assert.equal(n - 1, t[n]:item())
    local m = pl.tensor { { 1, 2 }, { 3, 4 } }
    m:add_(m:t())
    check.near({ { 2, 5 }, { 5, 8 } }, m)
    m:copy_(m:t())
    m:add_(m)
    check.near({ { 4, 10 }, { 10, 16 } }, m)
    m:add_(m[1], 2)
    check.near({ { 12, 30 }, { 18, 36 } }, m)
  end)

  it("of expanded tensors are refused", function()
    local t = pl.zeros({ 1 }):expand { 3 }
    assert.matches("add_: in%-place change of an expanded tensor", check.message(t.add_, t, 1))
    assert.matches("copy_: in%-place change of an expanded", check.message(function() t:copy_(pl.ones { 3 }) end))
  end)

  it("broadcast their value, never themselves", function()
    local t = pl.zeros { 2, 2 }
    t:copy_(pl.tensor { 1, 2 })
    check.near({ { 1, 2 }, { 1, 2 } }, t)
    assert.matches("copy_: shape %[3%] does not broadcast to %[2, 2%]", check.message(t.copy_, t, pl.ones { 3 }))
    assert.matches("mul_: value of shape %[1, 2, 2%] does not broadcast", check.message(t.mul_, t, pl.ones { 1, 2, 2 }))
  end)
end)
