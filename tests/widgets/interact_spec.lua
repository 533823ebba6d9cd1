-- pl.interact: what an abbreviation becomes, how the function is called, and how it goes where nobody shows widgets.
local new_front_end = require "widgets.front_end"

describe("interact", function()
  local front, widgets, interact

  before_each(function()
    front = new_front_end()
    widgets, interact = front.widgets, front.interact
  end)

  local function ignore() end

  local function control(value) return interact(ignore, { x = value }).controls.x end

  local function tells(expected, value) assert.are.equal(expected, tostring(control(value))) end

  it("makes widgets of abbreviations", function()
    tells('IntSlider{ value = 10, min = -10, max = 30, description = "x" }', 10)
    tells('IntSlider{ value = -2, min = -6, max = 2, description = "x" }', -2)
    tells('IntSlider{ value = 0, max = 1, description = "x" }', 0)
    tells('FloatSlider{ value = 1.5, min = -1.5, max = 4.5, description = "x" }', 1.5)
    tells('IntSlider{ value = 5, max = 10, description = "x" }', { 0, 10 })
    tells('IntSlider{ value = 4, max = 10, step = 4, description = "x" }', { 0, 10, 4 })
    tells('FloatSlider{ value = 0.5, max = 1.0, description = "x" }', { 0, 1.0 })
    tells('FloatSlider{ value = 0.5, max = 1.0, step = 0.25, description = "x" }', { 0, 1, 0.25 })
    tells('Checkbox{ description = "x", value = true }', true)
    tells('Text{ description = "x", value = "a" }', "a")
    assert.are.same({ 1, "a" }, { control({ "a", "b" }).index, control({ "a", "b" }).value })
    assert.are.equal(4, #control({ 1, 2, 3, 4 }).options)
    assert.are.equal(2, control({ one = 2 }).value)
    local own = widgets.IntText { value = 3 }
    assert.are.equal(own, control(own))
    assert.are.equal("x", own.description)
    tells('IntText{ description = "mine", value = 0 }', widgets.IntText { description = "mine" })
  end)

  it("says what it cannot make a widget of", function()
    local function raises(expected, ...)
      local ok, message = pcall(interact, ...)
      assert.is_false(ok)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    raises("interact: f: expected a function, got a number", 5, {})
    raises("interact: options: expected a table from names to values, got a nil", ignore)
    raises("interact: options: expected names as keys, got 1", ignore, { 5 })
    raises("interact: x: expected a number, a boolean, a string, a table or a widget with a value, got a function",
      ignore, { x = print })
    raises("got HBox", ignore, { x = widgets.HBox() })
    raises("interact: x: expected { low, high } or { low, high, step }, got { 2, 1 }", ignore, { x = { 2, 1 } })
    raises("got { 1, 2, 0 }", ignore, { x = { 1, 2, 0 } })
    raises("got { 1, 2, 3 }; a choice of numbers is widgets.Dropdown", ignore, { x = { 1, 2, 3 } })
    raises("interact: rat: expected a parameter of the function, which are rate, depth",
      function(rate, depth) return rate, depth end, { rat = 1, depth = 2 })
    raises("interact: b: expected a parameter of the function, which are a", function(a) return a end, { a = 1, b = 2 })
    raises("interact: x: expected values to choose from, got an empty table", ignore, { x = {} })
  end)

  it("calls the function with arguments by name, in the order of its parameters", function()
    local calls = {}
    local one = interact(function(b, a) calls[#calls + 1] = { b, a } end, { a = 1, b = "t" })
    one.controls.a.value = 2
    front.update(one.controls.b, { value = "u" })
    assert.are.same({ { "t", 1 }, { "t", 2 }, { "u", 2 } }, calls)
    assert.are.same({ one.controls.b, one.controls.a, one.output }, one.box.children)
    local partly
    interact(function(...) partly = { select("#", ...), ... } end, { a = 1 })
    assert.are.same({ 1, { a = 1 } }, partly)
    interact(function(a, b, c) partly = { a, b, c } end, { c = 3, a = 1 })
    assert.are.same({ [1] = 1, [3] = 3 }, partly)
  end)

  it("calls others with a table of values, under sorted names", function()
    local got
    local one = interact(function(options) got = options end, { z = 1, y = true })
    assert.are.same({ z = 1, y = true }, got)
    assert.are.same({ one.controls.y, one.controls.z, one.output }, one.box.children)
  end)

  it("returns what can be called as the function, and shows nothing", function()
    local one = interact(function(x) return x * 2 end, { x = 1 })
    assert.are.equal(10, one(5))
    assert.are.same({}, getmetatable(one).__mime())
  end)
end)
