-- Lines that are no Lua: which are found, what becomes of them, and that nothing else is taken for one.
local rewrite = require "perilune.magic".rewrite

-- The code that the cell becomes, with the name of the global function left out.
local function rewritten(code)
  local text, problem = rewrite(code, "cell")
  return text and text:gsub("__magic", "M") or problem
end

describe("a line that is no Lua", function()
  it("becomes a call in its place", function()
    assert.equal('M("time", function() return f(x) end)', rewritten "%time f(x)")
    assert.equal('M("time", function() x = 1 end)', rewritten "%time x = 1 -- a comment")
    assert.equal('M("time", function() return f() end);', rewritten "%time f(); ")
    assert.equal('M("!", "ls -l | grep \\"it\'s [[\\"")', rewritten "!ls -l | grep \"it's [[\"")
    assert.equal('M("?", "pl.tensor", function() return pl.tensor end)', rewritten "?pl.tensor")
    assert.equal('M("??", "t:sum", function() return t.sum end)', rewritten "t:sum??  ")
    assert.equal('M("?", "%time")', rewritten "%time?")
    assert.equal('M("?", "")', rewritten "?")
    assert.equal('M("run", "a.lua \'b c\'")', rewritten "%run a.lua 'b c'\r")
    assert.equal('M("lsmagic")', rewritten "%lsmagic")
    assert.equal('-- a\nlocal cell__ <close> = M("%time");\nx = 1', rewritten "-- a\n%%time\nx = 1")
    assert.equal('M("?", "%%time")', rewritten "?%%time")
    assert.equal('M("timeit", "-n 5 -r 2 ", function(count__, done__) for count__ = 1, count__ do '
      .. "local result__ = a + 1 end return done__ end)", rewritten "%timeit -n 5 -r 2 a + 1")
  end)

  it("keeps the lines of what is round it", function()
    assert.equal('a = 1\n\nM("!", "ls");\nb = 2', rewritten "a = 1\n\n!ls\nb = 2")
    assert.equal('for i = 1, 2 do\n  M("time", function() return f(i) end);\nend',
      rewritten "for i = 1, 2 do\n  %time f(i)\nend")
    assert.equal('M("!", "it\'s");\nM("!", "--[[");\nx = [[\n!ls\n]]', rewritten "!it's\n!--[[\nx = [[\n!ls\n]]")
    assert.equal('M("!", "ls");\n(f or g)()', rewritten "!ls\n(f or g)()")
  end)

  it("may stand wherever a statement may", function()
    for _, before in ipairs {
      "", "-- a comment\n", "--[[ a\nlong one ]]\n", "x = 1\n", "x = f()\n", "x = {}\n", "x = 'a'\n", "x = y[1]\n",
      "if a then\n", "if a then b() else\n", "while true do\n", "repeat\n", "do end\n", "goto done\n", "::done::\n",
      "local x <const> = 1\n", "local x <close>\n", "function t.f(a, ...)\n", "local function f()\n", "f(function()\n",
      "x = function() return 1 end\n", "x = nil\n", "t.time = 1\n", "f():time()\n", "if a then break\n",
      "x = a;\n",
    } do
      assert.truthy(rewritten(before .. "%time f()"):find('M("time"', 1, true), before)
      assert.truthy(rewritten(before .. "!ls"):find('M("!"', 1, true), before)
      assert.truthy(rewritten(before .. "name?"):find('M("?"', 1, true), before)
    end
  end)

  it("is told from Lua", function()
    for _, code in ipairs {
      "x = a\n% b", "x = a\n  %b + 1", "return f(x)\n%g(y)", "x = (a\n%time)", "x = { a\n%time }", "f(a\n%time, b)",
      "x = t[a\n%time]", "x = 'a\\\n%time b'", 'x = "\\z\n  %time b"', "x = [[\n%time f()\n!ls\n?x\nx?\n]]",
      "--[==[\n%time f()\n]]\n!ls\n]==]", "-- %time f()\n-- !ls\n-- x?", "x = [=[\n]]\n!ls]=]", "x = 'who?'",
      "local time = 3\nlocal x = 10\n%time", "x = a +\n!ls", "x =\nname?", "f(\n!ls\n)", "f{\nname?\n}",
      "x = a\n% time.b", "x = a\n%time.b",
      "local function f(time)\n  return 5\n  %time\nend", "x = 7\n%math", "x = a ~= b", "x = function() end\n%b",
      "x = a\n%", "x = a\n%(b)", "x = 5\n%1",
    } do
      assert.equal(code, rewritten(code))
    end
  end)

  it("is in no file of Lua", function()
    local count, pipe <close> = 0, assert(io.popen "find lua tests experiments -name '*.lua'")
    for path in pipe:lines() do
      local file <close> = assert(io.open(path))
      local code = file:read "a"
      assert.equal(code, (rewrite(code, path)), path)
      count = count + 1
    end
    assert.is_true(count > 100)
  end)

  it("is in no random text that is Lua, and keeps the lines of any", function()
    local words <const> = { "a", "b", "f(a)", "x =", "local x =", "% b", "%b", "\n%b", "\n% a", "\n", "\n", "(", ")",
      "{", "}", "[", "]", "if a then", "else", "end", "do", "while a do", "repeat", "until", "function f(a)",
      "function(b)", "return", "break", ";", "'a\\\n%b'", "[[\n!a\n%b\n]]", "--[[\n?a\n]]", "-- a?", "..", "+", "-",
      "not", "1", "\n!ls", "\n?a", "\na?", "goto a", "::a::", "<const>", ",", "\n%time a", "\n%foo" }
    local random, valid = 1, 0
    local function choose(n)
      random = (random * 1103515245 + 12345) % 2147483648
      return random // 65536 % n + 1
    end
    for _ = 1, 6000 do
      local parts = {}
      for i = 1, choose(9) do parts[i] = words[choose(#words)] end
      local code = table.concat(parts, " ")
      local text, problem = rewrite(code, "cell")
      if load(code) and not code:find "%%time" then
        assert.equal(code, text)
        valid = valid + 1
      end
      local _, lines = code:gsub("\n", "")
      assert.equal(lines, text and select(2, text:gsub("\n", "")) or lines)
      assert.truthy(text or problem:find("^cell:%d+: "))
    end
    assert.is_true(valid > 100, valid)
  end)

  it("is Lua's operator where its name is a variable with which that can work", function()
    load "time = 3"()
    local found = rewritten "x = 10\n%time"
    load "time = nil"()
    assert.equal("x = 10\n%time", found)
    assert.equal('x = 10\nM("load", "a")', rewritten "x = 10\n%load a") -- Lua's own load is a function
  end)

  it("names what is wrong with it, and where", function()
    local magics = "%%time, %load, %lsmagic, %reset, %run, %time, %timeit"
    assert.equal("cell:3: there is no magic '%tiem'; the magics are " .. magics, rewritten "x = 1;\n\n%tiem f()")
    assert.equal("cell:1: there is no magic '%%timeit'; the magics are " .. magics, rewritten "%%timeit f()")
    assert.equal("cell:2: %%time: it is the first line of a cell, or none", rewritten "x = 1;\n%%time")
    assert.equal("cell:1: %%time: nothing is expected behind it, got 'f()'; its code is the whole cell",
      rewritten "%%time f()")
    assert.equal("cell:1: there is no magic '%'; the magics are " .. magics, rewritten "% time")
    assert.equal("cell:2: %time: unexpected symbol near <eof>", rewritten "\n%time f(")
    assert.equal("cell:1: %time: unexpected symbol near '='", rewritten "%time x = = 1")
    assert.equal("cell:1: %timeit: code is expected behind it, as in %timeit f(x)", rewritten "%timeit -n 3")
    assert.equal("cell:1: %lsmagic: nothing is expected behind it, got 'a'", rewritten "%lsmagic a")
    assert.equal("cell:1: ?: a name is expected, such as pl.tensor or %time, got 'f(x)'", rewritten "?f(x)")
  end)
end)
