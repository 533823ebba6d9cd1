-- The prompt, fed through a pipe.
local program = require "bind.program"

local function prompt(input)
  local out, err, status = program.run { args = "-i", input = input, before = "HOME=/nonexistent" }
  return out:gsub("^Perilune [^\n]*\n", ""), err, status
end

describe("the prompt", function()
  it("prints results", function()
    assert.equal('> 2\n> "a"\tnil\n> \n', (prompt "1 + 1\n'a', nil\n"))
  end)

  it("goes on while code is unfinished", function()
    assert.equal("> >> >> 1\n2\n> \n", (prompt "for i = 1, 2 do\nprint(i)\nend\n"))
    assert.equal('> >> "a\\nb"\n> \n', (prompt "[[a\nb]]\n"))
  end)

  it("tells errors and goes on", function()
    local out, err, status = prompt "error 'no'\nx = = 1\n1\n"
    assert.equal("> > > 1\n> \n", out)
    assert.matches("stdin:1: no\nstack traceback", err)
    assert.matches("unexpected symbol near '='", err)
    assert.equal(0, status)
  end)

  it("reports code that input leaves unfinished", function()
    assert.matches("'end' expected", (select(2, prompt "for i = 1, 2 do\n")))
  end)
end)
