-- Sizes of fused plans as Lua states them and as the launch works them out, and the constraints made of them: what one
-- side takes the other takes, with the same bytes, for thousands of plans on chips that need not be here.

local pl = require "perilune"
local constraints = require "perilune.rnn.constraints"
local core = require "perilune.core"
local chips = require "perilune.rnn.chips"
local sizes = require "perilune.rnn.sizes"
local zoo = require "tests.recurrence.zoo"

local scopes <const> = { "block", "cluster", "grid" }
local types <const> = { { "bfloat16", "bfloat16" }, { "float32", "float32" }, { "float16", "float16" },
                        { "float32", "bfloat16" } }

local next_number = 1
-- Numbers that look random and never change.
local function pick(list)
  next_number = (next_number * 1103515245 + 12345) % 2 ^ 31 // 1
  return list[(next_number >> 8) % #list + 1]
end

local function random_problem()
  local dtype = pick(types)
  return {
    cell = pick(zoo).cell, batch = pick { 1, 3, 16, 64, 200 }, heads = pick { 1, 2, 12 },
    head_dim = pick { 8, 16, 24, 64, 72, 128, 200, 256, 512, 768, 1024, 1536, 2048 }, dtype = dtype[1],
    product = dtype[2],
  }
end

-- Fields that may be wrong together.
local function random_plan(scope)
  local blocks = scope == "block" and 1 or scope == "cluster" and pick { 2, 4, 8, 16 }
    or 2 * pick { 1, 4, 8, 12, 16, 24, 32, 48, 64 }
  return {
    blocks = blocks, parts = scope == "grid" and pick { 2, 4, 8, 16 } or blocks, rows = pick { 4, 8, 16 },
    groups = scope == "block" and 2 or pick { 1, 2, 3, 4, 6, 8 },
    splits = scope == "grid" and pick { 4, 8 } or pick { 1, 1, 2 },
    clustered = scope == "grid" and pick { 0, 1 } or 0, writers_forward = pick { 4, 0, 2 },
    writers_backward = pick { 4, 0, 2 }, ring = pick { 4, 8 }, resident = pick { 1, 1, 1, 2 },
    registers_forward = pick { -1, -1, 0, 7 }, registers_backward = pick { -1, -1, 0, 7 },
  }
end

local function details_of(problem, chip, scope, plan)
  local arguments = { scope = ({ block = 0, cluster = 1, grid = 2 })[scope] }
  for name, value in pairs(plan) do arguments[name] = value end
  return core.fused_details(chip, problem.cell:compile(), problem, arguments)
end

local function shown(problem, scope, plan)
  return ("%s, B=%d N=%d D=%d %s/%s, scope %s, %s"):format(problem.cell.name, problem.batch, problem.heads,
    problem.head_dim, problem.dtype, problem.product, scope, pl.json_encode(plan))
end

describe("sizes of fused plans", function()
  it("are those of a launch", function()
    local compared, refused = 0, 0
    for _ = 1, 6000 do
      local problem, scope, chip = random_problem(), pick(scopes), pick(chips.list)
      local plan = random_plan(scope)
      local details = details_of(problem, chip, scope, plan)
      if details then
        local s = sizes.of(sizes.problem(problem), chip, scope, plan)
        local where = shown(problem, scope, plan)
        compared = compared + 1
        for way, name in ipairs { "forward", "backward" } do
          assert.equal(details[name].shared_bytes, s.shared[way], name .. " of " .. where)
          assert.equal(details[name].register_bytes, s.warps * s.in_registers[way] * 512, name .. " of " .. where)
        end
        assert.equal(details.warps, s.warps, where)
        assert.equal(details.threads, s.threads[1], where)
        assert.equal(details.padded, s.padded, where)
      else
        refused = refused + 1
      end
    end
    assert.is_true(compared > 500 and refused > 500, ("%d compared, %d refused"):format(compared, refused))
  end)
end)

describe("constraints of fused plans", function()
  -- Clusters in the grid scope are held to what is there for certain, which a launch finds out by itself.
  it("take what a launch takes", function()
    local taken, refused = 0, 0
    for _ = 1, 1500 do
      local problem, scope, chip = random_problem(), pick(scopes), pick(chips.list)
      local plan = random_plan(scope)
      if not (scope == "grid" and problem.cell:count "recurrent" == 0) then
        local q = sizes.problem(problem)
        local p = constraints.state(q, chip, scope, plan)
        local broken = p:broken(plan)
        local details, why_not = details_of(problem, chip, scope, plan)
        local where = ("%s: %s / %s"):format(shown(problem, scope, plan), table.concat(broken, "; "),
          why_not or "taken")
        if plan.clustered == 1 or scope == "cluster" and plan.blocks == 16 and chip.architecture == 120 then
          assert.is_true(details ~= nil or #broken > 0, where)
        else
          assert.equal(details ~= nil, #broken == 0, where)
        end
        if details then taken = taken + 1 else refused = refused + 1 end
        local s = details and sizes.of(q, chip, scope, plan)
        assert.is_true(not s or constraints.fits_memory(q, s, plan, chip))
      end
    end
    assert.is_true(taken > 100 and refused > 100, ("%d taken, %d refused"):format(taken, refused))
  end)

  it("find plans that a launch takes, and no others by numbers than by rules", function()
    for _, case in ipairs { { "lstm", 64 }, { "lstm", 256 }, { "lstm", 768 }, { "gru", 512, "A100", "float32" },
                            { "elman", 128, "RTX 5090", "float16" } } do
      local cell, D, chip_name, dtype = table.unpack(case)
      local problem = { cell = pl.cells[cell], batch = 16, heads = 2, head_dim = D, dtype = dtype or "bfloat16",
                        product = dtype or "bfloat16" }
      local q, chip, found = sizes.problem(problem), chips.named(chip_name or "H200"), 0
      for _, scope in ipairs(scopes) do
        local p, by_numbers = constraints.state(q, chip, scope, {}), {}
        constraints.each(q, chip, scope, {}, function(plan)
          local copy = {}
          for name, value in pairs(plan) do copy[name] = value end
          by_numbers[#by_numbers + 1] = copy
        end)
        local by_rules = p:all { values = { ring = "descending" } }
        assert.same(by_rules, by_numbers)
        for _, plan in ipairs(by_rules) do assert(details_of(problem, chip, scope, plan)) end
        found = found + #by_rules
      end
      assert.is_true(found > 20, ("%d plans of D=%d"):format(found, D))
    end
  end)
end)
