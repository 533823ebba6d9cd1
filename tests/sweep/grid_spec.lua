-- The grid of a sweep: values, ranges, words of the command line.
local grid = require "perilune.sweep.grid"
local slurm = require "perilune.sweep.slurm"

local flags <const> = { jobs = false, slurm = true, out = false }

local function message_of(f, ...)
  local fine, message = pcall(f, ...)
  assert.is_false(fine)
  return message
end

describe("values of an option", function()
  it("are words and ranges of integers, as they are written", function()
    for text, expected in pairs {
      ["lstm,gru"] = { "lstm", "gru" }, ["1..4"] = { "1", "2", "3", "4" }, ["-1..1"] = { "-1", "0", "1" },
      ["7,1..2,9"] = { "7", "1", "2", "9" }, ["3..3"] = { "3" }, ["0.10,1e-3"] = { "0.10", "1e-3" },
      ["../data,a..b"] = { "../data", "a..b" }, [".."] = { ".." },
    } do
      assert.same(expected, grid.values("x", text))
    end
  end)

  it("are refused by name, with what was expected", function()
    for text, expected in pairs {
      ["5..1"] = "option --x: expected ranges that go up, such as 1..5, got '5..1'",
      ["0.1..0.5"] = "option --x: expected ranges of integers, such as 1..5, got '0.1..0.5'",
      ["a,,b"] = "option --x: expected values separated by commas, or ranges such as 1..5, got 'a,,b'",
      [""] = "option --x: expected values separated by commas, or ranges such as 1..5, got ''",
      ["2,1..3"] = "option --x: the value 2 is there twice",
      ["1..1000000"] = "option --x: expected ranges of at most 100000 integers, got '1..1000000'",
    } do
      assert.equal(expected, message_of(grid.values, "x", text))
    end
  end)
end)

describe("words of the command line", function()
  it("are the grid, the sweep's own, Slurm's, and the experiment's", function()
    assert.same({
      own = { "--jobs=2", "--slurm" }, sbatch = { { "time", "1:00" }, { "exclusive" } }, rest = { "--lengths", "1,2" },
      axes = { { "cell", { "lstm", "gru" } }, { "no-plot", { "true" } }, { "lr", { "-1" } }, { "seed", { "1", "2" } } },
    }, grid.read({ "--cell", "lstm,gru", "--jobs", "2", "--no-plot", "--slurm", "--slurm-time", "1:00", "--lr", "-1",
      "--seed=1..2", "--slurm-exclusive", "--", "--lengths", "1,2" }, flags))
  end)

  it("are refused where they mean nothing", function()
    assert.equal("unexpected 'b'; --help explains the command", message_of(grid.read, { "--a", "1", "b" }, flags))
    assert.equal("option --a is there twice", message_of(grid.read, { "--a", "1", "--a", "2" }, flags))
  end)
end)

describe("the product", function()
  it("has every combination once, the last option turning fastest", function()
    assert.same({ { a = "1", b = "x" }, { a = "1", b = "y" }, { a = "2", b = "x" }, { a = "2", b = "y" } },
      grid.product { { "a", { "1", "2" } }, { "b", { "x", "y" } } })
    assert.same({ {} }, grid.product {})
  end)

  it("has a limit", function()
    local many = grid.values("a", "1..1000")
    assert.equal("the options make more than 100000 runs", message_of(grid.product, { { "a", many }, { "b", many } }))
  end)
end)

describe("numbers of an array", function()
  it("are ranges where they can be", function()
    assert.equal("1-3,5,7-8", slurm.ranges { 1, 2, 3, 5, 7, 8 })
    assert.equal("4", slurm.ranges { 4 })
  end)
end)
