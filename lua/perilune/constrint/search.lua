-- Depth-first search: fixes one variable after the other, in the order given, lets the rules narrow what remains, and
-- takes back what fails.

local search = {}

--- Calls visit() at every solution of model m, until it returns true. `variables` has, in the order to fix them,
-- numbers and how to go through their values: { number, direction, preferred, is_preferred }, where direction is
-- "ascending" or "descending", preferred, if any, a list of values to try first, and is_preferred the set of these.
-- restrict(), if given, may narrow numbers before the rules do; where promising(), if given, is false after that the
-- search does not go on. Returns whether it ended by having tried `most` values, and how many it tried.
function search.run(m, variables, most, visit, restrict, promising)
  local lo, hi, peek = m.lo, m.hi, m.peek
  local nodes, exhausted = 0, false
  local descend

  -- Tries a value of variables[depth], number i. `test` is that of i when i is the last variable without a value. True
  -- ends the search.
  local function try(depth, i, value, test)
    if nodes >= most then
      exhausted = true
      return true
    end
    nodes = nodes + 1
    if test then return peek(i, value, test, visit) end
    local mark = m.mark()
    m.settle(i, value)
    if restrict then restrict() end
    if m.propagate() and (not promising or promising()) and descend(depth + 1) then return true end
    m.undo(mark)
    return false
  end

  local function try_all(depth, i, test, direction, skipped)
    local list, from, to, by = m.values[i], lo[i], hi[i], 1
    if list then
      from, to = m.first[i], m.last[i]
    else
      by = m.step_of(i)
    end
    if direction == "descending" then from, to, by = to, from, -by end
    for k = from, to, by do
      local value = list and list[k] or k
      if not (skipped and skipped[value]) and try(depth, i, value, test) then return true end
    end
    return false
  end

  -- The test of variables[depth] when all that follow have values.
  local function test_of_last(depth, i)
    for k = depth + 1, #variables do
      local other = variables[k].number
      if lo[other] ~= hi[other] then return nil end
    end
    return m.test_of(i)
  end

  function descend(depth)
    local variable = variables[depth]
    if not variable then
      if m.unfinished and not m.test_of(0)() then return false end
      return visit()
    end
    local i = variable.number
    if lo[i] == hi[i] then return descend(depth + 1) end
    local preferred, test = variable.preferred, test_of_last(depth, i)
    if not preferred then return try_all(depth, i, test, variable.direction) end
    for _, value in ipairs(preferred) do
      if m.contains(i, value) and try(depth, i, value, test) then return true end
    end
    return try_all(depth, i, test, variable.direction, variable.is_preferred)
  end

  descend(1)
  return exhausted, nodes
end

return search
