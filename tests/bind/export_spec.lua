-- perilune notebook export: scripts that run as their notebooks do, whatever cells keep to themselves.
local core = require "perilune.core"
local program = require "bind.program"
local script = require "perilune.notebook.script"

local path, out
before_each(function() path, out = os.tmpname(), os.tmpname() end)
after_each(function() os.remove(path) os.remove(out) end)

local function cell_of(cell)
  if type(cell) == "string" then cell = { source = cell } end
  return { cell_type = cell.kind or "code", source = cell.source,
    metadata = { tags = cell.tag and { cell.tag } or core.json_array {} } }
end

local function notebook(cells)
  local list = core.json_array {}
  for i, cell in ipairs(cells) do list[i] = cell_of(cell) end
  return { cells = list, metadata = {}, nbformat = 4, nbformat_minor = 5 }
end

-- The script without its first line and the blank one behind it.
local function exported(cells)
  local text, remarks = script.of(notebook(cells), "n.ipynb")
  local rest = text:match "^%-%- The cells of n%.ipynb, each behind its marker%.\n\n?(.*)$"
  return assert(rest, text), remarks
end

local function run(cells)
  local text, remarks = exported(cells)
  program.write(out, text)
  local output, errors, status = program.run { args = program.quote(out) .. " argument" }
  assert.same({ 0, {} }, { status, remarks }, errors .. text)
  return output, errors
end

describe("notebook export", function()
  it("marks cells and makes text comments", function()
    assert.equal("-- %% [markdown]\n-- # Title\n--\n-- [[text]]\n\n-- %%\nx = 1\n\n-- %% [raw]\n-- raw\n\n-- %%\n",
      (exported { { kind = "markdown", source = { "# Title\n", "\n", "[[text]]\n" } }, "x = 1\n",
        { kind = "raw", source = "raw" }, "" }))
    assert.equal("-- %% [markdown]\n-- a\n-- b\n-- c\n-- d\n",
      (exported { { kind = "markdown", source = "a\r\nb\rc\n\rd" } }))
  end)

  it("prints results, once", function()
    assert.equal("2\n1\tnil\tx\n5\nf\n7\n8\n9\n", (run { "1 + 1", "1, nil, 'x'", "x = 5\nx -- five", "x;", "print 'f'",
      "local a = 7\na", "return x + 3", "if x then return 9 end" }))
    assert.equal("-- %%\nx = 5\nprint(x -- five\n)\n", (exported { "x = 5\nx -- five" }))
    assert.equal("-- %%\nprint(x) -- five\n", (exported { "print(x) -- five" }))
  end)

  it("keeps to a cell what ends with it", function()
    assert.equal("1\nnil\n2\n1\n0\ndone\n", (run { "x = 1", "local x <const> = 2", "print(x)", "::again:: y = 1",
      "::again:: y = 2", "local z = 3", "print(z)", "if y == 2 then return end\nerror 'not reached'", "print(y)",
      "function f() return 1 end", "print(f())", "print(select('#', ...)) if x then return end", "print 'done'" }))
    local many = {}
    for i = 1, 300 do many[i] = ("local l%d = %d"):format(i, i) end
    run(many)
  end)

  it("is misled by no string or comment", function()
    for _, cell in ipairs { "x = 'local' -- return", "x = [[\nlocal ]] --[==[ return\n]] ]==]",
      'x = "\\"return" y = "::"',
      "function f() if x then return 1 end return 2 end", "f = function() local a = 1 return a end",
      "if x then local y = 1 end", "for i = 1, 2 do local y = i end", "repeat local y = 1 until y",
      "while false do return_value = 1 end" } do
      assert.equal("-- %%\n" .. cell .. "\n", (exported { cell }))
    end
  end)

  it("makes comments of what only front ends know", function()
    assert.equal("-- %%\n-- %time\n  -- !ls -l\n-- ?print\n-- print?\n-- string.rep??\nx = 1\nprint(x)\n",
      (exported { "%time\n  !ls -l\n?print\nprint?\nstring.rep??\nx = 1\nx" }))
    assert.equal("-- %%\n-- %%timeit -n 3\nx = 1\n", (exported { "%%timeit -n 3\nx = 1" }))
    assert.equal("-- %%\n-- %%writefile a.lua\n-- x = 1\n", (exported { "%%writefile a.lua\nx = 1" }))
    assert.equal("-- %%\nx = 7\n  % 4\n", (exported { "x = 7\n  % 4" }))
    assert.equal("3\n", (run { "!rm -r /", "x = 7\n  % 4", "%timeit x", "x" }))
  end)

  it("heeds tags", function()
    local output, errors = run { { source = "print 'a' error('expected', 0)", tag = "raises-exception" },
      { source = "print 'never'", tag = "skip-execution" }, { source = "local x\nx.y = 1", tag = "raises-exception" },
      { source = "'fine'", tag = "raises-exception" }, "print 'end'" }
    assert.equal("a\nfine\nend\n", output)
    assert.matches("^expected\n[^\n]*attempt to index a nil value", errors)
    assert.equal("-- %%\n-- print 'never'\n", (exported { { source = "print 'never'", tag = "skip-execution" } }))
  end)

  it("leaves what is not Lua a comment, and says so", function()
    local text, remarks = exported { "x = 1", "x = = 1\nprint [[", "print(x)" }
    assert.equal("-- %%\nx = 1\n\n-- %%\n-- x = = 1\n-- print [[\n\n-- %%\nprint(x)\n", text)
    assert.equal(1, #remarks)
    assert.matches("^cell 2 is not Lua and stays a comment: line 1: unexpected symbol near '='$", remarks[1])
  end)

  it("writes the example so that it compiles", function()
    local text, errors, status = program.run { args = "notebook export notebooks/01-parity.ipynb -" }
    assert.same({ "", 0 }, { errors, status })
    assert.truthy(load(text, "=01-parity.lua"))
    assert.matches("%-%- %%%% %[markdown%]\n%-%- # Parity", text)
  end)
end)

describe("the command notebook export", function()
  local function export(text, target)
    program.write(path, text)
    return program.run { args = ("notebook export %s %s"):format(path, target or out) }
  end

  it("writes to a file, beside the notebook or to standard output", function()
    local text = core.json_encode(notebook { "1 + 1" })
    assert.equal(0, (select(3, export(text))))
    assert.matches("%-%- %%%%\nprint%(1 %+ 1%)\n$", program.read(out))
    assert.equal(program.read(out), (export(text, "-")))
    local folder = path .. ".d"
    assert(os.execute("mkdir " .. folder))
    program.write(folder .. "/a.b.ipynb", text)
    assert.equal(0, (select(3, program.run { args = ("notebook export %s/a.b.ipynb"):format(folder) })))
    assert.matches("^%-%- The cells of a%.b%.ipynb", program.read(folder .. "/a.b.lua"))
    os.execute("rm -r " .. folder)
  end)

  it("says what is wrong", function()
    for text, message in pairs { ["{"] = "is not a whole notebook", ["[]"] = "is no notebook: it has no nbformat",
      ['{"nbformat": 3}'] = "has nbformat 3; 4 is expected", ['{"nbformat": 4}'] = "has no array of cells",
      ['{"nbformat": 4, "cells": [1]}'] = "has no source text in cell 1",
      ['{"nbformat": 4, "cells": [{"source": ""}]}'] = "has no cell_type in cell 1",
      ['{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "python"}}}'] = "is written in python" } do
      local _, err, status = export(text)
      assert.equal(1, status, text)
      assert.truthy(err:find(message, 1, true), err)
    end
    for words, message in pairs { [""] = "the name of a notebook is missing", ["a b c"] = "unexpected 'c'",
      ["/nonexistent.ipynb"] = "/nonexistent.ipynb: No such file", ["--frob"] = "unknown option '--frob'",
      ["notebooks/01-parity.ipynb /nonexistent/x.lua"] = "'/nonexistent/x.lua'" } do
      local _, err, status = program.run { args = "notebook export " .. words }
      assert.equal(1, status, words)
      assert.truthy(err:find(message, 1, true), err)
    end
  end)

  it("tells of cells that are not Lua", function()
    local _, err, status = export(core.json_encode(notebook { "x = = 1" }))
    assert.equal(0, status)
    assert.truthy(err:find(("'%s': cell 1 is not Lua"):format(path), 1, true), err)
  end)
end)
