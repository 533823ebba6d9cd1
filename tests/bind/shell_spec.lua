-- Programs that are given text and give some back, and waiting; in a script, without a front end.
local core = require "perilune.core"
local pl = require "perilune"
local program = require "bind.program"

describe("filter", function()
  it("returns output, errors and status", function()
    assert.same({ "text", "", true, "exit", 0 }, { core.filter("cat", "text") })
    assert.same({ "", "no\n", nil, "exit", 3 }, { core.filter("echo no >&2; exit 3", "") })
    assert.same({ "", "", nil, "signal", 9 }, { core.filter("kill -9 $$", "") })
    assert.equal(127, (select(5, core.filter("no-such-program", "unread"))))
  end)

  it("moves more than pipes hold, both ways at once", function()
    local text = ("0123456789"):rep(300000)
    assert.is_true(core.filter("cat", text) == text)
    local output, errors = core.filter("tee /dev/stderr", text)
    assert.is_true(output == text and errors == text)
  end)

  it("does not mind a program that reads nothing", function()
    assert.same({ "done\n", "", true, "exit", 0 }, { core.filter("exec <&-; echo done", ("x"):rep(10000000)) })
  end)

  it("waits for the program, not for what it leaves behind", function()
    local start = pl.time()
    assert.equal("a\n", (core.filter("echo a; sleep 20 &", "")))
    assert.is_true(pl.time() - start < 10)
  end)

  it("ends with an interrupt", function()
    local start = pl.time()
    local _, err, status = program.run { before = "timeout -s INT 0.3",
      args = "-e " .. program.quote [[require "perilune.core".filter("trap '' INT; sleep 20; sleep 20", "")]] }
    assert.is_true(pl.time() - start < 10)
    assert.matches("interrupted", err)
    assert.not_equal(0, status)
  end)
end)

describe("sleep", function()
  it("waits", function()
    local start = pl.time()
    pl.sleep(0.05)
    assert.is_true(pl.time() - start >= 0.05)
    pl.sleep(0)
  end)

  it("says what is wrong", function()
    for value, message in pairs { [-1] = "sleep: seconds: expected a number of 0 or more, got %-1",
      x = "number expected, got string" } do
      assert.matches(message, select(2, pcall(pl.sleep, value)))
    end
    assert.matches("expected a number of 0 or more", select(2, pcall(pl.sleep, 0 / 0)))
  end)

  it("ends with an interrupt", function()
    local start = pl.time()
    local _, err = program.run { before = "timeout -s INT 0.3", args = "-e 'require \"perilune\".sleep(20)'" }
    assert.is_true(pl.time() - start < 10)
    assert.matches("interrupted", err)
  end)
end)
