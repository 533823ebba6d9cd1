-- Why there is no solution: a set of constraints and ranges, in their words, that together exclude every one, while
-- without any one of them there is a solution (or at least none of the searches found that there is none).

local compile = require "perilune.constrint.compile"
local expression = require "perilune.constrint.expression"
local search = require "perilune.constrint.search"

local explain = {}

local Reasons = {}

function Reasons.__tostring(reasons)
  if not reasons.excluded then return ("%s is not excluded"):format(reasons.what) end
  return ("%s is excluded by\n  - %s"):format(reasons.what, table.concat(reasons, "\n  - "))
end

-- The variables with the fewest values first: what is impossible shows soonest.
local function smallest_first(m)
  local variables = {}
  for _, number in pairs(m.number_of) do variables[#variables + 1] = { number = number } end
  local function count(i) return m.values[i] and m.last[i] - m.first[i] or m.hi[i] - m.lo[i] end
  table.sort(variables, function(a, b)
    local count_a, count_b = count(a.number), count(b.number)
    return count_a < count_b or count_a == count_b and a.number < b.number
  end)
  return variables
end

-- As `excludes`, where variables whose ranges do not count are from -reach to reach.
local function excludes_within(problem, given, nodes, counts, reach)
  local m, refusal = compile.problem(problem, given, counts, reach)
  if not m then return not refusal or nil end
  local found = false
  local exhausted = search.run(m, smallest_first(m), nodes, function()
    found = true
    return true
  end)
  if exhausted then return nil end
  return not found
end

-- What stands for no range: constraints that multiply are refused past the first, and values may be as large as the
-- last.
local reaches <const> = { 1 << 31, 1 << 45, expression.limit }

-- Whether the items for which counts(item) is true exclude every solution: true, false, or nil when that is not found
-- within `nodes`, or a constraint is refused. A solution beyond a reach that is refused is not found.
local function excludes(problem, given, nodes, counts)
  local excluded = excludes_within(problem, given, nodes, counts, reaches[1])
  local whole = true
  for _, range in ipairs(problem.ranges) do whole = whole and counts(range) end
  for k = 2, whole and 0 or #reaches do
    if excluded and excludes_within(problem, given, nodes, counts, reaches[k]) == false then return false end
  end
  return excluded
end

-- The reasons why there is no solution with the `given` values, which are no reasons themselves; `counts` says which
-- constraints count at all. Nil, and why, when that is not found within `nodes`.
function explain.reasons(problem, what, given, nodes, counts)
  local reasons = setmetatable({ what = what, excluded = false }, Reasons)
  local excluded = excludes(problem, given, nodes, counts)
  if excluded == nil then return nil end
  if not excluded then return reasons end

  local dropped = {}
  local function is_left(item) return not dropped[item] and counts(item) end
  local function drop_if_possible(item)
    dropped[item] = true
    if not excludes(problem, given, nodes, is_left) then dropped[item] = nil end
  end

  -- Constraints first: what they do not mention needs no range.
  local mentioned = {}
  for k = #problem.constraints, 1, -1 do
    local item = problem.constraints[k]
    if counts(item) then drop_if_possible(item) end
  end
  for _, item in ipairs(problem.constraints) do
    if is_left(item) then
      for _, variable in ipairs(item.variables) do mentioned[variable] = true end
    end
  end
  for k = #problem.ranges, 1, -1 do
    local range = problem.ranges[k]
    if not mentioned[range.variable] and not given[range.variable.name] then
      dropped[range] = true
    else
      drop_if_possible(range)
    end
  end

  reasons.excluded = true
  for _, items in ipairs { problem.constraints, problem.ranges } do
    for _, item in ipairs(items) do
      if is_left(item) then reasons[#reasons + 1] = item.words end
    end
  end
  return reasons
end

return explain
