-- The fused recurrence on a GPU at the limits of each type, against `reference`: every cell, sizes, scopes, rows and
-- steps. Options and unusual values are fused_uses_spec.lua's. With PERILUNE_SHOW_ERRORS set it prints the largest
-- errors as parts of the limits.

local pl = require "perilune"
local devices = require "tests.devices"
local grid = require "tests.recurrence.grid"
local zoo = require "tests.recurrence.zoo"

if not devices.has("cuda", "fused meets the limits") then return end

local lstm = pl.cells.lstm
local clusters = require "perilune.core".fused_chip "cuda".architecture >= 90

local function add(cell, case)
  case.N, case.bias = case.N or 2, case.bias or 0
  local how = case.plan and " with " .. pl.json_encode(case.plan) or ""
  it("for " .. grid.name(cell, case) .. how, function() grid.check(cell, case, "fused", "cuda") end)
end

-- What each scope is asked to do: units, and the fields that force it where D alone would not.
local scopes = {
  { name = "block", D = 64, plan = { scope = "block" } },
  { name = "cluster", D = 128, plan = { scope = "cluster" }, cluster = true },
  { name = "grid", D = 128, plan = { scope = "grid" } },
}

describe("fused meets the limits: rows and steps", function()
  local steps = { 1, 2, 3, 64, 17, 3, 64 }
  for _, scope in ipairs(scopes) do
    if clusters or not scope.cluster then
      for i, rows in ipairs { 1, 2, 3, 8, 16, 17, 64 } do
        add(lstm, { type = "bfloat16", B = rows, T = steps[i], D = scope.D, plan = scope.plan })
      end
      add(lstm, { type = "bfloat16", B = 2, T = 1024, N = 1, D = scope.D, plan = scope.plan })
      add(lstm, { type = "bfloat16", B = 3, T = 64, D = scope.D, bias = 3, plan = scope.plan })
    end
  end
end)

describe("fused meets the limits: sizes", function()
  for i, D in ipairs { 8, 16, 24, 40, 72, 104, 200, 256, 264, 512, 768, 1024 } do
    add(lstm, { type = "bfloat16", B = 9, T = 12, N = i % 2 + 1, D = D })
  end
  for _, D in ipairs { 64, 256, 512 } do
    add(lstm, { type = "bfloat16", B = 9, T = 12, D = D, plan = { scope = "grid" } })
  end
  -- Rows enough for 16 in a block, and for several launches.
  add(lstm, { type = "bfloat16", B = 64, T = 12, N = 1, D = 768 })
  add(lstm, { type = "bfloat16", B = 200, T = 5, N = 3, D = 768 })
end)

describe("fused meets the limits: types", function()
  for i, dtype in ipairs { "float32", "tf32", "float16" } do
    for _, scope in ipairs(scopes) do
      if clusters or not scope.cluster then
        add(lstm, { type = dtype, B = 5, T = 33, D = scope.D, plan = scope.plan, bias = i == 3 and 3 or 0 })
      end
    end
  end
  add(lstm, { type = "float32", B = 9, T = 12, N = 1, D = 512 })
end)

describe("fused meets the limits: cells", function()
  local types = { "bfloat16", "float32", "float16" }
  for i, entry in ipairs(zoo) do
    if entry.cell ~= lstm then
      for k, scope in ipairs(scopes) do
        -- Of cells that decide, a rounding may do that: of a 16-bit tanh at once, else after the first step.
        local dtype = entry.decides and "float32" or types[(i + k) % 3 + 1]
        local T = entry.decides and 1 or 17
        if (clusters or not scope.cluster) and (scope.name ~= "grid" or entry.cell:count "recurrent" > 0) then
          add(entry.cell, { type = dtype, B = 5, T = T, D = scope.D - 24, plan = scope.plan })
        end
      end
    end
  end
  add(pl.cells.gru, { type = "bfloat16", B = 9, T = 12, N = 1, D = 768 })
  add(pl.cells.slstm, { type = "bfloat16", B = 9, T = 12, N = 1, D = 768 })

  if os.getenv "PERILUNE_SHOW_ERRORS" then teardown(function() print("\n" .. grid.report()) end) end
end)
