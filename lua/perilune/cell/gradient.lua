-- Reverse-mode differentiation of an expression graph, from the gradient formulas of the table of operations.

local graph = require "perilune.cell.graph"

local gradient = {}

--- A function from nodes to what they evaluate to: the same expression without stop_gradient and gradient_clip, which
-- matter to differentiation only.
function gradient.evaluated(g)
  local known = {}
  local function plain(node)
    if known[node] then return known[node] end
    local result
    if node.op == "stop_gradient" or node.op == "gradient_clip" then
      result = plain(node.a)
    elseif not node.a then
      result = node
    else
      result = g:make(node.op, plain(node.a), node.b and plain(node.b), node.c and plain(node.c))
    end
    known[node] = result
    return result
  end
  return plain
end

-- Nodes that `roots` are made of, operands before users.
local function in_order(roots)
  local seen, order = {}, {}
  local function visit(node)
    if not node or seen[node] then return end
    seen[node] = true
    visit(node.a)
    visit(node.b)
    visit(node.c)
    order[#order + 1] = node
  end
  for _, root in ipairs(roots) do visit(root) end
  return order
end
gradient.in_order = in_order

local operand_names = { "a", "b", "c" }

--- Gradients of nodes `wrt`, given `seeds[i]`, the gradient that arrives at outputs[i]. Returns a list of nodes; the
-- constant 0 where nothing flows. `plain` is gradient.evaluated(g).
function gradient.of(g, outputs, seeds, wrt, plain)
  local arrived = {}
  local function arrive(node, amount)
    if amount.op == "constant" and amount.value == 0 then return end
    arrived[node] = arrived[node] and g:make("add", arrived[node], amount) or amount
  end
  for i, output in ipairs(outputs) do arrive(output, seeds[i]) end
  local order = in_order(outputs)
  for i = #order, 1, -1 do
    local node = order[i]
    local row, amount = graph.rows[node.op], arrived[node]
    if row and amount then
      local a, b, c = plain(node.a), node.b and plain(node.b), node.c and plain(node.c)
      for k = 1, row.arity do
        local text = row.gradient[k]
        if text ~= "0" then
          arrive(node[operand_names[k]], g:formula(text, a, b, c, amount, plain(node)))
        end
      end
    end
  end
  local results = {}
  for i, node in ipairs(wrt) do results[i] = arrived[node] or g:constant(0) end
  return results
end

return gradient
