-- Options of experiments: defaults, types, errors, help.
local options = require "perilune.options"

local declaration <const> = {
  usage = "perilune x.lua [OPTIONS]", about = "Does x.",
  { "steps", "integer", default = 10, minimum = 1, help = "steps to take" },
  { "lr", "number", default = 0.5, maximum = 1, help = "rate" },
  { "cell", "list", default = { "a", "b" }, choices = { "a", "b", "c" }, help = "cells" },
  { "lengths", "integers", default = { 4 }, minimum = 2, help = "lengths" },
  { "mode", "string", choices = { "fast", "slow" }, help = "mode" },
  { "no-plot", "flag", help = "no picture" },
}

local function refused(...)
  local values, message = options.parse(declaration, { ... })
  assert.is_nil(values)
  return message
end

describe("options", function()
  it("have their defaults", function()
    assert.are.same({ steps = 10, lr = 0.5, cell = { "a", "b" }, lengths = { 4 }, no_plot = false },
      options.parse(declaration, {}))
    local first = options.parse(declaration, {})
    first.cell[1] = "changed"
    assert.are.equal("a", options.parse(declaration, {}).cell[1])
  end)

  it("read both ways of writing", function()
    local values = options.parse(declaration,
      { "--steps", "3", "--lr=1e-3", "--cell", "c,a", "--lengths=2,8", "--no-plot", "--mode", "slow" })
    assert.are.same({ steps = 3, lr = 0.001, cell = { "c", "a" }, lengths = { 2, 8 }, mode = "slow", no_plot = true },
      values)
    assert.is_false(options.parse(declaration, { "--no-plot=false" }).no_plot)
  end)

  it("say what is wrong", function()
    assert.are.equal("unknown option '--step'; --help lists the options", refused("--step", "3"))
    assert.are.equal("unknown argument 'steps'; --help lists the options", refused("steps"))
    assert.are.equal("option --steps: expected an integer, got '1.5'", refused("--steps", "1.5"))
    assert.are.equal("option --steps: expected a number of at least 1, got '0'", refused("--steps=0"))
    assert.are.equal("option --steps needs a value (integer)", refused("--steps"))
    assert.are.equal("option --lr: expected a number, got 'fast'", refused("--lr", "fast"))
    assert.are.equal("option --lr: expected a number of at most 1, got '2'", refused("--lr", "2"))
    assert.are.equal("option --lengths: expected a number of at least 2 separated by commas, got '4,1'",
      refused("--lengths", "4,1"))
    assert.are.equal("option --mode: expected one of fast, slow, got 'quick'", refused("--mode", "quick"))
    assert.matches("expected one of a, b, c", refused("--cell", "a,d"))
    assert.matches("expected words", refused("--cell", "a,,b"))
  end)

  it("take words where the declaration names them", function()
    local takes = { words = "files", { "quiet", "flag" } }
    assert.are.same({ quiet = true, files = { "a", "b=c" } }, options.parse(takes, { "a", "--quiet", "b=c" }))
    assert.are.same({ quiet = false }, options.parse(takes, {}))
    assert.are.equal("unknown argument '-q'; --help lists the options", select(2, options.parse(takes, { "a", "-q" })))
  end)

  it("tell of an error without what means nothing to whoever typed them", function()
    for message, reason in pairs {
      ["x.lua:3: data.read: path: no files in 'a'"] = "no files in 'a'",
      ["no shard (now) (memcmp(h->magic, MAGIC, 8) == 0, host/base/shard.c:48)\nstack"] = "no shard (now)",
      ["a text of 5 ids (in all) is too short"] = "a text of 5 ids (in all) is too short",
    } do
      assert.are.equal(reason, options.reason(message))
    end
  end)

  it("list themselves", function()
    assert.is_nil((options.parse(declaration, { "--help" })))
    local text = options.help(declaration)
    assert.matches("usage: perilune x.lua %[OPTIONS%]\nDoes x.\n", text)
    assert.matches("%-%-steps INTEGER%s+steps to take %[10%]", text)
    assert.matches("%-%-cell LIST%s+cells %(one of a, b, c%) %[a,b%]", text)
    assert.matches("%-%-no%-plot%s+no picture\n", text)
  end)
end)
