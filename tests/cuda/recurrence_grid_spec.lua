-- The alternating recurrence on a GPU at the limits of each type: every cell, with steps, heads, units and rows from
-- one to many. Every day a few hundred cases, which have every pair of values for the LSTM in each type and every value
-- for each cell; all combinations with PERILUNE_FULL set. With PERILUNE_SHOW_ERRORS set it prints the largest errors as
-- parts of the limits.

local devices = require "tests.devices"
local grid = require "tests.recurrence.grid"
local zoo = require "tests.recurrence.zoo"

if not devices.has("cuda", "alternating meets the limits") then return end

local full = os.getenv "PERILUNE_FULL"
local every_type = { "float64", "float32", "tf32", "bfloat16", "float16" }

-- Types that share one cover of the axes.
local function groups_of(entry)
  if entry.decides then return { { "float64" } } end -- in the other types a rounding may decide
  if entry.name == "lstm" then return { { "float64" }, { "float32" }, { "tf32" }, { "bfloat16" }, { "float16" } } end
  local built_in = entry.name == "elman" or entry.name == "gru" or entry.name == "slstm"
  return built_in and { { "float32", "bfloat16" }, { "float64", "float16", "tf32" } } or { every_type }
end

local function cases_of(entry)
  local list = {}
  for _, types in ipairs(groups_of(entry)) do
    local axes = grid.axes_of(entry.cell, full and not entry.decides and every_type or types)
    if full then return grid.product(axes) end
    for _, case in ipairs(grid.cover(axes, entry.name == "lstm")) do list[#list + 1] = case end
  end
  return list
end

-- Beside the grid: two tiles of rows and an odd one, more rows than the step's own product takes, large R with many
-- steps, and with enough rows and heads for cuBLAS.
local chosen = {
  { B = 40, T = 9, N = 2, D = 256 },
  { B = 200, T = 12, N = 2, D = 40 },
  { B = 16, T = 257, N = 1, D = 768 },
  { B = 64, T = 12, N = 12, D = 768 },
}

describe("alternating meets the limits", function()
  local function add(cell, case)
    it("for " .. grid.name(cell, case), function() grid.check(cell, case, "alternating", "cuda") end)
  end

  for _, entry in ipairs(zoo) do
    for _, case in ipairs(cases_of(entry)) do add(entry.cell, case) end
    if entry.name == "lstm" then
      for _, shape in ipairs(chosen) do
        for _, dtype in ipairs { "float32", "bfloat16" } do
          add(entry.cell, { type = dtype, bias = 0, B = shape.B, T = shape.T, N = shape.N, D = shape.D })
        end
      end
    end
  end

  if os.getenv "PERILUNE_SHOW_ERRORS" then teardown(function() print("\n" .. grid.report()) end) end
end)
