-- Inspection: what is said of values and of what stands at the cursor.
local help = require "perilune.code.help"
local pl = require "perilune"
local source = require "perilune.code.source"

-- The text on what stands at the "|" in the code, or at its end.
local function at(code, detail)
  local cursor = code:find("|", 1, true)
  code = code:gsub("|", "", 1)
  local bundle = help.at(code, cursor and cursor - 1 or #code, detail)
  return bundle and bundle["text/plain"], bundle
end

local function of(value, detail)
  return help.of(value, "name", detail)["text/plain"]
end

--- Adds up two numbers:
--   add(1, 2)
local function add(a, b)
  return a + b
end

describe("help.at", function()
  it("finds the name that the cursor touches", function()
    for _, code in ipairs { "string.re|p", "string.rep|", "string.|rep", "x = string.rep|('x')", "string\n.\nrep" } do
      assert.matches("^string%.rep%(s, n %[, separator%]%)", at(code), code)
    end
    assert.matches("^table: ", at "str|ing.rep")
  end)

  it("finds the function whose arguments the cursor is among", function()
    for _, code in ipairs { "string.rep(|", "string.rep(|)", "string.rep('x', |3)", "string.rep(unknown|, 3)",
      "string.rep('x|')", "string.rep((1 + |2)", "string.rep{ 1, |", "string.rep 'x|'", "string.rep(t[|1])" } do
      assert.matches("^string%.rep%(s, n", at(code), code)
    end
    assert.matches("^string%.len", at "string.rep(string.len(|), 2)")
  end)

  it("finds nothing where nothing is known", function()
    for _, code in ipairs { "", "unknown", "f(", "-- string.rep", "x = 'string.rep", "for", "1", ")", "nil" } do
      assert.is_nil(at(code), code)
    end
  end)

  it("knows the locals of the code", function()
    assert.matches("^s%.rep%(s, n", at "local s = string s.rep")
    assert.matches("^f%(a, b%)", at "local function f(a, b) return a end f(|")
    assert.matches("^an object of tensor", at "local pl = require 'perilune' local x = pl.ones{ 2 } x|")
    assert.is_nil(at "local function f(string) return string")
  end)

  it("gives a method without its object", function()
    _G.subject = pl.ones { 2 }
    assert.matches("^subject:sum%(%[dim %[, keepdim%]%]%)\n\nthe sum", at "subject:sum(")
    _G.subject = nil
  end)
end)

describe("help of functions", function()
  it("tells call, comment and place", function()
    local text = of(add)
    assert.matches("^name%(a, b%)\n\nAdds up two numbers:\n  add%(1, 2%)\n\nDefined in [^\n]*help_spec.lua:%d+$", text)
  end)

  it("adds the source for detail 1", function()
    assert.is_truthy(of(add, 1):find("\n\nlocal function add(a, b)\n  return a + b\nend", 1, true))
    assert.is_nil(of(add, 0):find("return a + b", 1, true))
    assert.matches("^name%(%.%.%.%)\n\nwrites", of(print, 1))
  end)

  it("reads the text of cells and of strings that were loaded", function()
    local code = "-- Twice as much.\nfunction twice_of_cell(x)\n  return 2 * x\nend"
    source.remember("In [7]", code)
    assert(load(code, "=In [7]"))()
    local text = of(_G.twice_of_cell, 1)
    assert.matches("^name%(x%)\n\nTwice as much%.\n\nDefined in In %[7%]:2\n\nfunction twice_of_cell%(x%)", text)
    local loaded = assert(load "-- Once.\nlocal function f(x) return x end return f")()
    assert.matches("Once%.", of(loaded))
    assert.matches("^name%(x%)\n\nDefined in In %[8%]:1$", of(assert(load("return function(x) end", "=In [8]"))(), 1))
    _G.twice_of_cell = nil
  end)

  it("keeps a bounded amount of text", function()
    local f = assert(load("return function() end", "=In [first]"))()
    source.remember("In [first]", "return function() end")
    assert.is_truthy(source.definition(f))
    for i = 1, 6 do source.remember("In [big " .. i .. "]", ("x"):rep(1 << 20)) end
    assert.is_nil(source.definition(f))
  end)

  it("takes no text for another of the same name", function()
    local f = assert(load("-- First.\nreturn function() end", "=stdin"))()
    source.remember("stdin", "-- First.\nreturn function() end")
    assert.matches("First", of(f))
    source.remember("stdin", "-- Second.\nreturn function() end")
    assert.equal("name()\n\nDefined in stdin:2", of(f, 1))
  end)

  it("describes classes by what makes their objects", function()
    local text = of(pl.nn.Linear)
    assert.matches("^name%(inputs, outputs, options%)\n\nnn%.Linear%(inputs, outputs", text)
    assert.matches("Options: bias", text)
  end)

  it("says what was declared of functions that others made", function()
    assert.matches("optim%.Adam%(params", of(pl.optim.Adam))
    assert.matches("curves through points", of(pl.plot.line))
    assert.matches("zeros in the shape of t", of(pl.zeros_like))
    assert.matches("elementwise exp%(a%)", of(pl.exp))
  end)
end)

describe("help of values", function()
  it("tells a tensor's shape, type, device and statistics", function()
    local text = of(pl.tensor({ { 1, 2 }, { 3, 0 / 0 } }))
    for _, row in ipairs { "shape +%[2, 2%]", "dtype +float32", "device +cpu", "elements +4", "mean +2", "std +1",
      "min +1", "max +3", "NaN +1" } do
      assert.matches(row, text)
    end
    assert.matches("mean +5%.5\nstd +3%.02765\nmin +1\nmax +10\nNaN +0$",
      of(pl.arange(1, 10, 1, { dtype = "int64" })))
    assert.matches("elements +0$", of(pl.zeros { 0, 3 }))
    assert.matches("NaN +2$", of(pl.tensor { 0 / 0, 0 / 0 }))
    assert.matches("std +nan", of(pl.tensor(3)))
    assert.matches("gradient +wanted", of(pl.ones({ 2 }):requires_grad()))
  end)

  it("looks at a part of a large tensor", function()
    local began = pl.time()
    assert.matches("of +the first 4190000 of 6000000 elements", of(pl.ones { 600, 10000 }))
    assert.matches("of +the first 4194304 of 5000000 elements", of(pl.ones({ 1, 5000000 })))
    assert.is_true(pl.time() - began < 5)
  end)

  it("says that a tensor was dropped", function()
    local t
    do
      local scope <close> = pl.scope()
      t = pl.ones { 2 }
    end
    assert.matches("dropped", of(t))
  end)

  it("leaves gradients and random numbers as they are", function()
    local x = pl.ones({ 2 }):requires_grad()
    local y = x:sum()
    of(x)
    of(y)
    y:backward()
    assert.same({ 1, 1 }, x.grad:totable())
    assert.matches("gradient +tensor %[2%] float32 cpu", of(x))
  end)

  it("tells a table's size and first keys", function()
    local text = of { 10, 20, x = "text", f = print, [2.5] = true, t = pl.ones { 2 } }
    assert.matches("^table: a sequence of 2, 4 keys\n", text)
    for _, row in ipairs { "%[1%] +10", "%[2%.5%] +true", "f +function", 'x +"text"', "t +tensor %[2%] float32 cpu" } do
      assert.matches(row, text)
    end
    assert.equal("table: 0 keys", of {})
    local long = {}
    for i = 1, 1000 do long[i] = i end
    assert.matches("… +988 more$", of(long))
    assert.matches("^table nn.Linear: 5 keys", of(pl.nn.Linear(2, 3)))
  end)

  it("tells what a module is for", function()
    local text = of(pl.optim)
    assert.matches("^table: %d+ keys\n\npl%.optim: optimisers", text)
    assert.matches("\n\nDefined in [^\n]*lua/perilune/optim%.lua\n\n", text)
    assert.matches("^table: %d+ keys\n\nbyte +function", of(string))
  end)

  it("tells other values", function()
    assert.equal("number 1.5", of(1.5))
    assert.equal('string of 5 bytes: "a\\x0Ab\\x22c"', of 'a\nb"c')
    assert.equal("boolean false", of(false))
    assert.equal("thread", of(coroutine.create(print)))
    assert.equal("userdata FILE*", of(io.stdout))
  end)

  it("runs none of the user's code", function()
    local ran = false
    local function trap() ran = true end
    local trapped = setmetatable({ 1, x = 2 }, { __index = trap, __pairs = trap, __len = trap, __tostring = trap,
      __eq = trap, __call = trap, __lt = trap, __name = "trapped", __mime = trap, __close = trap })
    assert.matches("^table trapped: a sequence of 1, 1 key", of(trapped))
    _G.trapped = trapped
    at "trapped.unknown"
    at "trapped[1]"
    at "trapped("
    _G.trapped = nil
    assert.is_false(ran)
  end)

  it("is quick with a large table", function()
    local large = {}
    for i = 1, 300000 do large["key" .. i] = i end
    local began = os.clock()
    assert.matches("counted over 200000 entries", of(large))
    assert.is_true(os.clock() - began < 2)
  end)
end)

describe("Markdown of help", function()
  it("fences Lua, and lets nothing in words be taken for a mark", function()
    local bundle = help.of(add, "add", 1)
    assert.is_truthy(bundle["text/markdown"]:find("```lua\nadd(a, b)\n```", 1, true))
    assert.is_truthy(bundle["text/markdown"]:find("```lua\n  add(1, 2)\n```", 1, true))
    assert.matches("\\%*a\\%*", help.of("*a*", "s")["text/markdown"])
    assert.is_truthy(help.of(pl.ones { 2 }, "t")["text/markdown"]:find("| shape | \\[2\\] |", 1, true))
    local fenced = assert(load "return function() return [[\n```\n]] end")()
    assert.is_truthy(help.of(fenced, "f", 1)["text/markdown"]:find("````lua\nreturn", 1, true))
  end)
end)
