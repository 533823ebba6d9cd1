-- Completion: what is offered where, of which type, and that it neither runs the user's code nor takes long.
local complete = require "perilune.code.complete"
local core = require "perilune.core"

-- Everything that is offered at the end of the code, or at the "|" in it.
local function at(source)
  local cursor = source:find("|", 1, true)
  source = source:gsub("|", "", 1)
  return complete.at(source, cursor and cursor - 1 or #source)
end

local function names(source)
  local list = {}
  for i, match in ipairs((at(source))) do list[i] = match.text end
  return list
end

local function find(source, name)
  for _, match in ipairs((at(source))) do
    if match.text == name then return match end
  end
end

-- A global for the length of a test.
local function with(globals, f)
  for name, value in pairs(globals) do _G[name] = value end
  local ok, message = pcall(f)
  for name in pairs(globals) do _G[name] = nil end
  if not ok then error(message, 0) end
end

describe("completion of names", function()
  it("offers globals, keywords and fields", function()
    assert.same({ "rep", "reverse" }, names "string.re")
    assert.same({ "while" }, names "wh")
    assert.same({ "coroutine" }, names "x = corou")
    assert.same({}, names "string.nothing.x")
    assert.same({}, names "f().x")
    assert.same({}, names "1")
    assert.same({}, names "1.")
    assert.same({ "upper" }, names "('x' .. y) x = 'äöü' .. string.upp")
    assert.same({ "rep", "reverse" }, names "('x'):re")
  end)

  it("replaces what was typed, up to the cursor", function()
    local _, start = at "string.re"
    assert.equal(8, start)
    _, start = at "x = string.|"
    assert.equal(12, start)
    assert.same({ "rep", "reverse" }, names "string.re|verse()")
  end)

  it("goes across lines and comments", function()
    assert.same({ "rep", "reverse" }, names "string.\n  re")
    assert.same({ "rep", "reverse" }, names "string -- text\n  .re")
  end)

  it("is silent in comments and after numbers", function()
    assert.same({}, names "-- str")
    assert.same({}, names "--[[ a\nstr")
    assert.same({}, names "x = 0x1f")
    assert.is_true(#names "--[[ a ]] str" > 0)
  end)

  it("follows tables behind __index, and none of the user's functions", function()
    local ran = false
    local function trap() ran = true end
    local trapped = { __index = trap, __pairs = trap, __len = trap, __eq = trap, __call = trap, __name = trap,
      __tostring = trap, __gc = trap, __close = trap, __lt = trap }
    with({ thing = setmetatable({ field = 1, method = print }, { __index = { inherited = print } }),
           trap = setmetatable({ known = setmetatable({ deep = 1 }, trapped) }, trapped) }, function()
      assert.same({ "field", "inherited", "method" }, names "thing.")
      assert.same({ "inherited", "method" }, names "thing:")
      assert.same({ "known" }, names "trap.")
      assert.same({ "deep" }, names "trap.known.")
      assert.same({}, names "trap.unknown.")
      assert.same({}, names "trap().")
      names "tr"
    end)
    assert.is_false(ran)
  end)

  it("ends in a ring of __index", function()
    local ring = { name = 1 }
    ring.__index = ring
    with({ ring = setmetatable(ring, ring) }, function() assert.same({ "name" }, names "ring.") end)
  end)

  it("offers only what can be written, and what begins with an underscore only when it was typed", function()
    with({ odd = { ["a b"] = 1, ["end"] = 2, ["1x"] = 3, [1] = 4, _private = 5, good = 6 } }, function()
      assert.same({ "good" }, names "odd.")
      assert.same({ "_private" }, names "odd._")
    end)
  end)

  it("takes fields with a literal key on the way", function()
    with({ list = { { alpha = 1 }, key = { beta = 2 } } }, function()
      assert.same({ "alpha" }, names "list[1].")
      assert.same({ "beta" }, names "list['key'].")
      assert.same({}, names "list[i].")
    end)
  end)

  it("bounds its work in large tables", function()
    local large = {}
    for i = 1, 300000 do large[i], large["key" .. i] = i, i end
    with({ large = large, sequence = table.move(large, 1, 100000, 1, { name = 1 }) }, function()
      local began = os.clock()
      assert.equal(1000, #names "large.k")
      assert.same({ "name" }, names "sequence.")
      assert.is_true(os.clock() - began < 2)
    end)
  end)

  it("takes no longer for long code than in proportion", function()
    local began = os.clock()
    names("local t = {" .. ("a = f{ 1, { b = 2 } }, "):rep(20000) .. "} t.")
    names("f{ " .. ("a = 1, "):rep(20000))
    local many = {}
    for i = 1, 5000 do many[i] = ("local x%d = x%d "):format(i, i - 1) end
    names(table.concat(many))
    assert.is_true(os.clock() - began < 5)
  end)

  it("survives any text, and help does, too", function()
    local help = require "perilune.code.help"
    local pieces = {}
    for piece in ("local function end do for i=1, x . : ( ) { } [ ] ' \" [[ ]] -- = , 1 .. repeat until if then else "
      .. "\\ é string require <const> ... \n \0"):gmatch "[^ ]+" do pieces[#pieces + 1] = piece end
    local state = 7
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return state // 65536 % n + 1
    end
    for _ = 1, 500 do
      local words = {}
      for k = 1, random(25) do words[k] = pieces[random(#pieces)] end
      local code = table.concat(words, random(2) == 1 and " " or "")
      local cursor = random(#code + 1) - 1
      local _, start = complete.at(code, cursor)
      assert.is_true(start >= 1 and start <= cursor + 1, code)
      help.at(code, cursor, 1)
    end
  end)

  it("gives types and signatures", function()
    assert.same({ text = "reverse", type = "function", signature = "(s)" }, find("string.rev", "reverse"))
    assert.equal("()", find("('x'):rev", "reverse").signature)
    assert.equal("module", find("stri", "string").type)
    assert.equal("keyword", find("whi", "while").type)
    with({ f = function(a, b, ...) return a, b, ... end, t = { x = 1 } }, function()
      assert.equal("(a, b, ...)", find("f", "f").signature)
      assert.equal("property", find("t.", "x").type)
      assert.equal("instance", find("t", "t").type)
    end)
  end)
end)

describe("completion of globals that are not there yet", function()
  it("offers the fields that the code sets", function()
    assert.same({ "alpha", "beta" }, names "spec_new = {}\nspec_new.beta = 1\nspec_new.alpha = 2\nprint(spec_new.")
  end)
end)

describe("completion of locals", function()
  it("offers those that are visible, first of all", function()
    assert.equal("string_of_mine", names("local string_of_mine = f()\nstr")[1])
    assert.same({ "alpha" }, names "local function f(alpha, beta) al")
    assert.equal("param", find("local function f(alpha) al", "alpha").type)
    assert.equal("(alpha, beta)", find("local function fun(alpha, beta) end fu", "fun").signature)
    assert.same({}, names "do local alpha_one = 1 end alpha_")
    assert.same({ "alpha_one" }, names "alpha_one = 1 print(alpha_")
  end)

  it("knows what they were given", function()
    assert.same({ "rep", "reverse" }, names "local s = string s.re")
    assert.same({ "rep", "reverse" }, names "local s <const> = require 'string' s.re")
    assert.same({ "rep", "reverse" }, names "local a, b = 1, string b.re")
    assert.same({ "rep", "reverse" }, names "local text = 'x' text:re")
    assert.same({ "alpha", "beta" }, names "local t = { alpha = 1, beta = { gamma = 1 } } t.")
    assert.same({ "one", "two" }, names "local t = {} t.one = 1 function t.two() end t.")
  end)

  it("hides a global behind a local of which nothing is known", function()
    assert.same({}, names "local function f(string) string.re")
    assert.same({}, names "local string = 1 + f() string.re")
  end)
end)

describe("completion in strings", function()
  it("offers modules after require", function()
    assert.same({ "perilune.nn.language", "perilune.nn.linear", "perilune.nn.loss" }, names "require 'perilune.nn.l")
    assert.same({ "perilune.nn.norm" }, names "local x = require(\"perilune.nn.n")
    assert.is_truthy(find("require 'perilune.n", "perilune.nn"))
    assert.equal("module", find("require 'perilune.n", "perilune.nn").type)
    package.preload["made.up.module"] = function() end
    assert.same({ "made.up.module" }, names "require 'made")
    package.preload["made.up.module"] = nil
    local _, start = at "require 'perilune.nn.l"
    assert.equal(10, start)
  end)

  it("offers files elsewhere", function()
    assert.same({ "init.lua" }, names "io.open('lua/perilune/task/in")
    assert.same({ "perilune/" }, names "x = [[lua/peri")
    assert.equal("path", find("x = 'lua/peri", "perilune/").type)
    assert.same({}, names "x = 'no/such/folder/")
    assert.same({}, names "x = 'a\\")
    local _, start = at "io.open('lua/perilune/task/in"
    assert.equal(28, start)
  end)

  it("offers the keys of a table between brackets", function()
    with({ odd = { ["a b"] = 1, plain = 2 } }, function() assert.same({ "a b" }, names "odd['a") end)
  end)
end)

describe("completion of lines that are no Lua", function()
  it("offers magics", function()
    assert.same({ "%time", "%timeit" }, names "%ti")
    assert.same({ "%time", "%timeit" }, names "x = 1\n  %ti")
    assert.same({ "%%time" }, names "%%")
    assert.same({ "%reset", "%run" }, names "?%r")
    assert.equal(7, #names "%")
    local _, start = at "x = 1\n%ti"
    assert.equal(7, start)
    assert.same({ "ti" }, names "local ti = 1\nx = ti\n%ti") -- modulo
    assert.equal("magic", find("%lo", "%load").type)
  end)

  it("offers files where they are taken", function()
    assert.same({ "complete_spec.lua" }, names "%run tests/code/comp")
    assert.same({ "complete_spec.lua" }, names "%load 'tests/code/comp")
    assert.same({ "complete_spec.lua" }, names "print(1)\n!cat tests/code/text_spec.lua tests/code/comp")
    assert.same({ "tests/" }, names "!tes")
    local _, start = at "!cat tests/code/comp"
    assert.equal(17, start)
  end)

  it("goes on as ever where they hold Lua", function()
    assert.same({ "rep", "reverse" }, names "%timeit -n 3 string.re")
    assert.same({ "rep", "reverse" }, names "?string.re")
  end)
end)

describe("completion of perilune", function()
  local pl = require "perilune"

  it("offers what is loaded when it is first used", function()
    assert.is_truthy(find("local pl = require 'perilune' pl.", "rnn"))
    assert.equal("module", find("local pl = require 'perilune' pl.opt", "optim").type)
    assert.same({ "LayerNorm", "Linear", "List" }, names "local pl = require 'perilune' pl.nn.L")
    assert.equal("class", find("require('perilune').nn.Lin", "Linear").type)
    assert.same({ "lstm" }, names "local pl = require 'perilune' pl.cells.ls")
  end)

  it("offers a tensor's methods and fields", function()
    with({ x = pl.ones { 2, 3 } }, function()
      assert.same({ "totable" }, names "x:tot")
      assert.same({ "shape" }, names "x.sha")
      assert.same({}, names "x:sha")
      assert.same({ "reshape" }, names "x[1]:resh")
      assert.same("([dim [, keepdim]])", find("x:su", "sum").signature)
    end)
    local before = "local pl = require 'perilune'\nlocal x = pl.randn{ 2, 3 }\nlocal nn = pl.nn\n"
    assert.same({ "totable" }, names(before .. "x:tot"))
    assert.same({ "totable" }, names(before .. "local y = x:sum():exp()\ny:tot"))
    assert.same({ "totable" }, names(before .. "pl.zeros_like(x):tot"))
    assert.same({ "parameter_count", "parameters" }, names(before .. "local m = nn.Linear(2, 3)\nm:param"))
  end)

  it("offers the names of options where they can stand", function()
    local before = "local pl = require 'perilune' local nn = pl.nn "
    assert.same({ "head_dim", "heads", "hidden_size" }, names(before .. "nn.RNN{ input_size = 2, h"))
    assert.equal("param", find(before .. "nn.RNN{ h", "heads").type)
    assert.same({ "hidden_size" }, names(before .. "nn.RNN{ heads = 2, head_dim = 3, h"))
    assert.is_truthy(find(before .. "pl.rnn(Wx, R, b, {\n  cell = 'lstm',\n  ", "backend"))
    assert.is_truthy(find(before .. "pl.zeros{ 2, 3, ", "dtype"))
    assert.is_truthy(find(before .. "pl.zeros({ 2 }, { ", "device"))
    assert.is_truthy(find(before .. "nn.Linear(2, 3, { ", "bias"))
    assert.is_truthy(find(before .. "pl.randn{ 2 }:sum{ ", "keepdim"))
    assert.is_truthy(find(before .. "pl.cell{ ", "states"))
    assert.is_truthy(find(before .. "pl.plot.line{ { x = a }, ", "title"))
    for _, rest in ipairs { "nn.RNN{ heads = ", "nn.RNN(", "nn.RNN{ { ", "nn.RNN{ f(", "{ " } do
      assert.is_nil(find(before .. rest, "input_size"), rest)
    end
  end)
end)

describe("options for completion", function()
  local declared = require "perilune.code.declared"
  local pl = require "perilune"
  local display = require "perilune.display"
  local nn, optim, plot = pl.nn, pl.optim, pl.plot
  local p = { pl.ones({ 2 }):requires_grad() }

  -- What each says that it knows when it meets an option that nobody knows.
  local calls = {
    { nn.Linear, function(o) return nn.Linear(2, 3, o) end },
    { nn.MLP, function(o) return nn.MLP(2, 3, 4, o) end },
    { nn.LayerNorm, function(o) return nn.LayerNorm(2, o) end },
    { nn.RMSNorm, function(o) return nn.RMSNorm(2, o) end },
    { nn.GroupNorm, function(o) return nn.GroupNorm(1, 2, o) end },
    { nn.RNN, nn.RNN },
    { nn.Attention, function(o) return nn.Attention(4, 2, o) end },
    { nn.Mamba, function(o) return nn.Mamba(4, o) end },
    { nn.Block, function(o) return nn.Block(4, nn.Linear(4, 4), o) end },
    { nn.SequenceModel, nn.SequenceModel },
    { nn.mse_loss, function(o) return nn.mse_loss(p[1], p[1], o) end },
    { optim.SGD, function(o) return optim.SGD(p, o) end },
    { optim.Adam, function(o) return optim.Adam(p, o) end },
    { optim.AdamW, function(o) return optim.AdamW(p, o) end },
    { optim.GradScaler, optim.GradScaler },
    { optim.clip_grad_norm, function(o) return optim.clip_grad_norm(p, 1, o) end },
    { optim.cosine, optim.cosine },
    { pl.train.loop, pl.train.loop },
    { pl.task.parity, pl.task.parity },
    { pl.task.dyck2, pl.task.dyck2 },
    { pl.monitor, pl.monitor },
    { display.html, function(o) return display.html("", o) end },
    { pl.rnn, function(o) return pl.rnn(pl.ones { 1, 1, 4, 1, 2 }, nil, nil, o) end },
    { pl.rnn_plan, function(o)
      o.cell, o.head_dim = "lstm", 8
      return pl.rnn_plan(o)
    end },
    { plot.line, function(o)
      o[1] = { y = { 1, 2 } }
      return plot.line(o)
    end },
    { plot.heatmap, function(o)
      o[1] = { z = { { 1, 2 } } }
      return plot.heatmap(o)
    end },
  }

  it("are those that the functions check", function()
    for i, call in ipairs(calls) do
      local ok, message = pcall(call[2], { no_such_option = true })
      assert.is_false(ok)
      local list = tostring(message):match "unknown option 'no_such_option'; [a-z ]- ?([%w_]+, .*)$"
        or tostring(message):match "unknown option 'no_such_option'; expected ([%w_]+)$"
      assert.equal(list, table.concat(declared.options_of(call[1]), ", "), "call " .. i)
    end
  end)

  it("are accepted by name by operations", function()
    for _, row in ipairs(core.operations) do
      local in_c = debug.getinfo(core[row.name], "S").what == "C"
      for _, name in ipairs(in_c and declared.options_of(core[row.name]) or {}) do
        assert.is_truthy(row.signature:find(" " .. name .. ":", 1, true), row.name)
      end
    end
    assert.same({ "dim", "keepdim" }, declared.options_of(core.sum))
  end)
end)
