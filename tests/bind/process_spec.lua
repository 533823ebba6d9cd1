-- Children beside a script, and locks between processes.
local core = require "perilune.core"
local message_of = require "tests.message_of"
local new_folder = require "tests.new_folder"
local program = require "bind.program"

local folder
before_each(function() folder = new_folder() end)
after_each(function() os.execute("rm -r " .. folder) end)

-- Starts a shell command; returns its process number.
local function start(children, command, ...)
  return children:start({ "/bin/sh", "-c", command }, folder, folder .. "/log", ...)
end

-- Waits until a child has ended; returns what `ended` says.
local function wait(children)
  while true do
    local process, how, number = children:ended()
    if process then return process, how, number end
    core.sleep(0.01)
  end
end

describe("children", function()
  it("run at once, in a folder, without input, with what they print at the end of a file", function()
    local children <close> = core.children(2)
    program.write(folder .. "/log", "before\n")
    local first = start(children, "read x || pwd; while [ ! -e done ]; do sleep 0.01; done; echo error >&2; exit 3")
    assert.is_nil(children:ended())
    local second = start(children, "touch done")
    local found = {}
    for _ = 1, 2 do
      local process, how, number = wait(children)
      found[process] = { how, number }
    end
    assert.same({ [first] = { "exit", 3 }, [second] = { "exit", 0 } }, found)
    assert.equal("before\n" .. folder .. "\nerror\n", program.read(folder .. "/log"))
    assert.is_nil(children:ended())
  end)

  it("tell which signal ended them, and when their program was not there", function()
    local children <close> = core.children(1)
    start(children, "kill -9 $$")
    assert.same({ "signal", 9 }, { select(2, wait(children)) })
    children:start({ "/nonexistent/program" }, folder, folder .. "/log")
    assert.same({ "exit", 127 }, { select(2, wait(children)) })
    assert.equal("cannot enter the folder, or run the program\n", program.read(folder .. "/log"))
  end)

  it("are ended when they are closed, also those that heed no interrupt", function()
    local began_s = core.time()
    do
      local children <close> = core.children(2)
      start(children, "trap 'echo bye; exit' INT; touch a; while :; do sleep 0.05; done")
      start(children, "trap '' INT; touch b; while :; do sleep 0.05; done")
      os.execute(("cd %s; while ! [ -e a -a -e b ]; do sleep 0.02; done"):format(folder))
    end
    assert.is_true(core.time() - began_s < 20)
    assert.matches("bye\n$", program.read(folder .. "/log"))
  end)

  it("refuse what they cannot do", function()
    local children <close> = core.children(1)
    for message, f in pairs {
      ["children: most: expected 1..4096, got 0"] = function() core.children(0) end,
      ["start: words: expected strings, got boolean"] = function() children:start({ "a", true }, "/", "/x") end,
      ["start: words: expected a program and its arguments"] = function() children:start({}, "/", "/x") end,
      ["start: cannot open '/nonexistent/log': No such file"] = function()
        children:start({ "true" }, "/", "/nonexistent/log")
      end,
    } do
      assert.truthy(message_of(f):find(message, 1, true), message_of(f))
    end
    start(children, "sleep 5")
    assert.matches("start: 1 children run, and no more are allowed", message_of(start, children, "true"))
  end)
end)

describe("a lock", function()
  it("is held by one, and asking takes it from nobody", function()
    local path = folder .. "/lock"
    assert.is_false(core.locked(path))
    local held = core.lock(path)
    assert.is_true(core.locked(path))
    assert.is_nil(core.lock(path))
    held:close()
    held:close()
    assert.is_false(core.locked(path))
    assert.is_truthy(core.lock(path))
  end)

  it("is held by a child, too, until it ends", function()
    local path = folder .. "/lock"
    local children <close> = core.children(1)
    local held = core.lock(path)
    start(children, "while [ ! -e done ]; do sleep 0.01; done", held)
    held:close()
    assert.is_true(core.locked(path))
    assert.is_nil(core.lock(path))
    program.write(folder .. "/done", "")
    wait(children)
    assert.is_false(core.locked(path))
  end)

  it("says what is wrong with its file", function()
    assert.matches("lock: cannot open '/nonexistent/lock': No such file", message_of(core.lock, "/nonexistent/lock"))
    assert.matches("locked: cannot ask for '.*': File name too long",
      message_of(core.locked, folder .. "/" .. ("y"):rep(300)))
  end)
end)
