-- Sizes of a fused recurrence that follow from its plan: warps, tiles, registers, shared memory. Each formula serves
-- twice: on the variables of a problem of perilune.constrint, where constraints are made of it, and on the numbers of a
-- plan, for the model of its time. host/cuda/fused_plan.c works the same sizes out for a launch, by what that launch is
-- given; here all states are given out and all gradients wanted. tests/recurrence/sizes_spec.lua holds the two
-- together.

local sizes = {}

local LANES <const>, TILE_BYTES <const>, PADDING <const>, HEADER <const>, ALIGNMENT <const> = 32, 32, 16, 128, 128
sizes.TILE_BYTES = TILE_BYTES -- of h, of one row, that one instruction multiplies
local FRAGMENT_BYTES <const> = 512
sizes.FRAGMENT_BYTES = FRAGMENT_BYTES -- of R, of a warp: 16 bytes a lane
local WRITER_REGISTERS <const>, REGISTERS_MAX <const> = 56, 255

--- The functions that constrint has, on numbers.
local numbers = {
  ceil_div = function(a, b) return (a + b - 1) // b end,
  min = math.min,
  max = math.max,
  when = function(condition, a, b) if condition then return a end return b end,
  eq = function(a, b) return a == b end,
  le = function(a, b) return a <= b end,
  divides = function(a, b) return b % a == 0 end,
  all = function(list)
    for _, holds in ipairs(list) do
      if not holds then return false end
    end
    return true
  end,
}

local bytes_of <const> = { float64 = 8, float32 = 4, bfloat16 = 2, float16 = 2 }

-- How many states the cell's backward program reads, before or after the step.
local function states_kept(spec)
  local read = {}
  for _, output in ipairs(spec.backward.outputs) do read[output] = true end
  for _, instruction in ipairs(spec.backward.code) do
    for place = 3, 5 do read[instruction[place]] = true end
  end
  local kept = 0
  for state = 0, spec.states - 1 do
    if read[spec.saves + state] or read[spec.saves + spec.states + state] then kept = kept + 1 end
  end
  return kept
end

--- What of a problem { cell =, batch =, heads =, head_dim =, dtype =, product =, forward_clip = } sizes follow from.
function sizes.problem(given)
  local cell, same = given.cell, given.dtype == given.product
  local spec, others = cell:spec { forward_clip = given.forward_clip }, 0
  for _, has in ipairs(cell.parts) do
    if has.input and not (same and has.recurrent) then others = others + 1 end
  end
  return {
    batch = given.batch, heads = given.heads, dim = given.head_dim,
    stored = bytes_of[given.dtype], multiplied = bytes_of[given.product], product = given.product,
    gates = #cell.gates, states = #cell.states, params = #cell.params,
    inputs = cell:count "input", recurrents = cell:count "recurrent",
    others = others, -- gates whose gradient of the input needs a place of its own
    saved = spec.saves + states_kept(spec), -- values of a record, for each element
    work = { #spec.forward.code, #spec.backward.code }, -- instructions of the cell's programs
  }
end

-- Registers of a thread, of `warps` that a multiprocessor runs, which are spread over its four parts.
local function even_share(warps, m) return m.min(REGISTERS_MAX, 512 // m.ceil_div(warps, 4) // 8 * 8) end

-- Of a thread that multiplies: from sm_90 on, four warps that move data leave theirs to the others.
local function registers_of(s, plan, writers, chip, m)
  local warps = s.warps + writers
  local even = even_share(warps * plan.resident, m)
  if chip.architecture < 90 then return even end
  local each = m.min(REGISTERS_MAX // 8 * 8, (even * warps - 4 * WRITER_REGISTERS) // s.warps // 8 * 8)
  return m.when(m.all { m.eq(writers, 4), m.divides(4, s.warps), m.eq(plan.resident, 1), m.le(9, warps) },
    m.max(each, even), even)
end

-- What fragments of R leave of a thread's registers to all else, about: see host/cuda/fused_plan.c.
local function other_registers(q, s, way, scope, m)
  local forward, narrow = way == 1, q.multiplied == 2
  local tiles, depth = s.tiles[way], s.depth[way]
  local sets = m.when(m.le(4, tiles), 1, m.when(m.le(2, tiles), 2, 4))
  local values = s.row_tiles * 4 * tiles * sets + s.record_words
  if forward then
    values = values + s.elements * (q.gates + q.states + 2)
  else
    values = values + s.elements * (3 * q.states + 2 + q.gates)
  end
  if q.stored == 4 then values = values + s.elements * (forward and q.inputs or q.states) end
  if scope == "grid" then
    if forward then
      values = values + 4 * depth * s.row_tiles + 8
      if narrow then
        values = values + 6 + depth * depth * s.row_tiles // 8 + (s.row_tiles - 1) * 3 * s.groups
      end
    else
      values = values + (s.row_tiles - 1) * 8
      local words = q.recurrents * s.units * q.multiplied // 4
      local gathered = s.sets * words * s.rows // (s.warps * LANES * 2)
      if narrow then values = values + 4 + gathered * depth // 16 end
      values = values + 4 * s.groups * s.row_tiles * m.ceil_div(s.parts, s.warps) + 8
    end
    values = values + m.when(m.le(16, depth), 16, 8) + 2 * s.groups
  end
  return values + 44 + (q.multiplied == 4 and 64 or 0)
end

local function aligned(bytes, m) return m.ceil_div(bytes, ALIGNMENT) * ALIGNMENT end

local function shared_forward(q, s, plan, scope, m)
  local used = HEADER
  if scope ~= "grid" then used = used + aligned(2 * s.rows * (s.padded * q.multiplied + PADDING), m) end
  if scope ~= "block" then used = used + aligned(2 * s.rows * (s.units * q.multiplied + PADDING), m) end
  used = used + aligned(2 * (q.states - 1) * s.rows * (s.units * q.stored + PADDING), m)
  used = used + aligned(plan.ring * q.inputs * s.rows * s.units * q.stored, m)
  return used + m.when(m.le(2, plan.splits), aligned(s.warps * s.items * q.recurrents * LANES * 4, m), 0)
end

local function shared_backward(q, s, plan, scope, m)
  local used = HEADER + aligned(2 * s.rows * (s.depth[2] * TILE_BYTES + PADDING), m)
  used = used + aligned(2 * q.others * s.rows * (s.units * q.stored + PADDING), m)
  used = used + aligned(plan.ring * s.records * s.record_words * LANES * 4, m)
  used = used + aligned(plan.ring * q.states * s.rows * s.units * q.stored, m)
  local slots = aligned(2 * s.parts * s.row_tiles * (s.units // 8) * LANES * 8, m)
  if scope == "cluster" then return used + slots end
  if scope == "block" then return used end
  return used + m.when(m.eq(plan.clustered, 1), slots, aligned(s.warps * s.items * LANES * 4, m))
end

--- How `plan` cuts a recurrence, its fields being numbers or, with `m` = perilune.constrint, expressions (clustered is
-- 1 or 0): units of a block, teams, warps, and for both ways { forward, backward } threads.
function sizes.cut(q, scope, plan, m)
  m = m or numbers
  local s = { rows = plan.rows, groups = plan.groups, parts = plan.parts, blocks = plan.blocks }
  s.columns, s.row_tiles = plan.rows // 4, m.ceil_div(plan.rows, 8)
  if scope == "grid" then -- a team; that all units find a place is a constraint of its own
    s.units, s.teams = 8 * plan.groups, 1
  else
    s.units = 16 * m.ceil_div(q.dim, 16 * plan.blocks)
    s.teams = m.max(1, s.units // (8 * plan.groups)) -- 0 is excluded by a constraint of its own
  end
  s.padded = s.units * plan.blocks
  s.warps = s.teams * plan.splits
  s.along = s.padded * q.multiplied // TILE_BYTES
  s.eights = plan.parts * (s.units // 8)
  s.tiles_of_rows = m.ceil_div(q.batch, plan.rows)
  s.threads = { (s.warps + plan.writers_forward) * LANES, (s.warps + plan.writers_backward) * LANES }
  return s
end

--- Adds what a cut takes: elements of a thread, records, and for both ways tiles, depth and fragments of R, those in
-- registers, registers of a thread that multiplies and the fragments that these have room for (both about), and bytes
-- of shared memory.
function sizes.fill(s, q, chip, scope, plan, m)
  m = m or numbers
  s.items = plan.groups * s.columns
  s.elements = m.ceil_div(s.items, plan.splits)
  s.records = m.when(m.eq(plan.splits, 1), s.warps, s.teams * m.min(s.items, plan.splits))
  s.record_words = (q.saved * s.elements * q.stored + 3) // 4
  s.sets = plan.blocks // plan.parts
  if q.recurrents > 0 then
    s.tiles = { (q.recurrents * plan.groups + 1) // 2, (s.eights // s.warps + 1) // 2 }
    s.depth = { s.along // plan.splits, m.ceil_div(q.recurrents * s.units * s.sets * q.multiplied, TILE_BYTES) }
  else
    s.tiles, s.depth = { 0, 0 }, { 0, 0 }
  end
  local shared = { shared_forward(q, s, plan, scope, m), shared_backward(q, s, plan, scope, m) }
  s.fragments, s.in_registers, s.registers, s.room, s.shared = {}, {}, {}, {}, {}
  for way, direction in ipairs { "forward", "backward" } do
    local writers, asked = plan["writers_" .. direction], plan["registers_" .. direction]
    s.fragments[way] = s.tiles[way] * s.depth[way]
    local others = other_registers(q, s, way, scope, m)
    local room = (registers_of(s, plan, writers, chip, m) - others) // 4
    s.in_registers[way] = m.min(s.fragments[way], m.max(0, m.when(m.le(0, asked), asked, room)))
    s.registers[way], s.room[way] = others + 4 * s.in_registers[way], room
    s.shared[way] = shared[way] + aligned(s.warps * (s.fragments[way] - s.in_registers[way]) * FRAGMENT_BYTES, m)
  end
  return s
end

--- All sizes of a plan in numbers.
function sizes.of(q, chip, scope, plan) return sizes.fill(sizes.cut(q, scope, plan), q, chip, scope, plan) end

return sizes
