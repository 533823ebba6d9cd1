-- Whether states and gradients stay finite over a long sequence, and if not, where and by which expression.

local pl = require "perilune"
local equations = require "perilune.check_cell.equations"
local problem = require "perilune.check_cell.problem"

local long = {}

local B <const>, N <const>, D <const> = 2, 1, 16

-- 1 where t is NaN or infinite.
local function not_finite(t) return (t - t):ne(0) end

-- The place { s, b, t, n, d } of the first time step of states [S,B,T,N,D] that holds something not finite.
local function first_place(states)
  local bad = not_finite(states):totable()
  for t = 1, states.shape[3] do
    for s = 1, states.shape[1] do
      for row = 1, states.shape[2] do
        for n = 1, states.shape[4] do
          for d = 1, states.shape[5] do
            if bad[s][row][t][n][d] ~= 0 then return { s = s, b = row, t = t, n = n, d = d } end
          end
        end
      end
    end
  end
end

-- The states of a head's units before a place, by name: lists of numbers.
local function states_before(cell, states, at)
  local lists = {}
  for s, name in ipairs(cell.states) do
    lists[name] = {}
    for d = 1, D do
      lists[name][d] = at.t == 1 and cell.initial[s] or states[s][at.b][at.t - 1][at.n][d]:item()
    end
  end
  return lists
end

-- The gates of the unit at a place, by name, from the feedback of all units of its head.
local function gates_at(cell, given, h, at)
  local gates, slot = {}, { input = 0, recurrent = 0, bias = 0 }
  for i, name in ipairs(cell.gates) do
    local sum = 0
    for part in pairs(slot) do
      if cell.parts[i][part] then
        slot[part] = slot[part] + 1
        local g = slot[part]
        if part == "input" then sum = sum + given.Wx[at.b][at.t][g][at.n][at.d]:item() end
        if part == "bias" then sum = sum + given.b[g][at.n][at.d]:item() end
        for p = 1, part == "recurrent" and D or 0 do sum = sum + given.R[g][at.n][at.d][p]:item() * h[p] end
      end
    end
    gates[name] = sum
  end
  return gates
end

-- Where and why the states are not finite.
local function reason(cell, given, states)
  local at = first_place(states)
  local before, unit, params = states_before(cell, states, at), {}, {}
  for name, list in pairs(before) do unit[name] = list[at.d] end
  for name, t in pairs(given.params) do params[name] = t[at.n][at.d]:item() end
  local gates = gates_at(cell, given, before[cell.states[1]], at)
  local cause = equations.first_not_finite(cell, gates, unit, params)
  return ("state %s stops being finite at step %d%s"):format(cell.states[at.s], at.t, cause and ": " .. cause or "")
end

local function largest(t) return t:abs():max():item() end

--- Two checks, of states and gradients over `steps` steps in float32 from the cell's own initial values.
function long.checks(cell, steps)
  local given = problem.map(problem.new(cell, { B = B, T = steps, N = N, D = D }, 11), function(t) return t:float() end)
  given.weights = problem.map(given, function(t) return t / steps end).weights
  given.states = pl.zeros { #cell.states, B, 1, N, D }
  for s, value in ipairs(cell.initial) do given.states[s] = value end
  local found = problem.run(cell, given, "reference", "float32")
  local states = {
    name = ("states over %d steps"):format(steps), compared = "finite numbers, reference float32",
    error = largest(found.states), ok = not_finite(found.states):max():item() == 0,
  }
  states.note = states.ok and ("the largest is %.3g"):format(states.error) or reason(cell, given, found.states)
  local gradients = {
    name = ("gradients over %d steps"):format(steps), compared = "finite numbers, reference float32", error = 0,
    ok = true, note = "",
  }
  local bad = {}
  for _, input in ipairs(problem.inputs(cell, given)) do
    local gradient = found["d " .. input.name]
    gradients.error = math.max(gradients.error, largest(gradient))
    if not_finite(gradient):max():item() ~= 0 then bad[#bad + 1] = input.name end
  end
  gradients.ok = #bad == 0
  gradients.note = gradients.ok and ("the largest is %.3g"):format(gradients.error)
    or ("not finite for %s%s"):format(table.concat(bad, ", "), states.ok and ", though the states are: a slope of the "
      .. "equations has no bound, as that of sqrt, log or a division at 0, or the gradient grows at every step" or
      ", as the states")
  states.error, gradients.error = nil, nil
  return { states, gradients }
end

return long
