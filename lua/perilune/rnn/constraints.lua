-- What a plan of a fused recurrence must keep to on a chip: one problem of perilune.constrint for each scope, with the
-- fields of a plan as variables and every limit in words. Families of constraints can be left out one by one, to see
-- what each is for (experiments/constrint.lua).

local constrint = require "perilune.constrint"
local sizes = require "perilune.rnn.sizes"

local all, any, divides, eq, implies, le, max = constrint.all, constrint.any, constrint.divides, constrint.eq,
  constrint.implies, constrint.le, constrint.max

local constraints = {}

-- Fields of a plan in the order in which they are tried, and for each scope the values worth trying. -1 fragments: as
-- many as registers hold.
local fields <const> = {
  "groups", "parts", "blocks", "rows", "clustered", "splits", "writers_forward", "writers_backward", "ring", "resident",
  "registers_forward", "registers_backward",
}
constraints.fields = fields

--- The families of constraints, and those that a scope has none of.
constraints.families = { "shape", "tiles", "warps", "residency", "memory", "use" }
constraints.lacking = { block = { residency = true }, cluster = {}, grid = {} }

local function every_second(first, last)
  local list = {}
  for value = first, last, 2 do list[#list + 1] = value end
  return list
end

-- A range in words: its values, or its ends where they are many.
local function words_of(name, list)
  if #list > 8 then return ("%s is tried from %d to %d"):format(name, list[1], list[#list]) end
  return ("%s is tried as %s"):format(name, table.concat(list, ", "))
end

local choices <const> = {
  block = function()
    return { blocks = { 1 }, groups = { 2 }, rows = { 4, 8 }, splits = { 1 }, parts = { 1 }, clustered = { 0 },
             writers_forward = { 4 }, writers_backward = { 4 }, ring = { 8, 4 } }
  end,
  cluster = function()
    return { blocks = { 2, 4, 8, 16 }, groups = { 1, 2 }, rows = { 4, 8 }, splits = { 1, 2 }, parts = { 2, 4, 8, 16 },
             clustered = { 0 }, writers_forward = { 4 }, writers_backward = { 4 }, ring = { 8, 4 } }
  end,
  grid = function(q, chip)
    local most = math.min(chip.multiprocessors, q.dim // 8 + 32)
    return { blocks = every_second(2, math.max(2, most)), groups = { 1, 2, 3, 4, 6, 8 }, rows = { 4, 8, 16 },
             splits = { 8 }, parts = { 8, 16 }, clustered = { 0, 1 }, writers_forward = { 4, 0 },
             writers_backward = { 4, 0 }, ring = { 4 } }
  end,
}

-- Fields that equal another one in every plan worth trying.
local equals <const> = {
  block = { blocks = "parts", writers_backward = "writers_forward" },
  cluster = { blocks = "parts", writers_backward = "writers_forward" },
  grid = { writers_backward = "writers_forward" },
}

-- The values of a field: those worth trying, or the one that is given, which the constraints judge. With `united`,
-- fields that are equal have one variable, of which a search goes through the values once.
local function declare(p, q, chip, scope, given, united)
  local plan, worth = {}, choices[scope](q, chip)
  worth.resident, worth.registers_forward, worth.registers_backward = { 1 }, { -1 }, { -1 }
  if scope ~= "grid" and given.blocks then worth.parts = { given.blocks } end
  for _, name in ipairs(fields) do
    local value = given[name]
    local equal = united and value == nil and equals[scope][name]
    if equal and given[equal] == nil then
      plan[name] = plan[equal]
    elseif value == nil then
      plan[name] = p:integer(name, worth[name], words_of(name, worth[name]))
    else
      plan[name] = p:integer(name, { value }, ("%s = %d is given"):format(name, value))
    end
  end
  return plan
end

local function one_of(x, list)
  local equal = {}
  for i, value in ipairs(list) do equal[i] = eq(x, value) end
  return any(equal)
end

local function between(x, least, most) return all { le(least, x), le(x, most) } end

-- What each field may be in a scope, whatever the problem. What is tried without being given is right by itself, so
-- words that begin with a field's name and a colon are said where it is given only.
local function require_shape(p, q, plan, scope, s, given)
  local function must(words, constraint) p:require(words, constraint, "shape") end
  local function where_given(name, words, constraint)
    if given[name] then must(name .. ": " .. words, constraint) end
  end
  if scope == "grid" then
    where_given("rows", "expected 4, 8 or 16 of a block in the grid scope", one_of(plan.rows, { 4, 8, 16 }))
    where_given("blocks", "expected an even number in the grid scope",
      all { le(2, plan.blocks), divides(2, plan.blocks) })
    where_given("parts", "expected an even number in the grid scope", all { le(2, plan.parts), divides(2, plan.parts) })
    where_given("splits", "expected at least 2 in the grid scope", le(2, plan.splits))
    must("parts: expected a divisor of blocks", divides(plan.parts, plan.blocks))
    must("blocks: all units of a head must find a place in blocks times groups times 8", le(q.dim, s.padded))
  else
    where_given("rows", "expected 4 or 8 of a block", one_of(plan.rows, { 4, 8 }))
    where_given("clustered", "is said in the grid scope only", eq(plan.clustered, 0))
    where_given("splits", "expected at least 1", le(1, plan.splits))
    if not rawequal(plan.parts, plan.blocks) then
      must("parts: expected as many as blocks in this scope", eq(plan.parts, plan.blocks))
    end
    must("splits: expected a divisor of groups times a fourth of the rows",
      divides(plan.splits, plan.groups * (plan.rows // 4)))
  end
  if scope == "block" then
    where_given("blocks", "expected 1 in the block scope", eq(plan.blocks, 1))
    where_given("groups", "expected 2 in the block scope: a team is a warp of 2 groups of units", eq(plan.groups, 2))
    where_given("splits", "expected 1 in the block scope: a team is a warp", eq(plan.splits, 1))
  elseif scope == "cluster" then
    where_given("blocks", "expected 2, 4, 8 or 16 in a cluster", one_of(plan.blocks, { 2, 4, 8, 16 }))
  end
  where_given("groups", "expected 1 to 8", between(plan.groups, 1, 8))
  where_given("writers_forward", "expected 0 to 8", between(plan.writers_forward, 0, 8))
  where_given("writers_backward", "expected 0 to 8", between(plan.writers_backward, 0, 8))
  where_given("ring", "expected 4 or 8", one_of(plan.ring, { 4, 8 }))
  where_given("resident", "expected 1 to 4", between(plan.resident, 1, 4))
  for _, name in ipairs { "registers_forward", "registers_backward" } do
    where_given(name, "expected -1 (as many as there are) to 64 fragments", between(plan[name], -1, 64))
  end
end

local function require_tiles(p, plan, s)
  p:require("groups: the units of a block must divide into teams of 8 times groups", divides(8 * plan.groups, s.units),
    "tiles")
  p:require("splits: the warps of a team must share the tiles of 32 bytes of h", divides(plan.splits, s.along), "tiles")
  p:require("parts: the warps of a block must share the units whose gradients it adds up", divides(s.warps, s.eights),
    "tiles")
end

local function require_warps(p, plan, s)
  p:require("warps: at most 1024 threads are in a block",
    all { le(s.threads[1], 1024), le(s.threads[2], 1024) }, "warps")
  p:require("warps: at most 15 teams of a block can meet", any { eq(plan.splits, 1), le(s.teams, 15) }, "warps")
end

local ROOM_MIN <const> = 2 -- fragments of R for which a thread has registers, as far as sizes can count those

-- Rows times groups of a team: with more, what else a thread keeps does not fit, states and params above all.
local function cells_max(q) return 144 // math.max(3, q.states + q.params) end

-- Bytes of shared memory that a way must leave free on a chip. What spills is compiled again with less of R in
-- registers. Before sm_90, without warps that leave theirs to others, that happens to nearly all: to cells of two
-- states by one fragment of R, to others by about two for each state or param more.
local function reserve(q, s, way, chip, least)
  local fragments = 1 + 2 * math.max(0, q.states + q.params - 2)
  return chip.architecture < 90 and s.warps * least(s.in_registers[way], fragments) * sizes.FRAGMENT_BYTES or 0
end

-- Whether plans must leave a thread the registers that it needs. Who gives fields may have them spilled, and products
-- in float32 need so many that they do.
local function spares_registers(q, free) return free and q.multiplied == 2 and q.recurrents > 0 end

local function require_memory(p, q, plan, s, chip, free)
  for way, name in ipairs { "forward", "backward" } do
    p:require(("%s: a multiprocessor has %d bytes of shared memory, for what registers do not hold of R, and more")
      :format(name, chip.shared_bytes), le(s.shared[way] * plan.resident, chip.shared_bytes), "memory")
    if spares_registers(q, free) then
      p:require(name .. ": shared memory must have room for some of R that registers turn out not to hold",
        le(s.shared[way] * plan.resident + reserve(q, s, way, chip, constrint.min), chip.shared_bytes), "memory")
      p:require(name .. ": a thread must have the registers that it needs beside those for R",
        le(ROOM_MIN, s.room[way]), "memory")
    end
  end
  if spares_registers(q, free) then
    p:require(("rows times groups: at most %d, for what else a thread keeps in registers"):format(cells_max(q)),
      le(plan.rows * plan.groups, cells_max(q)), "memory")
  end
end

--- Whether sizes keep to the constraints on memory, in numbers: quicker than rules as a search narrows plans. `free`:
-- no field of the plan was given.
function constraints.fits_memory(q, s, plan, chip, free)
  if math.max(s.shared[1], s.shared[2]) * plan.resident > chip.shared_bytes then return false end
  if not spares_registers(q, free) then return true end
  for way = 1, 2 do
    if s.shared[way] * plan.resident + reserve(q, s, way, chip, math.min) > chip.shared_bytes then return false end
  end
  return math.min(s.room[1], s.room[2]) >= ROOM_MIN and plan.rows * plan.groups <= cells_max(q)
end

-- Multiprocessors that clusters of 8 find for certain: two clusters in every group of up to 18 that share a part of the
-- chip.
local function within_clusters(chip) return chip.multiprocessors // 18 * 16 end

local BLOCKS_MAX <const> = (1 << 31) - 1 -- of a launch

local function require_residency(p, q, plan, scope, s, chip)
  if q.batch * q.heads * 256 > BLOCKS_MAX then -- what is far from it need not be looked at for every plan
    p:require("batch, heads: a launch takes less than 2^31 blocks",
      le(s.tiles_of_rows * q.heads * plan.blocks, BLOCKS_MAX), "residency")
  end
  if scope == "cluster" then
    p:require(("clusters of blocks are there from sm_90 on, and this is sm_%d"):format(chip.architecture),
      le(plan.blocks, chip.architecture >= 90 and 16 or 0), "residency")
    p:require("blocks: clusters of 16 are there from sm_90 to sm_119, else of 8",
      le(plan.blocks, chip.architecture < 120 and 16 or 8), "residency")
  elseif scope == "grid" then
    p:require(("blocks: those of a head must run at once; %d multiprocessors are there"):format(chip.multiprocessors),
      le(plan.blocks, chip.multiprocessors * plan.resident), "residency")
    local clustered = eq(plan.clustered, 1)
    p:require("clustered: clusters of at most 8 blocks, from sm_90 on",
      implies(clustered, le(plan.parts, chip.architecture >= 90 and 8 or 0)), "residency")
    local within = within_clusters(chip)
    p:require(("clustered: the blocks that run at once must find clusters, which have %d of the multiprocessors")
      :format(within), any { eq(plan.clustered, 0), le(s.tiles_of_rows * q.heads * plan.blocks, within),
                             le(chip.multiprocessors // plan.blocks * plan.blocks, within) }, "residency")
  end
end

-- Not wrong, but of no use.
local function require_use(p, q, plan, scope, s)
  if scope == "grid" then
    p:require("blocks: no more than what units, tiles and parts take", le(s.padded + 1, q.dim
      + max(8 * plan.groups * plan.parts, sizes.TILE_BYTES // q.multiplied * plan.splits)), "use")
    p:require("rows: no more than the batch fills", any { eq(plan.rows, 4), le(plan.rows, 2 * q.batch - 1) }, "use")
    if not rawequal(plan.writers_forward, plan.writers_backward) then
      p:require("writers: the same both ways", eq(plan.writers_forward, plan.writers_backward), "use")
    end
    local reach = 384 * plan.splits -- bytes of h, of one row: the registers hold no more of 16 rows
    p:require("rows: 16 only where the registers hold their h",
      any { le(plan.rows, 8), le(s.padded * q.multiplied, reach) }, "use")
  else
    p:require("blocks: none of which all units are beyond the head's",
      le(s.units * (plan.blocks - 1), q.dim - 1), "use")
    p:require("rows: no more than the batch fills", any { eq(plan.rows, 4), le(plan.rows, 2 * q.batch - 1) }, "use")
  end
end

-- The constraints on how a plan cuts the recurrence: all but those on memory. Returns the problem, its variables by
-- field, and the sizes of the cut.
local function state_cuts(q, chip, scope, given, united)
  local p = constrint.problem()
  local plan = declare(p, q, chip, scope, given, united)
  local s = sizes.cut(q, scope, plan, constrint)
  require_shape(p, q, plan, scope, s, given)
  require_tiles(p, plan, s)
  require_warps(p, plan, s)
  require_residency(p, q, plan, scope, s, chip)
  if next(given) == nil then require_use(p, q, plan, scope, s) end
  if q.recurrents == 0 and scope == "grid" then
    p:require("scope: nothing is fed back through R, so blocks have nothing to send each other",
      le(plan.rows, 0), "shape")
  end
  return p, plan, s
end

local function state_all(q, chip, scope, given, united)
  local p, plan, s = state_cuts(q, chip, scope, given, united)
  require_memory(p, q, plan, sizes.fill(s, q, chip, scope, plan, constrint), chip, next(given) == nil)
  return p
end

--- The problem of all plans of `scope` for a recurrence (perilune.rnn.sizes.problem) on a chip. `given` fixes fields,
-- and what is only of no use is then allowed.
function constraints.state(q, chip, scope, given) return state_all(q, chip, scope, given, false) end

--- Calls visit(plan, s) for every plan that this problem has, s being its sizes in numbers; both tables are used again
-- for the next plan.
function constraints.each(q, chip, scope, given, visit)
  local free = next(given) == nil
  local p, variable = state_cuts(q, chip, scope, given, true)
  p:best {
    values = { ring = "descending" },
    cost = function(plan)
      for name, equal in pairs(equals[scope]) do
        if rawequal(variable[name], variable[equal]) then plan[name] = plan[equal] end
      end
      local s = sizes.of(q, chip, scope, plan)
      if constraints.fits_memory(q, s, plan, chip, free) then visit(plan, s) end
      return 0 -- all are visited
    end,
  }
end

--- Why no plan of the scope is left, as a list of limits in words. What values are tried is left out: it follows from
-- the kernels.
function constraints.conflict(q, chip, scope, given)
  local reasons = {}
  for _, words in ipairs(state_all(q, chip, scope, given, true):conflict()) do
    if not words:find " is tried " then reasons[#reasons + 1] = words end
  end
  return reasons
end

return constraints
