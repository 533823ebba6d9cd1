-- perilune notebook run: outputs as Jupyter writes them, errors, time limits, broken files.
local core = require "perilune.core"
local program = require "bind.program"

local path, out
before_each(function() path, out = os.tmpname(), os.tmpname() end)
after_each(function() os.remove(path) os.remove(out) end)

local function notebook(sources, extra)
  local cells = {}
  for i, source in ipairs(sources) do
    cells[i] = { cell_type = "code", id = "cell" .. i, metadata = { keep = i }, source = source,
      outputs = core.json_array { { output_type = "stale" } }, execution_count = 99 }
  end
  local text = core.json_encode({ cells = cells, metadata = { kernelspec = { name = "perilune", language = "lua" } },
    nbformat = 4, nbformat_minor = 5, unknown = { field = 1 } }, 1)
  program.write(path, extra and extra(text) or text)
end

local function run(options)
  local _, err, status = program.run { args = ("notebook run %s -o %s %s"):format(path, out, options or "") }
  local text = program.read(out)
  return text ~= "" and core.json_decode(text) or nil, err, status
end

describe("notebook run", function()
  it("writes outputs, counts and results back and keeps the rest", function()
    notebook { { "print 'a'\n", "io.write 'b' io.stderr:write 'c' print 'd'\n", "1 + 1" }, "  \n", "x = 2", "x" }
    local result, err, status = run()
    assert.equal("", err)
    assert.equal(0, status)
    local first = result.cells[1]
    assert.same({ "a\n", "b" }, { table.unpack(first.outputs[1].text) })
    assert.equal("stderr", first.outputs[2].name)
    assert.same({ "2" }, { table.unpack(first.outputs[4].data["text/plain"]) })
    assert.equal("execute_result", first.outputs[4].output_type)
    assert.same({ "cell1", 1, 1 }, { first.id, first.metadata.keep, first.execution_count })
    assert.same({ 99, "stale" }, { result.cells[2].execution_count, result.cells[2].outputs[1].output_type })
    assert.equal(0, #result.cells[3].outputs)
    assert.same({ 2, 3 }, { result.cells[3].execution_count, result.cells[4].execution_count })
    assert.equal(1, result.unknown.field)
  end)

  it("writes in place, and the same text again", function()
    notebook { "require 'perilune.display'.bundle { ['text/plain'] = 'a', ['text/html'] = 'b', ['text/latex'] = 'c' }" }
    assert.equal(0, (select(3, program.run { args = "notebook run " .. path })))
    local once = program.read(path)
    assert.equal(0, (select(3, program.run { args = "notebook run " .. path })))
    assert.equal(once, program.read(path))
    assert.equal("\n", once:sub(-1))
  end)

  it("merges streams, updates displays by id and clears", function()
    notebook { "for i = 1, 3 do io.write(i, '\\n') end",
      "d = require 'perilune.display' h = d.html('one', { id = 'i' })",
      "h:update 'two'", "print 'gone' d.clear() print 'kept' d.clear { wait = true }",
      "print 'gone' d.clear { wait = true } print 'new'" }
    local cells = run().cells
    assert.same({ "1\n", "2\n", "3\n" }, { table.unpack(cells[1].outputs[1].text) })
    assert.same({ "two" }, { table.unpack(cells[2].outputs[1].data["text/html"]) })
    assert.equal(0, #cells[3].outputs)
    assert.same({ "kept\n" }, { table.unpack(cells[4].outputs[1].text) })
    assert.same({ "new\n" }, { table.unpack(cells[5].outputs[1].text) })
    assert.equal(1, #cells[5].outputs)
  end)

  it("replaces what is shown when an id is shown again, and forgets what was cleared", function()
    notebook { "d = require 'perilune.display' d.html('one', { id = 'i' })", "h = d.html('two', { id = 'i' })",
      "d.html('three', { id = 'i' }) d.clear()", "h:update 'four'" }
    local cells = run().cells
    for i = 1, 2 do assert.same({ "four" }, { table.unpack(cells[i].outputs[1].data["text/html"]) }) end
    assert.equal(0, #cells[3].outputs + #cells[4].outputs)
  end)

  it("splits texts where Jupyter's files do", function()
    notebook { "print 'a\\rb\\r\\nc\\fd\\u{85}e\\u{2029}f'",
      "io.write '1\\r' io.write '2\\r' io.write '\\n3\\n';" }
    local cells = run().cells
    assert.same({ "a\r", "b\r\n", "c\f", "d\u{85}", "e\u{2029}", "f\n" }, { table.unpack(cells[1].outputs[1].text) })
    assert.same({ "1\r", "2\r\n", "3\n" }, { table.unpack(cells[2].outputs[1].text) })
  end)

  it("passes over cells with the tag skip-execution and goes on behind raises-exception", function()
    notebook({ "x = 1", "error 'expected'", "x = 2", "x" }, function(text)
      return (text:gsub('"keep": 2', '"tags": ["raises-exception"]'):gsub('"keep": 3', '"tags": ["skip-execution"]'))
    end)
    local result, err, status = run()
    assert.same({ "", 0 }, { err, status })
    assert.equal("error", result.cells[2].outputs[1].output_type)
    assert.same({ 99, "stale" }, { result.cells[3].execution_count, result.cells[3].outputs[1].output_type })
    assert.same({ 3, "1" }, { result.cells[4].execution_count, result.cells[4].outputs[1].data["text/plain"][1] })
  end)

  -- What a run adds to a notebook of one cell "1", between the bytes that stay.
  local info = '{"codemirror_mode": "lua", "file_extension": ".lua", "mimetype": "text/x-lua", "name": "lua", '
    .. '"pygments_lexer": "lua", "version": "' .. _VERSION:match "%d.*" .. '.?"}'
  local function runs_to(before, after)
    program.write(path, before)
    local _, err, status = program.run { args = ("notebook run %s -o %s"):format(path, out) }
    assert.same({ "", 0 }, { err, status })
    local text = program.read(out):gsub('("version": "5%.4%.)%d+', "%1?")
    assert.equal(after, text)
  end

  it("keeps every byte that a run does not change", function()
    local kept = '"m\\u00e9t\\/a": [1.50, 1e5, -0, 123456789012345678901234567890, NaN, "\\ud800"], "z":{},  "a" :1'
    runs_to('{"nbformat":4, "metadata": {' .. kept .. '}, "cells": [ {"source": "#x", "cell_type": "raw", "id":"r"},\n'
      .. '{"source": ["1"], "outputs": [], "cell_type": "code", "metadata": {' .. kept .. '}, "id": "c"}],'
      .. '"nbformat_minor": 5,"x":[ ]}',
      '{"nbformat":4, "metadata": {"language_info":' .. info .. ',' .. kept
      .. '}, "cells": [ {"source": "#x", "cell_type": "raw", "id":"r"},\n{"execution_count":1,"source": ["1"], '
      .. '"outputs": [{"data": {"text/plain": ["1"]}, "execution_count": 1, "metadata": {}, "output_type": '
      .. '"execute_result"}], "cell_type": "code", "metadata": {' .. kept
      .. '}, "id": "c"}],"nbformat_minor": 5,"x":[ ]}\n')
  end)

  it("takes over the form of a file", function()
    for _, form in ipairs { { "\t", "\n" }, { "    ", "\r\n" } } do
      local function formed(text)
        return (text:gsub("\n", form[2]):gsub(" ", form[1]):gsub(":", ": "))
      end
      local function language()
        return (info:gsub('([{,]) ?"', '%1\n   "'):gsub("}", "\n  }"):gsub(": ", ":"))
      end
      local text = '{\n "cells":[\n  {\n   "cell_type":"code",\n   "id":"c",\n   "metadata":{},%s\n'
        .. '   "source":"1"\n  }\n ],\n "metadata":{%s},\n "nbformat":4,\n "nbformat_minor":5\n}\n'
      local outputs = '\n   "outputs":[\n    {\n     "data":{\n      "text/plain":[\n       "1"\n      ]\n     },\n'
        .. '     "execution_count":1,\n     "metadata":{},\n     "output_type":"execute_result"\n    }\n   ],'
      local after = text:format(outputs, '\n  "kernelspec":{},\n  "language_info":' .. language() .. '\n ')
      after = after:gsub('\n   "id"', '\n   "execution_count":1,%0', 1)
      runs_to(formed(text:format("", '\n  "kernelspec":{}\n ')), formed(after))
    end
  end)

  it("writes through a symbolic link, and says before the run that it cannot write", function()
    notebook { "print 'ran'" }
    os.remove(out)
    assert(os.execute(("ln -s %s %s"):format(path, out)))
    assert.equal(0, (select(3, program.run { args = "notebook run " .. out })))
    assert.matches("ran", program.read(path))
    assert(os.execute("test -L " .. out))
    local _, err, status = program.run { args = ("notebook run %s -o /nonexistent/x.ipynb"):format(path) }
    assert.equal(1, status)
    assert.matches("cannot write '/nonexistent/x.ipynb': '/nonexistent': No such file", err)
    err = select(2, program.run { args = ("notebook run %s -o /tmp"):format(path) })
    assert.matches("cannot write '/tmp': it is a folder", err)
    local pipe <close> = assert(io.popen(("%s notebook run %s -o /dev/stdout"):format(program.path, path)))
    assert.same({ "ran\n" }, { table.unpack(core.json_decode(pipe:read "a").cells[1].outputs[1].text) })
  end)

  it("joins and repairs characters", function()
    notebook { [[io.write '\xc3' io.write '\xa9' io.stderr:write '\xc3' io.write '\xff\n\xe2']] }
    local outputs = run().cells[1].outputs
    assert.same({ { "é" }, { "\u{FFFD}" }, { "\u{FFFD}\n", "\u{FFFD}" } },
      { { table.unpack(outputs[1].text) }, { table.unpack(outputs[2].text) }, { table.unpack(outputs[3].text) } })
  end)

  it("holds what commands and C's streams write, in order", function()
    notebook { [[
      print 'a' os.execute 'echo b'
      local one <close> = io.open('/dev/fd/1', 'w') one:write('c\n') one:flush() print 'd'
      local p = io.popen('cat', 'w') p:write 'e\n' p:close()
      io.popen('echo f >&2; echo g'):read() os.execute 'sleep 0.1';]],
      "print 'h'" }
    local cells = run().cells
    local lines = { stdout = {}, stderr = {} }
    for _, output in ipairs(cells[1].outputs) do
      local list = lines[output.name]
      table.move(output.text, 1, #output.text, #list + 1, list)
    end
    assert.same({ stdout = { "a\n", "b\n", "c\n", "d\n", "e\n" }, stderr = { "f\n" } }, lines)
    assert.same({ "h\n" }, { table.unpack(cells[2].outputs[1].text) })
  end)

  it("says which variables ended with their cell", function()
    notebook { "local a, b = 1", "b()" }
    local result = run()
    assert.equal("In [2]:1: attempt to call a nil value (global 'b')\nb was a local variable of In [1], " ..
      "which ended with it; assign to it without `local` to keep it", result.cells[2].outputs[1].evalue)
  end)

  it("ends commands that take too long", function()
    notebook { "os.execute 'sleep 20'", "1" }
    local start = os.time()
    local result, err, status = run "--timeout 0.3"
    assert.equal(1, status)
    assert.matches("longer than %-%-timeout", err)
    assert.equal("Interrupted", result.cells[1].outputs[1].ename)
    assert.is_true(os.time() - start < 10)
  end)

  it("stops at a failing cell, with its traceback and the outputs so far", function()
    notebook { "print 'a'", "local x\nx.y = 1", "print 'never'" }
    local result, err, status = run()
    assert.equal(1, status)
    assert.matches("In %[2%]:2: attempt to index a nil value %(local 'x'%)", err)
    assert.equal("error", result.cells[2].outputs[1].output_type)
    assert.equal("a\n", result.cells[1].outputs[1].text[1])
    assert.equal("stale", result.cells[3].outputs[1].output_type)
  end)

  it("goes on when errors are allowed", function()
    notebook { "error 'x'", "1" }
    local result, err, status = run "--allow-errors"
    assert.equal(0, status)
    assert.equal("", err)
    assert.equal("execute_result", result.cells[2].outputs[1].output_type)
  end)

  it("runs lines that are no Lua", function()
    notebook { "local n = 1\n%time n + 1", "!echo a; exit 3", "print?", "x = 7\n%reset\nx", "\n%tiem" }
    local result, err = run()
    assert.equal("2", result.cells[1].outputs[2].data["text/plain"][1])
    assert.same({ "a\n", "exit status 3\n" },
      { result.cells[2].outputs[1].text[1], result.cells[2].outputs[2].text[1] })
    assert.equal("display_data", result.cells[3].outputs[1].output_type)
    assert.equal("nil", result.cells[4].outputs[1].data["text/plain"][1])
    assert.matches("In %[5%]:2: there is no magic '%%tiem'", err)
  end)

  it("limits the time of a cell", function()
    notebook { "while true do pcall(error) end", "1" }
    local result, err, status = run "--timeout 0.3"
    assert.equal(1, status)
    assert.matches("In %[1%]: it took longer than %-%-timeout allows\nCellTimeoutError: A cell timed out while it was "
      .. "being executed, after 0.3 seconds%.\n", err)
    assert.equal("Interrupted", result.cells[1].outputs[1].ename)
  end)

  it("stops a message handler that never returns", function()
    notebook { "while true do xpcall(function() while true do end end, function() while true do end end) end" }
    local result, _, status = run "--timeout 0.3"
    assert.equal(1, status)
    assert.equal("Interrupted", result.cells[1].outputs[1].ename)
  end)

  it("gives up a cell that heeds no interrupt, with what there is", function()
    notebook { "'before'", "print 'a'; (('x'):rep(1000000)):find(('.-'):rep(60) .. 'y')", "'never'" }
    local result, err, status = run "--timeout 0.3 --allow-errors"
    assert.equal(1, status)
    assert.matches("In %[2%]: it took longer than %-%-timeout allows\nCellTimeoutError: ", err)
    assert.equal("execute_result", result.cells[1].outputs[1].output_type)
    assert.same({ "a\n", "Interrupted" }, { result.cells[2].outputs[1].text[1], result.cells[2].outputs[2].ename })
    assert.equal("stale", result.cells[3].outputs[1].output_type)
  end)

  it("is not ended by a cell", function()
    notebook { "os.exit(0)" }
    local result, _, status = run()
    assert.equal(1, status)
    assert.matches("os.exit: a session ends from its front end", result.cells[1].outputs[1].evalue)
  end)

  it("hands a device on to the cells", function()
    notebook { "os.getenv 'PERILUNE_DEVICE'" }
    assert.same({ '"cuda:1"' }, { table.unpack(run("--device cuda:1").cells[1].outputs[1].data["text/plain"]) })
    assert.matches("%-%-device needs a value\nusage:", (select(2, run "--device")))
  end)

  it("says what is wrong with a file", function()
    notebook({ "1" }, function(text) return text:sub(1, #text // 2) end)
    assert.matches("is not a whole notebook: line", (select(2, run())))
    for text, message in pairs { ["[]"] = "no nbformat", ["{}"] = "no nbformat",
      ['{"nbformat": 3}'] = "nbformat 3; 4 is expected",
      ['{"nbformat": 4}'] = "no array of cells", ['{"nbformat": 4, "cells": [1]}'] = "cell 1 has no source",
      ['{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "python"}}}'] = "written in python" } do
      program.write(path, text)
      local _, err, status = run()
      assert.equal(1, status)
      assert.truthy(err:find(message, 1, true), err)
    end
    local _, err, status = program.run { args = "notebook run /nonexistent.ipynb" }
    assert.equal(1, status)
    assert.matches("cannot open '/nonexistent.ipynb'", err)
  end)
end)
