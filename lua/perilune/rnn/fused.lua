-- Chooses how one persistent launch of a recurrence is cut: of the plans that keep to perilune.rnn.constraints, the one
-- that perilune.rnn.model predicts to be the quickest. What a plan comes to is the C side's knowledge
-- (core.fused_details).

local constraints = require "perilune.rnn.constraints"
local core = require "perilune.core"
local model = require "perilune.rnn.model"
local sizes = require "perilune.rnn.sizes"

local fused = {}

-- As host/device/recurrence.h numbers them, and in the order in which they are looked at: those first in which a step
-- can be the shortest.
local scopes <const> = { block = 0, cluster = 1, grid = 2 }
local in_order <const> = { "block", "cluster", "grid" }

local is_field = {}
for _, name in ipairs(constraints.fields) do is_field[name] = true end

local FIELD_MAX <const>, SIZE_MAX <const> = 65536, 1 << 31 -- past these no launch can be, and numbers would overflow

local types <const> = { float32 = true, bfloat16 = true, float16 = true } -- of Wx

-- What a fused recurrence cannot do, whatever the plan.
local function refusal(problem)
  if not types[problem.dtype] then
    return ("computes in float32, and Wx has %s%s"):format(problem.dtype,
      problem.dtype == "float64" and " (alternating computes in float64)" or "")
  end
  if problem.head_dim % 8 ~= 0 then
    return ("takes a head_dim that is a multiple of 8, got %d (alternating takes any)"):format(problem.head_dim)
  end
  for _, name in ipairs { "batch", "heads", "head_dim" } do
    if problem[name] > SIZE_MAX // (name == "batch" and problem.heads or 1) then
      return ("takes at most 2^31 batch rows of all heads, got batch = %d, heads = %d, head_dim = %d"):format(
        problem.batch, problem.heads, problem.head_dim)
    end
  end
end

-- ---- what is given --------------------------------------------------------------------------------------------------

local function check_given(given)
  if type(given) ~= "table" then
    error(("plan: expected a table { scope =, blocks =, ... }, got a %s"):format(type(given)), 0)
  end
  for name, value in pairs(given) do
    if name == "scope" then
      if not scopes[value] then error(("plan: scope: expected block, cluster or grid, got %s"):format(value), 0) end
    elseif not is_field[name] then
      local names = { "scope", table.unpack(constraints.fields) }
      table.sort(names)
      error(("plan: unknown field '%s'; there are %s"):format(name, table.concat(names, ", ")), 0)
    elseif name == "clustered" and type(value) ~= "boolean" then
      error(("plan: clustered: expected true or false, got %s"):format(value), 0)
    elseif name ~= "clustered" and math.type(value) ~= "integer" then
      error(("plan: %s: expected an integer, got %s"):format(name, tostring(value)), 0)
    elseif name ~= "clustered" and (value < -1 or value > FIELD_MAX) then
      error(("plan: %s: expected an integer from -1 to %d, got %d"):format(name, FIELD_MAX, value), 0)
    end
  end
end

-- The fields of `given` as numbers.
local function numbers_of(given)
  local numbers = {}
  for name, value in pairs(given) do
    if name == "clustered" then value = value and 1 or 0 end
    if name ~= "scope" then numbers[name] = value end
  end
  return numbers
end

-- ---- choosing -------------------------------------------------------------------------------------------------------

local function copy(plan, scope)
  local made = { scope = scope }
  for _, name in ipairs(constraints.fields) do made[name] = plan[name] end
  made.clustered = made.clustered == 1
  return made
end

-- Plans of equal time stay in the order in which they were found.
local function insert(list, most, entry)
  local place = #list + 1
  while place > 1 and list[place - 1].predicted_us > entry.predicted_us do place = place - 1 end
  if place > most then return end
  table.insert(list, place, entry)
  list[most + 1] = nil
end

-- Holds garbage collection up until it is closed. A search leaves a megabyte of small tables, and collecting them while
-- it makes more takes a fifth of its time.
local function collect_later()
  local running = collectgarbage "isrunning"
  if running then collectgarbage "stop" end
  return setmetatable({}, { __close = function() if running then collectgarbage "restart" end end })
end

-- The quickest `most` plans, how many fit of those looked at (a scope in which nothing can be quicker is not), and for
-- each scope why nothing of it is the first, as a function.
local function search(q, chip, given, most)
  local _ <close> = collect_later()
  local list, feasible, passed, numbers = {}, 0, {}, numbers_of(given)
  for _, scope in ipairs(given.scope and { given.scope } or in_order) do
    local scale, quickest = chip.scale and chip.scale[scope] or 1, nil
    local least_forward_us, least_backward_us = model.least_us(scope)
    local least = scale * (least_forward_us + least_backward_us)
    local place = #passed + 1
    if #list == most and list[most].predicted_us <= least then
      passed[place] = { scope, function() return ("no step of it is predicted below %.2f us"):format(least) end }
    else
      constraints.each(q, chip, scope, numbers, function(plan, s)
        local forward_us, backward_us = model.step_us(q, s, plan, scope, chip)
        forward_us, backward_us = scale * forward_us, scale * backward_us
        local us = forward_us + backward_us
        feasible = feasible + 1
        quickest = math.min(quickest or us, us)
        if #list < most or us < list[most].predicted_us then
          insert(list, most, { plan = copy(plan, scope), predicted_us = us, forward_us = forward_us,
                               backward_us = backward_us })
        end
      end)
      passed[place] = { scope, function()
        if quickest then return ("its best plan is predicted to take %.2f us a step"):format(quickest) end
        return table.concat(constraints.conflict(q, chip, scope, numbers), "; ")
      end }
    end
  end
  return list, feasible, passed
end

-- What core.recurrence takes.
local function arguments_of(plan)
  local arguments = { scope = scopes[plan.scope] }
  for _, name in ipairs(constraints.fields) do arguments[name] = plan[name] end
  arguments.clustered = plan.clustered and 1 or 0
  return arguments
end

local function reasons(passed, but)
  local lines = {}
  for _, entry in ipairs(passed) do
    if entry[1] ~= but then lines[#lines + 1] = ("%s: %s"):format(entry[1], entry[2]()) end
  end
  return lines
end

local function ranked(problem, chip, count, given)
  local why_not = refusal(problem)
  if why_not then return nil, function() return why_not end end
  if given then check_given(given) end
  local q, handle = sizes.problem(problem), problem.cell:compile { forward_clip = problem.forward_clip }
  local list, feasible, passed = search(q, chip, given or {}, count)
  if #list == 0 then
    return nil, function()
      return ("has no plan that fits sm_%d with %d multiprocessors; limits of scope %s"):format(chip.architecture,
        chip.multiprocessors, table.concat(reasons(passed), "; scope "))
    end
  end
  for _, found in ipairs(list) do
    found.arguments, found.feasible = arguments_of(found.plan), feasible
    found.details = assert(core.fused_details(chip, handle, problem, found.arguments))
    found.passed = function() return reasons(passed, found.plan.scope) end
  end
  return list
end

--- The plans for problem = { cell =, batch =, heads =, head_dim =, dtype = (of Wx), product =, forward_clip = } on
-- chip = { architecture =, multiprocessors =, shared_bytes = (core.fused_chip), scale = (perilune.rnn.probe), or nil },
-- at most `count`, those first that are predicted to be the quickest. Returns a list of { plan =, details =
-- (core.fused_details), arguments = (for core.recurrence), predicted_us = of a step of training both ways,
-- forward_us =, backward_us =, feasible = how many plans fit of those looked at, passed() = a list of why other scopes
-- were not taken }, or nil and a function that returns why there is none, going on from "fused".
function fused.ranked(problem, chip, count) return ranked(problem, chip, count) end

--- The first of these, of the plans that have the fields `given` (nil: of all), or nil and why there is none.
function fused.choose(problem, chip, given)
  local list, why_not = ranked(problem, chip, 1, given)
  if not list then return nil, why_not end
  return list[1]
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
  for _, why_not in ipairs(found.passed()) do lines[#lines + 1] = "not scope " .. why_not end
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
