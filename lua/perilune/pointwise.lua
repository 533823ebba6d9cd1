-- The elementwise operations as scripts call them: pl.exp(x) on a tensor, on a plain number, or on an expression inside
-- a cell's step function. One function per row of the table of operations.

local core = require "perilune.core"
local graph = require "perilune.cell.graph"
local number = require "perilune.cell.number"

local pointwise = {}

local is_node = graph.is_node

local function dispatch(row)
  local name, on_tensors = row.name, core[row.name]
  return function(...)
    local a, b, c = ...
    if is_node(a) or is_node(b) or is_node(c) then return graph.apply(name, ...) end
    if select("#", ...) == row.arity and type(a) == "number" and (row.arity < 2 or type(b) == "number")
      and (row.arity < 3 or type(c) == "number") then
      return number.apply(name, a, b, c)
    end
    return on_tensors(...)
  end
end

for _, row in ipairs(core.pointwise) do pointwise[row.name] = dispatch(row) end

--- stop_gradient(x): x, through which no gradient flows: for a tensor what detach gives, for an expression the same
-- inside a cell.
function pointwise.stop_gradient(x)
  if is_node(x) then return x.graph:stop_gradient(x) end
  if type(x) == "number" then return x end
  if core.is_tensor(x) then return x:detach() end
  error(("stop_gradient: x: expected a tensor, an expression or a number, got %s"):format(type(x)), 2)
end

return pointwise
