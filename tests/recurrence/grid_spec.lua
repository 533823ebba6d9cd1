-- The grid of sizes and types: that its covers leave nothing out, that `reference` in each type meets the limits, and
-- that a result which is off, missing or NaN does not.

local pl = require "perilune"
local grid = require "tests.recurrence.grid"

describe("the grid", function()
  local types = { "float32", "bfloat16" }

  it("has every pair of values in its pairwise cover", function()
    local axes = grid.axes_of(pl.cells.lstm, types)
    local cases = grid.cover(axes, true)
    for one, values in pairs(axes) do
      for other, more in pairs(axes) do
        for i = 1, one < other and #values or 0 do
          for _, value in ipairs(more) do
            local there = false
            for _, case in ipairs(cases) do there = there or case[one] == values[i] and case[other] == value end
            assert(there, ("no case with %s=%s and %s=%s"):format(one, values[i], other, value))
          end
        end
      end
    end
    assert.is_true(#cases < #grid.product(axes) / 10)
  end)

  it("has every value in its cover of single ones, the same in every run", function()
    local axes = grid.axes_of(pl.cells.gru, types)
    local cases = grid.cover(axes)
    for name, values in pairs(axes) do
      local seen = {}
      for _, case in ipairs(cases) do seen[case[name]] = true end
      for _, value in ipairs(values) do assert.is_true(seen[value], name) end
    end
    assert.same(cases, grid.cover(axes))
  end)

  it("says when a pair is past everyday sizes", function()
    local axes = { B = { 1, 4096 }, T = { 4096 }, N = { 1 }, D = { 1 } }
    assert.error_matches(function() grid.cover(axes, true) end, "B=4096 .*")
  end)
end)

describe("the limits", function()
  for _, cell in ipairs { "elman", "gru", "lstm", "slstm" } do
    for _, dtype in ipairs { "float64", "float32", "bfloat16", "float16" } do
      it(("are met by reference for %s in %s"):format(cell, dtype), function()
        grid.check(pl.cells[cell], { B = 3, T = 33, N = 2, D = 24, type = dtype, bias = 0 }, "reference", "cpu")
      end)
    end
  end

  it("are met by vanilla with open forget gates", function()
    for _, dtype in ipairs { "float64", "float32", "bfloat16" } do
      grid.check(pl.cells.lstm, { B = 3, T = 33, N = 1, D = 24, type = dtype, bias = 3 }, "vanilla", "cpu")
    end
  end)

  local expected = { last = pl.ones { 4, dtype = "float64" }, ["d R"] = pl.zeros { 3, dtype = "float64" } }
  local function off(name, t)
    local found = { last = expected.last, ["d R"] = expected["d R"] }
    found[name] = t
    return grid.errors(found, expected)
  end

  it("see what is off, NaN or missing", function()
    assert.same({ 0, 0 }, off("last", expected.last))
    assert.near(0.01, off("last", expected.last + 0.01)[1], 1e-12)
    assert.near(math.sqrt(3), off("d R", expected["d R"] + 1)[2], 1e-12)
    assert.equal(math.huge, off("last", expected.last * (0 / 0))[1])
    assert.equal(math.huge, grid.errors({ last = expected.last }, expected)[2])
  end)

  it("do not count what float16 has no digits for", function()
    local tiny = { ["d states"] = pl.full({ 4 }, 2 ^ -27, { dtype = "float64" }) }
    local none = { ["d states"] = pl.zeros { 4, dtype = "float64" } }
    assert.same({ 0, 0 }, (grid.errors(none, tiny, "float16")))
    assert.same({ 0, 1 }, (grid.errors(none, tiny, "bfloat16")))
  end)

  it("see NaN and infinity in other places", function()
    local nan, t = 0 / 0, pl.tensor { 1, 0 / 0, 1 / 0, 2 }
    local touched, found, wanted = grid.finite_alike({ t = pl.tensor { 1, -1 / 0, nan, 2 } }, { t = t })
    assert.equal(2, touched)
    assert.same({ { 1, 0, 0, 2 }, { 1, 0, 0, 2 } }, { found.t:totable(), wanted.t:totable() })
    for what, values in pairs { ["is finite"] = { 1, nan, 0, 2 }, ["has NaN"] = { nan, nan, nan, 2 } } do
      local ok, message = pcall(grid.finite_alike, { t = pl.tensor(values) }, { t = t })
      assert.is_false(ok)
      assert.matches("t " .. what, message, 1, true)
    end
  end)

  it("are not met by other numbers", function()
    local run = grid.run
    function grid.run(problem, cell, options)
      local found = run(problem, cell, options)
      if problem.given.Wx.dtype == "float32" then found["d b"] = found["d b"] * (1 + 3e-5) end
      return found
    end
    local ok, message = pcall(grid.check, pl.cells.gru, { B = 2, T = 9, N = 1, D = 8, type = "float32", bias = 0 },
      "reference", "cpu")
    grid.run = run
    assert.is_false(ok)
    assert.matches("d b: error 3", message)
  end)
end)
