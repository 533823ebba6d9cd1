-- Predicts how long a step of a fused recurrence takes under a plan: a sum of what the step does, each thing counted
-- from the plan's sizes and weighed by what it was seen to cost.

local model = {}

local REGISTERS <const> = 65536 -- of a multiprocessor

-- Blocks that a multiprocessor runs at once, of those that need not wait for each other.
local function resident(s, chip)
  local most = 8
  for way = 1, 2 do
    most = math.min(most, chip.shared_bytes // s.shared[way], REGISTERS // (s.threads[way] * s.registers[way]))
  end
  return math.max(1, most)
end

-- Blocks, or groups of blocks that need each other, that run at once. Clusters find places in parts of the chip of up
-- to 18 multiprocessors.
local function groups_at_once(s, plan, scope, chip)
  local multiprocessors = chip.multiprocessors
  if scope == "grid" then return multiprocessors * plan.resident // plan.blocks end
  if scope == "block" then return multiprocessors * resident(s, chip) end
  return (multiprocessors // 18 * (18 // plan.blocks) + multiprocessors % 18 // plan.blocks) * resident(s, chip)
end

-- How often all groups of a launch take turns.
local function turns_of(q, s, plan, scope, chip)
  local groups, at_once = s.tiles_of_rows * q.heads, math.max(1, groups_at_once(s, plan, scope, chip))
  return (groups + at_once - 1) // at_once
end

-- What way 1 (forward, of training) or 2 (backward) of a step does: counts of one block, or of one warp where warps
-- work beside each other (more than four of them share the four parts of a multiprocessor), and of all blocks what they
-- move.
local function counts(q, s, plan, scope, way, turns)
  local crowd = math.max(1, s.warps / 4)
  local values = way == 1 and q.inputs + q.states + q.saved + 1 or 2 * q.inputs + q.states + q.saved
  local last = scope == "grid" and way == 2
  local pieces = (plan.groups % 2 == 0 and q.multiplied == 2 and plan.groups // 2 or plan.groups) * s.row_tiles
  local carries = plan[way == 1 and "writers_forward" or "writers_backward"] == 0
  return {
    step = 1,
    cell = crowd * s.elements * q.work[way], -- instructions
    operands = s.warps * s.depth[way] * s.row_tiles, -- tiles of h, or of gates' gradients
    mma = crowd * s.fragments[way] * s.row_tiles * (q.multiplied == 4 and 3 or 1), -- one behind the other
    fragments = s.warps * (s.fragments[way] - s.in_registers[way]), -- of R, from shared memory
    moved = q.batch * q.heads * q.dim * values * q.stored / turns / 1e6, -- MB to and from memory
    items = plan.splits > 1 and s.items or 0, -- sums that the warps of a team share
    blocks = s.blocks,
    sent = s.blocks * s.rows * s.units * q.multiplied / 1e3, -- KB of all blocks, to every other one
    added = last and (1 - plan.clustered) * pieces * math.ceil(s.parts / s.warps) or 0, -- words that a thread polls
    unclustered = last and 1 - plan.clustered or 0,
    clustered = last and plan.clustered * s.parts * s.rows * s.units / 1e3 or 0,
    carrying = carries and s.rows * s.units / 1e3 or 0, -- where no warps of their own move data
    rows = s.rows,
  }
end

-- Microseconds for each count, { forward, backward }, in an order that fixes every sum: fitted, with weights that
-- favour what is near the best of its size, to 971 plans for 15 sizes of lstm, gru, elman and slstm in bfloat16 on one
-- H200. The errors near the best plans are 10 % in the block scope, 4 % in clusters and 2 % (backward 7 %) in the grid.
-- On other chips, and in other types, it is the order that is to be trusted.
local weights <const> = {
  block = {
    { { "step", 0.0787 }, { "cell", 0.00326 }, { "operands", 0.00346 }, { "moved", 0.108 } },
    { { "step", 0.166 }, { "cell", 0.0018 }, { "operands", 0.00089 }, { "moved", 0.175 } },
  },
  cluster = {
    { { "step", 0.172 }, { "cell", 0.00232 }, { "operands", 0.000448 }, { "mma", 0.00273 },
      { "fragments", 0.00194 }, { "moved", 0.143 }, { "items", 0.0337 }, { "blocks", 0.00327 },
      { "sent", 0.0529 } },
    { { "step", 0.285 }, { "operands", 0.000602 }, { "mma", 0.00562 }, { "fragments", 0.0022 }, { "moved", 0.212 },
      { "blocks", 0.00203 }, { "sent", 0.0631 } },
  },
  grid = {
    { { "step", 0.63 }, { "operands", 0.000318 }, { "mma", 0.004 }, { "fragments", 0.001 }, { "moved", 0.0164 },
      { "items", 0.0183 }, { "blocks", 0.00132 }, { "sent", 0.0141 }, { "carrying", 0.628 }, { "rows", 0.0138 } },
    { { "step", 0.87 }, { "operands", 0.00143 }, { "mma", 0.0022 }, { "fragments", 0.00184 }, { "moved", 0.0613 },
      { "items", 0.0136 }, { "sent", 0.0317 }, { "added", 0.122 }, { "unclustered", 0.394 }, { "clustered", 0.109 },
      { "carrying", 0.819 } },
  },
}

--- No step of the scope, both ways, is predicted to take less, in us.
function model.least_us(scope) return weights[scope][1][1][2] + weights[scope][2][1][2] end

--- The predicted us of a step of training, forward and backward, for what perilune.rnn.sizes has.
function model.step_us(q, s, plan, scope, chip)
  local turns, us = turns_of(q, s, plan, scope, chip), {}
  for way = 1, 2 do
    local done, total = counts(q, s, plan, scope, way, turns), 0
    for _, entry in ipairs(weights[scope][way]) do total = total + entry[2] * done[entry[1]] end
    us[way] = total * turns
  end
  return us[1], us[2]
end

return model
