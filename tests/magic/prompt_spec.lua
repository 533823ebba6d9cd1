-- Magics, help and shell commands as the prompt runs them.
local program = require "bind.program"

local function prompt(...)
  local out, err, status = program.run { args = "-i", input = table.concat({ ... }, "\n") .. "\n",
    before = "HOME=/nonexistent" }
  return out:gsub("^Perilune [^\n]*\n", ""), err, status
end

local path
before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

describe("%time", function()
  it("tells CPU and wall time, and gives the code's result on", function()
    assert.matches("^> CPU time: [%d.]+ %S+, wall time: [%d.]+ %S+\n6\t7\n> \n$", (prompt "%time 6, 7"))
    local ms = (prompt "%time os.execute 'sleep 0.1'"):match "wall time: ([%d.]+) ms"
    assert.is_true(tonumber(ms) >= 100)
  end)

  it("sees the local variables of its block, and sets them", function()
    local out = prompt("do local x = 1", "%time x = x + 1", "print(x) end")
    assert.matches("wall time: [%d.]+ %S+\n2\n", out)
  end)

  it("tells errors with their lines", function()
    local _, err = prompt("do", "%time error 'no'", "end", "%time f(")
    assert.matches("stdin:2: no\n", err)
    assert.matches("stdin:1: %%time: unexpected symbol near <eof>\n$", err)
  end)

  it("hides a result before ';'", function()
    assert.matches("^> CPU [^\n]*\n> \n$", (prompt "%time 6;"))
  end)
end)

describe("%timeit", function()
  local function told(line) return (prompt(line):match "^> ([^\n]*)\n") end

  it("chooses loops and runs", function()
    assert.matches("^[%d.]+ ns ± [%d.e-]+ %S+ per loop %(mean ± std. dev. of 7 runs, %d+,000,000 loops each%)$",
      told "%timeit 1 + 1")
    assert.matches("^[%d.]+ ms ± [%d.]+ %S+ per loop %(mean ± std. dev. of 7 runs, 10 loops each%)$",
      told "%timeit os.execute 'sleep 0.02'")
  end)

  it("takes them from options", function()
    assert.matches("of 3 runs, 1 loop each%)$", told "%timeit -n 1 -r3 x = 1")
    local out, err = prompt("n = 0", "%timeit -n 1000 -r 1 n = n + 1", "n", "%timeit -r 0 n")
    assert.matches("of 1 run, 1,000 loops each%)\n> 1000\n", out)
    assert.matches("stdin:1: %%timeit: %-r: an integer of at least 1 is expected, got 0", err)
  end)

  it("refuses code that returns", function()
    assert.matches("%%timeit: the code returns, which ends its loop", (select(2, prompt "%timeit return true")))
  end)
end)

describe("help", function()
  it("tells the call, the comment and the source of a function", function()
    program.write(path, "-- Twice a number.\nfunction twice(x)\n  return 2 * x\nend\n")
    local out = prompt("dofile '" .. path .. "'", "?twice", "twice??")
    assert.matches("> twice%(x%)\n\nTwice a number.\n\nDefined in %S+:2\n> ", out)
    assert.matches("Defined in %S+:2\n\nfunction twice%(x%)\n  return 2 %* x\nend\n> ", out)
  end)

  it("sees local variables", function()
    assert.matches("5", (prompt("do local x = { n = 5 }", "x.n?", "end")))
  end)

  it("explains itself and the magics", function()
    local out = prompt("?", "?%time", "%lsmagic")
    assert.matches("%?NAME, NAME%?", out)
    assert.matches("\n> %%time CODE\n\nruns the code and tells", out)
    assert.matches("\n%%timeit %[%-n LOOPS%] %[%-r RUNS%] CODE ", out)
  end)

  it("says what is not known", function()
    local _, err = prompt("?nothing.here", "?%tiem")
    assert.matches("stdin:1: %?: nothing is known of 'nothing.here', which is nil", err)
    assert.matches("stdin:1: %?: there is no magic '%%tiem'; the magics are %%%%time, %%load, ", err)
  end)
end)

describe("files", function()
  it("run in the session, with arguments", function()
    program.write(path, "kept = #arg\nreturn arg[1], (...), arg[2]")
    local out = prompt("%run " .. path .. " a 'b c'", "kept, arg[1]")
    assert.equal('> "a"\t"a"\t"b c"\n> 2\t"-i"\n> \n', out)
  end)

  it("tell errors at their own lines", function()
    program.write(path, "local x = 1\nerror 'no'")
    local _, err = prompt("%run " .. path, "%run /no/such", "%run")
    assert.matches(":2: no\n", err)
    assert.matches("stdin:1: %%run: cannot open /no/such: No such file or directory\n", err)
    assert.matches("stdin:1: %%run: a file is expected, got nothing\n", err)
  end)

  it("are shown where there is no cell to load them into", function()
    program.write(path, "x = 1\ny = 2")
    assert.equal("> x = 1\ny = 2\n> \n", (prompt("%load " .. path)))
    assert.matches("%%load: one file is expected, got 2", (select(2, prompt "%load a b")))
    assert.matches("%%load: cannot read '/no/such': No such file", (select(2, prompt "%load /no/such")))
  end)
end)

describe("%reset", function()
  it("removes the session's variables and gives Lua's own back", function()
    local out, err = prompt("x, print, require, type, next, string = 1", "%reset -f", "print(x, type(string.rep))",
      "%lsmagic")
    assert.equal("", err)
    assert.matches("^> > nil\tfunction\n> %%%%time", out:gsub("^> ", "", 1))
    assert.matches("%%reset: nothing or %-f is expected behind it, got 'all'", (select(2, prompt "%reset all")))
  end)
end)

describe("!command", function()
  it("writes where the prompt writes, and tells a status that is not 0", function()
    local out, err = prompt("io.write 'a ';", "!echo $((1 + 1)) it\\'s", "!exit 3", "!kill -9 $$", "!")
    assert.equal("> a > 2 it's\n> > > > \n", out)
    assert.matches("^exit status 3\nended by signal 9\nstdin:1: !: a command is expected, got nothing\n", err)
  end)
end)
