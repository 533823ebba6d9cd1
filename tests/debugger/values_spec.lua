-- Values as a debugger shows them: text, type and what is inside, without running any code of the user's.
local pl = require "perilune"
local values = require "perilune.debugger.values"

local function children(value, ...)
  local number = values.variable("x", value, "x").variablesReference
  local found = {}
  for _, child in ipairs(values.children(number, ...)) do found[#found + 1] = child.name .. " = " .. child.value end
  return found
end

local angry = setmetatable({ 1, secret = 2 }, { __name = "Angry", __index = error, __tostring = error, __len = error,
  __pairs = error, __eq = error, __newindex = error })

describe("a value", function()
  it("has a line of text and a type", function()
    for _, row in ipairs {
      { nil, "nil", "nil" }, { 7, "7", "int" }, { 0.5, "0.5", "float" }, { 1 / 0, "inf", "float" },
      { "a\n\"\0", '"a\\n\\"\\x00"', "str" }, { true, "true", "bool" }, { {}, "{}", "table" },
      { { 1, { 2 }, {}, x = "y" }, '{1, {…}, {}, x = "y"}', "table" }, { print, "function: builtin", "function" },
      { angry, "Angry {1, secret = 2}", "Angry" }, { pl.zeros { 2, 3 }, "float32[2, 3] cpu", "float32[2, 3] cpu" },
      { coroutine.create(print), "coroutine: suspended", "coroutine" },
    } do
      local variable = values.variable("x", row[1], "x")
      assert.same({ row[2], row[3] }, { variable.value, variable.type })
    end
    assert.is_true(#values.text(("x"):rep(1e6)) < 200)
    local wide = {}
    for i = 1, 1e5 do wide[i] = i end
    assert.equal("{1, 2, 3, 4, 5, 6, 7, 8, …}", values.text(wide))
  end)

  it("has children", function()
    assert.same({ "[1] = 5", "a = 1", '["b c"] = 2' }, children { 5, a = 1, ["b c"] = 2 })
    assert.same({ "[1] = 1", "secret = 2" }, { table.unpack(children(angry), 1, 2) })
    local up = 3
    assert.same({ "up = 3" }, children(function() return up end))
    assert.same({ "shape = {2}", 'dtype = "float64"', 'device = "cpu"', "grad = nil", "[1] = 1.5", "[2] = 2.5" },
      children(pl.tensor({ 1.5, 2.5 }, { dtype = "float64" })))
    assert.same({}, children({}))
  end)

  it("is listed in pages", function()
    local list = {}
    for i = 1, 1100 do list[i] = i end
    list.name = "n"
    assert.same({ "[3] = 3", "[4] = 4" }, children(list, 2, 2))
    assert.same({ 'name = "n"' }, children(list, 0, 0, "named"))
    assert.equal(501, #children(list))
    assert.equal("… 601 more = ", children(list)[501])
  end)

  it("is known by its number as long as it lives", function()
    local t = { 1 }
    local number = values.variable("t", t).variablesReference
    values.release()
    assert.equal(number, values.variable("t", t).variablesReference)
    t = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.error_matches(function() values.children(number) end, "variablesReference: %d+ is none that is known")
  end)

  it("can be changed inside", function()
    local up, t = 1, { 5, ["a b"] = 6 }
    local function f() return up end
    values.set(values.variable("t", t).variablesReference, '["a b"]', 7)
    values.set(values.variable("t", t).variablesReference, "[1]", nil)
    assert.same({ ["a b"] = 7 }, t)
    values.set(values.variable("f", f).variablesReference, "up", 8)
    assert.equal(8, f())
    assert.error_matches(function() values.set(values.variable("t", t).variablesReference, "none", 1) end,
      "setVariable: 'none' cannot be set there")
  end)
end)
