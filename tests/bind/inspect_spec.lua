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
    local wide = {}
    for i = 1, 100 do
      wide[i] = {}
      for j = 1, 100 do wide[i][j] = { i, j, key = { i } } end
    end
    local _, items = inspect.text(wide):gsub("key = ", "")
    assert.is_true(items > 100 and items < 2000)
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

  it("shows tensors as text and as tables", function()
    local pl = require "perilune"
    local bundle = inspect.bundle(pl.tensor { 1.5, -2 })
    assert.equal("tensor [2] float32 cpu { 1.5000, -2.0000 }", bundle["text/plain"])
    assert.equal("<p>tensor [2] float32 cpu</p><table><thead><tr><th>1</th><th>2</th></tr></thead>" ..
      "<tbody><tr><td>1.5000</td><td>-2.0000</td></tr></tbody></table>", bundle["text/html"])
    local html = inspect.bundle(pl.zeros { 20, 30, dtype = "int64" })["text/html"]
    assert.matches("<th></th><th>1</th><th>2</th><th>3</th><th>…</th><th>28</th>", html)
    assert.matches("<tr><th>…</th>" .. ("<td>…</td>"):rep(7) .. "</tr><tr><th>18</th><td>0</td>", html)
    html = inspect.bundle(pl.zeros { 2, 3, 4, 5 })["text/html"]
    assert.matches("<p>%[2, 3%]</p><table>", html)
    html = inspect.bundle(pl.zeros { 9, 9, 9, 9 })["text/html"]
    assert.matches("<p>%[1, 8%]</p><table>.*<p>…</p>$", html)
    for _, t in ipairs { pl.tensor(1), pl.zeros { 0, 2 } } do assert.is_nil(inspect.bundle(t)["text/html"]) end
  end)

  it("tells an error of __mime in one sentence", function()
    for raised, told in pairs { ["broken"] = "broken", [{}] = "error object is a table" } do
      local object = setmetatable({}, { __mime = function() error(raised, 0) end })
      assert.has_error(function() inspect.bundle(object) end, "__mime failed: " .. told)
    end
  end)

  it("shows several values", function()
    assert.same({ ["text/plain"] = '1\tnil\t"x"' }, inspect.bundle(1, nil, "x"))
  end)
end)
