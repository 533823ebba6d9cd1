-- Predicts how long a step of a fused recurrence takes under a plan: the longest of what goes on beside each other, the
-- chain from h to h, carrying data to and from it, and waiting for memory; and what all blocks move. Each thing is
-- counted from the plan's sizes and weighed by what it was seen to cost.

local model = {}

local REGISTERS <const> = 65536 -- of a multiprocessor

-- Registers of a thread, which are given eight at a time: 0.88 of what perilune.rnn.sizes counts and of a word for each
-- operand, as these can be loaded ahead; about, to fit most of the launches that were seen to take turns or not to.
local function registers(s, way) return math.ceil(0.11 * (s.registers[way] + s.depth[way] * s.row_tiles)) * 8 end

-- Blocks that a multiprocessor runs at once, of those that need not wait for each other.
local function resident(s, way, chip)
  local fit = math.min(chip.shared_bytes // s.shared[way], REGISTERS // (s.threads[way] * registers(s, way)))
  return math.max(1, math.min(8, fit))
end

-- Blocks, or groups of blocks that need each other, that run at once. Clusters find places in parts of the chip of up
-- to 18 multiprocessors.
local function groups_at_once(s, plan, scope, way, chip)
  local multiprocessors = chip.multiprocessors
  if scope == "grid" then return multiprocessors * plan.resident // plan.blocks end
  if scope == "block" then return multiprocessors * resident(s, way, chip) end
  return (multiprocessors // 18 * (18 // plan.blocks) + multiprocessors % 18 // plan.blocks) * resident(s, way, chip)
end

-- How often all groups of a launch take turns, and the blocks that share a multiprocessor meanwhile, on average and at
-- least one.
local function turns_of(q, s, plan, scope, way, chip)
  local groups, at_once = s.tiles_of_rows * q.heads, math.max(1, groups_at_once(s, plan, scope, way, chip))
  local turns = (groups + at_once - 1) // at_once
  return turns, math.max(1, groups * plan.blocks / turns / chip.multiprocessors)
end

-- What way 1 (forward, of training) or 2 (backward) of a step does: counts of one block or of those that share a
-- multiprocessor, or of one warp where warps work beside each other (more than four of them share the four parts of a
-- multiprocessor), and of all blocks what they move.
local function counts(q, s, plan, scope, way, turns, sharing)
  local warps = s.warps * sharing
  local crowd = math.max(1, warps / 4)
  local values = way == 1 and q.inputs + q.states + q.saved + 1 or 2 * q.inputs + q.states + q.saved
  local carried = s.rows * s.units * (way == 1 and q.inputs + 1 or q.inputs + q.others + 1) * q.stored
  local records = way == 2 and s.records * s.record_words * 128 or 0
  local last = scope == "grid" and way == 2
  local paired = q.product == "bfloat16" and plan.groups % 2 == 0 and s.eights // s.warps % 2 == 0
  local pieces = (paired and plan.groups // 2 or plan.groups) * s.row_tiles
  local carries = plan[way == 1 and "writers_forward" or "writers_backward"] == 0
  return {
    step = 1,
    cell = crowd * s.elements * q.work[way], -- instructions
    operands = warps * s.depth[way] * s.row_tiles, -- tiles of h, or of gates' gradients
    mma = crowd * s.fragments[way] * s.row_tiles * (q.multiplied == 4 and 3 or 1), -- one behind the other
    fragments = warps * (s.fragments[way] - s.in_registers[way]), -- of R, from shared memory
    carried = sharing * (carried + records) / 1e3, -- KB through the warps that move data
    moved = q.batch * q.heads * q.dim * values * q.stored / turns / 1e6, -- MB to and from memory
    items = plan.splits > 1 and s.items or 0, -- sums that the warps of a team share
    blocks = s.blocks,
    sent = s.blocks * s.rows * s.units * q.multiplied / 1e3, -- KB of all blocks, to every other one
    added = last and (1 - plan.clustered) * pieces * math.ceil(s.parts / s.warps) or 0, -- words that a thread polls
    unclustered = last and 1 - plan.clustered or 0,
    carrying = carries and s.rows * s.units / 1e3 or 0, -- where no warps of their own move data
    rows = s.rows - 4, -- more than the fewest
  }
end

-- Microseconds until what memory is asked for is there, as rings of 4 show it. A ring leaves it as many steps as it
-- has places, but for 3.
local LATENCY_US <const> = 0.4

-- Microseconds for each count, { forward, backward }: of the chain from h to h, in an order that fixes its sum, of what
-- the warps that move data carry, and of what all blocks move. Fitted, with weights that favour what is near the best
-- of its size, to 1654 plans of 29 sizes of lstm, gru, elman and slstm in bfloat16 on one H200. On other chips, and in
-- other types, it is the order that is to be trusted.
local weights <const> = {
  block = {
    { chain = { { "step", 0.104 }, { "cell", 0.000485 }, { "operands", 0.0000576 }, { "mma", 0.0051 },
        { "fragments", 0.00293 } }, carried = 0.0758, moved = 0.103 },
    { chain = { { "step", 0.192 }, { "cell", 0.000103 }, { "operands", 0.00154 }, { "fragments", 0.00204 } },
      carried = 0.0612, moved = 0.14 },
  },
  cluster = {
    { chain = { { "step", 0.163 }, { "cell", 0.00431 }, { "operands", 0.00089 }, { "mma", 0.00161 },
        { "fragments", 0.00224 }, { "items", 0.034 }, { "blocks", 0.00362 }, { "sent", 0.0574 } },
      carried = 0.115, moved = 0.111 },
    { chain = { { "step", 0.299 }, { "operands", 0.0004 }, { "mma", 0.00646 }, { "fragments", 0.00184 },
        { "blocks", 0.0035 }, { "sent", 0.0759 } }, carried = 0.072, moved = 0.199 },
  },
  grid = {
    { chain = { { "step", 0.623 }, { "cell", 0.00417 }, { "mma", 0.00572 }, { "fragments", 0.000848 },
        { "blocks", 0.00276 }, { "sent", 0.0057 }, { "carrying", 0.44 }, { "rows", 0.0252 } },
      carried = 0, moved = 0.112 },
    { chain = { { "step", 0.921 }, { "cell", 0.00047 }, { "operands", 0.000782 }, { "mma", 0.00601 },
        { "fragments", 0.00123 }, { "sent", 0.0219 }, { "added", 0.0958 }, { "unclustered", 0.313 },
        { "carrying", 0.398 } }, carried = 0, moved = 0.548 },
  },
}

--- No step of the scope is predicted to take less, in us: forward, backward.
function model.least_us(scope) return weights[scope][1].chain[1][2], weights[scope][2].chain[1][2] end

--- The predicted us of a step of training, forward and backward, for what perilune.rnn.sizes has.
function model.step_us(q, s, plan, scope, chip)
  local us, latency = {}, LATENCY_US / (plan.ring - 3)
  for way = 1, 2 do
    local turns, sharing = turns_of(q, s, plan, scope, way, chip)
    local done, cost, chain = counts(q, s, plan, scope, way, turns, sharing), weights[scope][way], 0
    for _, entry in ipairs(cost.chain) do chain = chain + entry[2] * done[entry[1]] end
    us[way] = turns * (math.max(chain, cost.carried * done.carried, latency) + cost.moved * done.moved)
  end
  return us[1], us[2]
end

return model
