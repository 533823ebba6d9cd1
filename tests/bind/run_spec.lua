-- The command line: scripts as lua5.4 runs them, commands, exit statuses.
local program = require "bind.program"

describe("scripts", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function script(text, arguments)
    program.write(path, text)
    return program.run { args = path .. " " .. (arguments or "") }
  end

  it("get their arguments and may begin with a shebang", function()
    local code = "#!/usr/bin/env perilune\nprint(arg[0], arg[1], arg[2], arg[-1] ~= nil, select('#', ...))"
    local out, _, status = script(code, "a 'b c'")
    assert.equal(path .. "\ta\tb c\ttrue\t2\n", out)
    assert.equal(0, status)
  end)

  it("bound the time that waiting threads spin, unless the environment says otherwise", function()
    local code = "print(os.getenv 'GOMP_SPINCOUNT', arg[1], (io.open('/proc/self/comm'):read()))"
    program.write(path, code)
    for before, expected in pairs {
      ["env -u GOMP_SPINCOUNT -u OMP_WAIT_POLICY"] = "1000", ["env GOMP_SPINCOUNT=7"] = "7",
      ["env -u GOMP_SPINCOUNT OMP_WAIT_POLICY=active"] = "nil",
    } do
      local out, err, status = program.run { before = before, args = path .. " 'a b'" }
      assert.same({ expected .. "\ta b\tperilune\n", 0 }, { out, status }, err)
    end
  end)

  it("end with status 1 and a traceback on an error", function()
    local out, err, status = script "local function f()\n  error 'no'\nend\nf()"
    assert.equal("", out)
    assert.equal(1, status)
    assert.matches(":2: no\nstack traceback:", err)
    assert.matches(":4: in main chunk", err)
    assert.not_matches("%[C%]: in %?", err)
  end)

  it("end a traceback's way at the line that a message of the program names", function()
    local _, err = script "local pl = require 'perilune'\nlocal function f()\n  pl.monitor { logz = 1 }\nend\nf()"
    assert.matches(":3: monitor: unknown option 'logz'; expected logy, title\nstack traceback:\n\t[^\n]*:3: in", err)
    assert.matches(":5: in main chunk", err)
    assert.not_matches("lua/perilune/", err)
    _, err = script "local pl = require 'perilune'\npl.interact(function(x) error('mine') end, { x = 1 })"
    assert.matches(":2: mine\nstack traceback:\n\t%[C%]: in function 'error'\n", err)
    assert.matches("lua/perilune/widgets/interact.lua", err)
    _, err = script "require 'perilune.code.complete' require 'no such module'"
    assert.matches("%[C%]: in function 'require'", err)
  end)

  it("tell a syntax error with its line", function()
    local _, err, status = script "x = 1\nx = = 2"
    assert.equal(1, status)
    assert.matches(":2: unexpected symbol near '='", err)
  end)

  it("choose their exit status", function()
    assert.equal(7, (select(3, script "os.exit(7)")))
    assert.equal(0, (select(3, script "os.exit(true, true)")))
  end)

  it("describe errors that are no strings", function()
    local own = "error(setmetatable({}, { __tostring = function() return 'own text' end }))"
    assert.matches("own text", (select(2, script(own))))
    assert.matches("table value", (select(2, script "error {}")))
    assert.matches("nil was raised", (select(2, script "error()")))
  end)

  it("are interrupted by SIGINT, whatever they protect", function()
    program.write(path, "local function f() while true do pcall(f) end end while true do pcall(coroutine.wrap(f)) end")
    local _, err, status = program.run { before = "timeout --foreground --preserve-status -s INT 0.3", args = path }
    assert.equal(1, status)
    assert.matches("interrupted", err)
  end)

  it("close what is open at the end", function()
    assert.equal("closed\n", (script "setmetatable({}, { __gc = function() print 'closed' end })"))
  end)
end)

describe("the command line", function()
  it("runs -e, -l, -i and standard input as lua5.4 does", function()
    assert.equal("1\n2\n", (program.run { args = "-e 'x = 1 print(x)' -e 'print(x + 1)'" }))
    local loaded = [[-l perilune.inspect -e 'print(type(_G["perilune.inspect"].text))']]
    assert.equal("function\n", (program.run { args = loaded }))
    assert.equal("hello\n", (program.run { input = "print 'hello'" }))
    assert.equal("hello\ta\n", (program.run { args = "- a", input = "print('hello', ...)" }))
  end)

  it("names what it does not know", function()
    for args, message in pairs {
      frobnicate = "no such command; the commands are devices, kernel, notebook, sweep, tune",
      ["missing.lua"] = "there is no file 'missing.lua'",
      ["--frob"] = "unknown option '--frob'",
      ["-e"] = "-e needs a value",
      ["devices x"] = "got 'x'",
      ["kernel frob"] = "unexpected 'frob'",
      ["notebook frob"] = "unexpected 'frob'",
      ["notebook"] = "notebook needs run or export\nusage: perilune notebook run",
      ["notebook run"] = "the name of a notebook is missing\nusage: perilune notebook run",
      ["notebook run a.ipynb --timeout x"] = "--timeout: expected a number of seconds above 0, got 'x'",
    } do
      local out, err, status = program.run { args = args }
      assert.equal("", out)
      assert.equal(1, status, args)
      assert.truthy(err:find(message, 1, true), args .. ": " .. err)
    end
  end)

  it("helps", function()
    assert.matches("^Perilune %d+%.%d+%.%d+ %(Lua 5%.4", (program.run { args = "--version" }))
    assert.matches("perilune notebook", (program.run { args = "--help" }))
    for _, command in ipairs { "devices", "kernel", "notebook", "notebook run", "notebook export", "tune" } do
      assert.matches("^usage: perilune " .. command, (program.run { args = command .. " --help" }))
    end
  end)

  it("lists the devices", function() assert.matches("cpu", (program.run { args = "devices" })) end)

  it("complains about a wrong PERILUNE_HOME", function()
    local _, err, status = program.run { before = "PERILUNE_HOME=/nonexistent", args = "-e ''" }
    assert.equal(1, status)
    assert.matches("PERILUNE_HOME is '/nonexistent'", err)
  end)
end)
