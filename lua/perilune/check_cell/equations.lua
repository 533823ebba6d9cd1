-- The traced equations of a cell, evaluated one expression after another: on tensors, or on the numbers of one unit to
-- find where a value stops being finite.

local core = require "perilune.core"
local gradient = require "perilune.cell.gradient"
local graph = require "perilune.cell.graph"
local number = require "perilune.cell.number"

local equations = {}

-- Operations whose value or slope jumps somewhere.
local choices <const> = { eq = true, ne = true, lt = true, le = true, gt = true, ge = true, where = true, floor = true,
                          ceil = true, round = true, sign = true, remainder = true }
local kinks <const> = { abs = true, maximum = true, minimum = true, relu = true, clamp = true }

--- The names in the set `wanted` of operations that the cell's equations use, sorted; nil when there are none.
function equations.uses(cell, wanted)
  local seen, list = {}, {}
  for _, node in ipairs(gradient.in_order(cell.traced.new)) do
    if wanted[node.op] and not seen[node.op] then
      seen[node.op] = true
      list[#list + 1] = node.op
    end
  end
  table.sort(list)
  return #list > 0 and list or nil
end

--- The operations by which the equations have kinks or jumps, or an empty list.
function equations.rough(cell)
  local rough = {}
  for _, set in ipairs { choices, kinks } do
    for name in pairs(set) do rough[name] = true end
  end
  return equations.uses(cell, rough) or {}
end

-- Values of the leaves by node.
local function leaves(cell, gates, states, params)
  local traced, values = cell.traced, {}
  for i, name in ipairs(cell.gates) do values[traced.gates[i]] = gates[name] end
  for i, name in ipairs(cell.states) do values[traced.states[i]] = states[name] end
  for i, name in ipairs(cell.params) do values[traced.params[i]] = params[name] end
  return values
end

-- Sets values[node] of all expressions behind the new states, operands first; `apply` evaluates one.
local function evaluate(cell, values, apply)
  for _, node in ipairs(gradient.in_order(cell.traced.new)) do
    if values[node] == nil then
      values[node] = node.op == "constant" and node.value or apply(node, values[node.a], values[node.b], values[node.c])
    end
  end
end

--- New states by name for tables of tensors by name; `stopped` is given what stop_gradient is asked to stop and returns
-- what goes on.
function equations.on_tensors(cell, gates, states, params, stopped)
  local values, new = leaves(cell, gates, states, params), {}
  evaluate(cell, values, function(node, a, b, c)
    if node.op == "stop_gradient" then return stopped(a) end
    local operands = { a, b, c }
    return core[node.op](table.unpack(operands, 1, graph.rows[node.op].arity))
  end)
  for i, name in ipairs(cell.states) do new[name] = values[cell.traced.new[i]] end
  return new
end

local LARGEST_FLOAT32 <const> = 3.4028235e38

-- A number as float32 has it, as far as its range goes.
local function in_range(x)
  if x > LARGEST_FLOAT32 then return math.huge end
  if x < -LARGEST_FLOAT32 then return -math.huge end
  return x
end

local function is_finite(x) return x - x == 0 end

local function shown(x) return is_finite(x) and ("%.4g"):format(x) or x ~= x and "NaN" or x > 0 and "inf" or "-inf" end

--- Says which expression is the first that is not finite in float32, for tables of numbers by name; nil when all are.
function equations.first_not_finite(cell, gates, states, params)
  local values, said = leaves(cell, gates, states, params), nil
  evaluate(cell, values, function(node, a, b, c)
    local value = node.op == "stop_gradient" and a or in_range(number.apply(node.op, a, b, c))
    if not said and not is_finite(value) then
      local operands = {}
      for _, operand in ipairs { node.a, node.b or nil, node.c or nil } do
        if operand.op ~= "constant" then
          operands[#operands + 1] = ("%s = %s"):format(graph.text(operand), shown(values[operand]))
        end
      end
      said = ("%s is %s where %s"):format(graph.text(node), shown(value), table.concat(operands, ", "))
    end
    return value
  end)
  return said
end

return equations
