-- pl.monitor: its picture, the lines it writes to a log, and what it refuses.
local pl = require "perilune"
local message_of = require "tests.message_of"
local program = require "bind.program"

local function svg_of(monitor) return getmetatable(monitor).__mime(monitor)["image/svg+xml"] end

-- The polylines of a picture as lists of { x, y }.
local function lines_of(svg)
  local lines = {}
  for text in svg:gmatch '<polyline points="([^"]*)"' do
    local line = {}
    for x, y in text:gmatch "([%d.-]+),([%d.-]+)" do line[#line + 1] = { tonumber(x), tonumber(y) } end
    lines[#lines + 1] = line
  end
  return lines
end

local function add_all(monitor, name, ys)
  for step, y in ipairs(ys) do monitor:add(step, { [name] = y }) end
  return monitor
end

describe("a monitor's picture", function()
  it("has a panel per name, with its last value", function()
    local monitor = pl.monitor { title = "gru" }
    monitor:add(1, { loss = 2, ["a<b"] = 1 })
    monitor:add(2, { loss = pl.tensor { 0.5 } })
    monitor:add(3, { later = 0 / 0 })
    local svg = svg_of(monitor)
    for _, text in ipairs { ">loss<", ">0.5<", ">a&lt;b<", ">later<", ">nan<", ">nothing to draw<" } do
      assert.truthy(svg:find(text, 1, true), text)
    end
    assert.equal("gru  step 3  a<b 1  loss 0.5  later nan", tostring(monitor))
    assert.is_nil(svg_of(pl.monitor()))
    assert.equal("no steps yet", tostring(pl.monitor()))
  end)

  it("draws what it was given to scale", function()
    local line = lines_of(svg_of(add_all(pl.monitor(), "loss", { 4, 2, 3, 0 })))[1]
    assert.equal(4, #line)
    local left, top, width, height = line[1][1], line[1][2], line[4][1] - line[1][1], line[4][2] - line[1][2]
    for i, y in ipairs { 4, 2, 3, 0 } do
      assert.is_true(math.abs(left + width * (i - 1) / 3 - line[i][1]) < 0.11)
      assert.is_true(math.abs(top + height * (4 - y) / 4 - line[i][2]) < 0.11)
    end
  end)

  it("draws logarithms", function()
    local line = lines_of(svg_of(add_all(pl.monitor { logy = true }, "loss", { 1000, 100, 1 })))[1]
    assert.is_true(math.abs((line[2][2] - line[1][2]) / (line[3][2] - line[1][2]) - 1 / 3) < 0.002)
    assert.equal(2, #lines_of(svg_of(add_all(pl.monitor { logy = true }, "loss", { 8, 4, 0, 4, 2 }))))
  end)

  it("interrupts a curve where a value is not finite", function()
    assert.equal(2, #lines_of(svg_of(add_all(pl.monitor(), "loss", { 8, 4, 1 / 0, 4, 2 }))))
  end)

  it("stays small", function()
    local monitor = pl.monitor()
    for step = 1, 50000 do monitor:add(step, { loss = step % 17 }) end
    local svg = svg_of(monitor)
    assert.is_true(#svg < 20000)
    assert.truthy(svg:find("<polygon", 1, true))
  end)

  it("is drawn of any values", function()
    for _, ys in ipairs { { 0 }, { 5, 5, 5 }, { -1e300, 1e300 }, { -math.huge, 1.7e308, -1.7e308 },
      { 1, 1 + 2 ^ -52 }, { 5e-324, 0 }, { 1e-8, 2e-8 }, { 2 ^ 62, 2 ^ 63 } } do
      for _, logy in ipairs { true, false } do
        local svg = svg_of(add_all(pl.monitor { logy = logy }, "loss", ys))
        assert.is_nil(svg:find("%f[%w]nan%f[%W]") or svg:find("%f[%w]inf%f[%W]"), svg)
        assert.is_true(#svg < 5000)
      end
    end
  end)
end)

describe("a monitor in a log", function()
  it("writes a line when it is closed, by hand, by <close> or by an error", function()
    local _, err = program.evaluate [[
      local pl = require "perilune"
      local m = pl.monitor { title = "by hand" } m:log(1, { loss = 2 }) m:log(2, { loss = 1 }) m:close() m:close()
      do local m <close> = pl.monitor() m:log(7, { loss = 0.25, norm = 3 }) end
      pcall(function() local m <close> = pl.monitor() m:log(1, { loss = 5 }) error "no" end)
      do local m <close> = pl.monitor() m:add(1, { loss = 5 }) end]]
    assert.equal("by hand  step 2  loss 1\nstep 7  loss 0.25  norm 3\nstep 1  loss 5\n", err)
  end)

  it("writes lines far apart", function()
    local _, err = program.evaluate [[
      local core = require "perilune.core"
      local now = 0
      core.time = function() return now end
      local m <close> = require "perilune".monitor()
      for step = 1, 150 do now = step m:log(step, { loss = 1 }) end]]
    assert.equal("step 60  loss 1\nstep 120  loss 1\nstep 150  loss 1\n", err)
  end)
end)

describe("a monitor in a terminal", function()
  it("draws one line over and over, and ends it", function()
    local _, err = program.evaluate [[
      local core = require "perilune.core"
      local now = 0
      core.time, core.frontend = function() return now end, function() return "terminal" end
      local m <close> = require "perilune".monitor()
      for step = 1, 3 do now = now + 0.06 m:log(step, { loss = step }) end]]
    assert.equal("\rstep 1  loss 1\27[K\rstep 3  loss 3\27[K\rstep 3  loss 3\27[K\n", err)
  end)
end)

describe("a monitor", function()
  it("names what is wrong", function()
    local monitor = pl.monitor()
    assert.matches("monitor_spec.lua:%d+: monitor: log: step: expected a number, got 'one'",
      message_of(function() monitor:log("one", {}) end))
    assert.matches("values: expected a table of numbers by name, got 3", message_of(monitor.log, monitor, 1, 3))
    assert.matches("loss: expected a number or a tensor of one element, got 'low'",
      message_of(monitor.log, monitor, 1, { loss = "low" }))
    assert.matches("values: expected names that are strings, got 1", message_of(monitor.log, monitor, 1, { 3 }))
    assert.matches("unknown option 'titel'; expected logy, title", message_of(pl.monitor, { titel = "a" }))
    assert.matches("logy: expected a boolean, got 2", message_of(pl.monitor, { logy = 2 }))
    assert.matches("title: expected a string, got 2", message_of(pl.monitor, { title = 2 }))
  end)
end)
