-- Chooses how one persistent launch of a recurrence is cut: candidates in the order of what was measured, and the first
-- that fits the chip. What fits is the C side's knowledge (core.fused_details), and so is what a plan comes to.

local core = require "perilune.core"

local fused = {}

-- As host/device/recurrence.h numbers them.
local scopes = { block = 0, cluster = 1, grid = 2 }

-- What a plan says beside its scope, with the values that candidates change only where they say so. parts: as many as
-- blocks.
local defaults = {
  rows = 4, blocks = 1, parts = 0, clustered = false, groups = 2, splits = 1, writers_forward = 4, writers_backward = 4,
  ring = 8, resident = 1, registers_forward = -1, registers_backward = -1, -- as many as there are
}

local function divide_up(a, b) return (a + b - 1) // b end

local types = { float32 = true, bfloat16 = true, float16 = true } -- of Wx

-- What a fused recurrence cannot do, whatever the plan.
local function refusal(problem)
  if not types[problem.dtype] then
    return ("computes in float32, and Wx has %s%s"):format(problem.dtype,
      problem.dtype == "float64" and " (alternating computes in float64)" or "")
  end
  if problem.head_dim % 8 ~= 0 then
    return ("takes a head_dim that is a multiple of 8, got %d (alternating takes any)"):format(problem.head_dim)
  end
end

-- ---- candidates -----------------------------------------------------------------------------------------------------

-- 4 batch rows of a block are done soonest; 8 when the blocks would otherwise come in more than `waves` turns.
local function rows_in_order(problem, chip, blocks, waves)
  local needed = divide_up(problem.batch, 4) * problem.heads * blocks
  if needed > waves * chip.multiprocessors and problem.batch > 4 then return { 8, 4 } end
  return { 4, 8 }
end

local candidates = {}

-- A second turn of the blocks of this scope was seen to be as quick as twice the rows.
function candidates.block(problem, chip)
  local list = {}
  for _, rows in ipairs(rows_in_order(problem, chip, 1, 2)) do
    for _, ring in ipairs { 8, 4 } do list[#list + 1] = { scope = "block", rows = rows, ring = ring } end
  end
  return list
end

function candidates.cluster(problem, chip, given)
  local dim = problem.head_dim
  local list, least = {}, dim <= 128 and 4 or dim <= 384 and 8 or 16
  local most = chip.architecture < 120 and 16 or 8
  for _, blocks in ipairs(given.blocks and { given.blocks } or { 4, 8, 16 }) do
    if blocks >= least and blocks <= most or given.blocks then
      for _, rows in ipairs(rows_in_order(problem, chip, blocks, 1)) do
        for _, ring in ipairs { 8, 4 } do
          list[#list + 1] = { scope = "cluster", blocks = blocks, groups = 1, rows = rows, ring = ring }
        end
      end
    end
  end
  return list
end

-- Groups of 8 units of a block and its batch rows, what was seen to be quick first.
local few_rows = { { 1, 4 }, { 2, 4 }, { 3, 4 }, { 4, 4 } }
local many_rows = {
  { 2, 8 }, { 3, 8 }, { 2, 16 }, { 3, 16 }, { 4, 8 }, { 4, 16 }, { 1, 8 }, { 1, 16 }, { 6, 8 }, { 6, 16 }, { 8, 8 },
  { 2, 4 }, { 1, 4 },
}

-- Multiprocessors that clusters of 8 find for certain: two clusters in every group of up to 18 that share a part of the
-- chip.
local function within_clusters(chip) return chip.multiprocessors // 18 * 16 end

-- Blocks that add up a gradient of h, and warps that move data: fewer of these leave more registers for R.
local variants = { { parts = 8, writers = 4 }, { parts = 16, writers = 4 }, { parts = 8, writers = 0 },
                   { parts = 16, writers = 0 } }

-- Blocks of `groups` groups of units each, as many as it takes for tiles, parts and shares to be whole.
local function blocks_of(problem, groups, splits, parts)
  local padded = problem.head_dim
  while padded % (16 * splits) ~= 0 or padded % (8 * groups * parts) ~= 0 do padded = padded + 8 end
  return padded // (8 * groups)
end

local function grid_candidate(problem, chip, given, pair, variant)
  local splits, parts, rows = given.splits or 8, given.parts or variant.parts, given.rows or pair[2]
  local groups = given.groups or given.blocks and divide_up(problem.head_dim, 8 * given.blocks) or pair[1]
  local blocks = given.blocks or blocks_of(problem, groups, splits, parts)
  local at_once, needed = chip.multiprocessors // blocks, divide_up(problem.batch, rows) * problem.heads
  return {
    scope = "grid", blocks = blocks, groups = groups, rows = rows, splits = splits, ring = 4, parts = parts,
    writers_forward = variant.writers, writers_backward = variant.writers,
    clustered = chip.architecture >= 90 and parts <= 8
      and math.min(needed, at_once) * blocks <= within_clusters(chip),
    launches = at_once > 0 and divide_up(needed, at_once) or math.huge,
  }
end

local product_bytes = { float32 = 4, bfloat16 = 2, float16 = 2 }

-- Bytes of h, of one row, that a warp multiplies: the registers hold no more of 16 rows. From sm_90 on, warps that move
-- data leave theirs to the others.
local function in_reach(candidate, problem, chip)
  local padded, most = candidate.blocks * 8 * candidate.groups, chip.architecture >= 90 and 384 or 192
  return candidate.rows < 16 or padded * product_bytes[problem.product] <= most * candidate.splits
end

-- All blocks of a head must run at once; the rest follows in launches of its own, so few launches come first.
function candidates.grid(problem, chip, given)
  local list = {}
  for _, pair in ipairs(problem.batch <= 4 and few_rows or many_rows) do
    for _, variant in ipairs(variants) do
      local candidate = grid_candidate(problem, chip, given, pair, variant)
      candidate.place = #list
      if given.rows or in_reach(candidate, problem, chip) then list[#list + 1] = candidate end
    end
  end
  table.sort(list, function(a, b)
    if a.launches ~= b.launches then return a.launches < b.launches end
    return a.place < b.place
  end)
  return list
end

-- Where nothing is fed back through R, blocks have nothing to send each other.
local function scopes_in_order(problem, chip)
  local dim, clusters = problem.head_dim, chip.architecture >= 90
  if problem.cell:count "recurrent" == 0 then return clusters and { "block", "cluster" } or { "block" } end
  if not clusters then return dim <= 128 and { "block", "grid" } or { "grid", "block" } end
  if dim <= 64 then return { "block", "cluster", "grid" } end
  return dim <= 512 and { "cluster", "grid", "block" } or { "grid", "cluster" }
end

-- A candidate with all fields, those of `given` among them.
local function complete(candidate, given)
  local plan = { scope = candidate.scope }
  for name, value in pairs(defaults) do
    plan[name] = value
    if candidate[name] ~= nil then plan[name] = candidate[name] end
    if given[name] ~= nil then plan[name] = given[name] end
  end
  if plan.parts == 0 then plan.parts = plan.blocks end
  return plan
end

-- ---- choosing -------------------------------------------------------------------------------------------------------

local function check_given(given)
  if type(given) ~= "table" then
    error(("plan: expected a table { scope =, blocks =, ... }, got a %s"):format(type(given)), 0)
  end
  for name, value in pairs(given) do
    if name == "scope" then
      if not scopes[value] then error(("plan: scope: expected block, cluster or grid, got %s"):format(value), 0) end
    elseif defaults[name] == nil then
      local names = { "scope" }
      for known in pairs(defaults) do names[#names + 1] = known end
      table.sort(names)
      error(("plan: unknown field '%s'; there are %s"):format(name, table.concat(names, ", ")), 0)
    elseif math.type(value) ~= math.type(defaults[name]) or type(value) ~= type(defaults[name]) then
      local expected = type(defaults[name]) == "boolean" and "true or false" or "an integer"
      error(("plan: %s: expected %s, got %s"):format(name, expected, tostring(value)), 0)
    end
  end
end

-- What core.recurrence takes.
local function arguments_of(plan)
  local arguments = { scope = scopes[plan.scope] }
  for name in pairs(defaults) do arguments[name] = plan[name] end
  arguments.clustered = plan.clustered and 1 or 0
  return arguments
end

local function no_longer_prefixed(complaint) return (complaint:gsub("^.-plan: ", "", 1)) end

--- The plan for problem = { cell =, batch =, heads =, head_dim =, dtype = (of Wx), product =, forward_clip = } on
-- chip = { architecture =, multiprocessors =, shared_bytes = } (core.fused_chip). `given` (may be nil) forces fields.
-- Returns { plan =, details = (core.fused_details), passed = (why others were not taken), arguments = (for
-- core.recurrence) }, or nil and why there is none, which goes on from "fused".
function fused.choose(problem, chip, given)
  local why_not = refusal(problem)
  if why_not then return nil, why_not end
  if given then check_given(given) end
  given = given or {}
  local handle, passed = problem.cell:compile { forward_clip = problem.forward_clip }, {}
  for _, scope in ipairs(given.scope and { given.scope } or scopes_in_order(problem, chip)) do
    local first
    for _, candidate in ipairs(candidates[scope](problem, chip, given)) do
      local plan = complete(candidate, given)
      local arguments = arguments_of(plan)
      local details, complaint = core.fused_details(chip, handle, problem, arguments)
      if details then
        return { plan = plan, details = details, passed = passed, arguments = arguments, predicted_us = 1,
                 feasible = 1 }
      end
      first = first or no_longer_prefixed(complaint)
    end
    passed[#passed + 1] = ("%s: %s"):format(scope, first)
  end
  return nil, ("has no plan that fits sm_%d with %d multiprocessors; scope %s"):format(chip.architecture,
    chip.multiprocessors, table.concat(passed, "; scope "))
end

--- The best `count` plans that fit, the best predicted first.
function fused.ranked(problem, chip)
  local found, why_not = fused.choose(problem, chip)
  return found and { found }, why_not
end

-- ---- explaining -----------------------------------------------------------------------------------------------------

local function bytes(count)
  if count < 10 * 1024 then return ("%d bytes"):format(count) end
  if count < 10 * 1024 * 1024 then return ("%.1f KiB"):format(count / 1024) end
  return ("%.1f MiB"):format(count / 1024 / 1024)
end

local ways_of_h = {
  block = "h goes from step to step inside a block, which holds a whole head",
  cluster = "h goes from step to step through the shared memory of a cluster of %d blocks, which hold a head",
  grid = "h goes from step to step through the L2 cache, between %d blocks that hold a head and run at once",
}

local function of_way(name, way)
  return ("%s: R of a block takes %s of registers and %s of shared memory, of which it needs %s in all"):format(name,
    bytes(way.register_bytes), bytes(way.weight_bytes), bytes(way.shared_bytes))
end

--- What fused.choose returned, in lines.
function fused.explain(found)
  local plan, details = found.plan, found.details
  local lines = {}
  for _, why_not in ipairs(found.passed) do lines[#lines + 1] = "not scope " .. why_not end
  lines[#lines + 1] = ("scope %s: %s"):format(plan.scope, ways_of_h[plan.scope]:format(plan.blocks))
  local turns = details.launches > 1 and (", in %d launches one after the other"):format(details.launches) or ""
  lines[#lines + 1] = ("%d blocks, each of %d batch rows, %d warps that multiply and %d (backward %d) that move data%s")
    :format(details.blocks, plan.rows, details.warps, plan.writers_forward, plan.writers_backward, turns)
  if plan.scope == "grid" then
    lines[#lines + 1] = ("backward: %d blocks add up each gradient of h through %s"):format(plan.parts,
      plan.clustered and "the shared memory of their cluster" or "the L2 cache")
  end
  lines[#lines + 1] = of_way("forward", details.forward)
  lines[#lines + 1] = of_way("backward", details.backward)
  lines[#lines + 1] = ("a step: %d multiplications, %s to and from memory; a block sends others %s, backward %s")
    :format(details.products, bytes(details.moved_bytes), bytes(details.forward.exchanged_bytes),
      bytes(details.backward.exchanged_bytes))
  return table.concat(lines, "\n")
end

return fused
