-- Text of results.
local inspect = require "perilune.inspect"

describe("inspect.text", function()
  it("writes plain values", function()
    assert.equal("1", inspect.text(1))
    assert.equal("1.0", inspect.text(1.0))
    assert.equal("nil", inspect.text(nil))
    assert.equal('"a\\n\\"b\\"\\x00é"', inspect.text 'a\n"b"\0é')
    assert.matches("^function: ", inspect.text(print))
  end)

  it("lays tables open, in order", function()
    assert.equal('{1, 2, {3}, ["a b"] = 1, b = true}', inspect.text { 1, 2, { 3 }, b = true, ["a b"] = 1 })
    assert.equal("{}", inspect.text {})
    assert.equal("{[3] = 1, [2.5] = 2, [true] = 3}", (inspect.text { [3] = 1, [2.5] = 2, [true] = 3 }:gsub(
      "%[2%.5%] = 2, %[3%] = 1", "[3] = 1, [2.5] = 2")))
  end)

  it("breaks what is wide into lines", function()
    local text = inspect.text { ("x"):rep(60), ("y"):rep(60) }
    assert.equal('{\n  "' .. ("x"):rep(60) .. '",\n  "' .. ("y"):rep(60) .. '"\n}', text)
  end)

  it("has limits in depth and length, and knows cycles", function()
    local t = { 1 }
    t.me = t
    assert.equal("{1, me = <contains itself>}", inspect.text(t))
    assert.equal("{{{{{…}}}}}", inspect.text { { { { { { 1 } } } } } })
    assert.equal("{{{{{}}}}}", inspect.text { { { { {} } } } })
    local long = {}
    for i = 1, 1000 do long[i] = i end
    assert.matches("… 940 more", inspect.text(long))
  end)

  it("asks no metamethods but __tostring", function()
    local trap = setmetatable({ a = 1 }, { __index = error, __pairs = error, __len = error })
    assert.equal("{a = 1}", inspect.text(trap))
    assert.equal("mine", inspect.text(setmetatable({}, { __tostring = function() return "mine" end })))
  end)
end)

describe("inspect.bundle", function()
  it("asks __mime, and adds the text", function()
    local object = setmetatable({}, { __mime = function() return { ["text/html"] = "<b>" } end })
    assert.same({ ["text/html"] = "<b>", ["text/plain"] = "{}" }, inspect.bundle(object))
    assert.is_nil(inspect.bundle(setmetatable({}, { __mime = function() return {} end })))
  end)

  it("shows several values", function()
    assert.same({ ["text/plain"] = '1\tnil\t"x"' }, inspect.bundle(1, nil, "x"))
  end)
end)
