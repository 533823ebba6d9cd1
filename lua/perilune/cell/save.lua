-- Which forward values a cell keeps for its backward pass: the fewest, found as a smallest vertex cut.
-- States before and after the step, params and constants are there anyway. A value of an expensive operation that the
-- forward pass computes is never computed again; everything cheap is.

local set = require("perilune.cell.list").set

local save = {}

local expensive = {}
for name in ("div pow exp expm1 log log1p sqrt rsqrt reciprocal sin cos tanh sigmoid logsigmoid softplus silu swiglu "
  .. "gelu erf"):gmatch("%S+") do expensive[name] = true end

-- Saving a value that the forward pass computes costs one; one that only backward uses costs a little more, so it is
-- chosen only when it replaces several.
local COST, COST_EXTRA = 1000, 1

-- Whether the value of each node depends on one of `leaves` (a set), as a memoised function.
local function depends_on(leaves)
  local known = {}
  local function depends(node)
    if not node then return false end
    if leaves[node] then return true end
    if known[node] == nil then known[node] = depends(node.a) or depends(node.b) or depends(node.c) end
    return known[node]
  end
  return depends
end

local operand_names = { "a", "b", "c" }

local function each_operand(node, visit)
  for _, name in ipairs(operand_names) do
    if node[name] then visit(node[name]) end
  end
end

-- A flow network: capacity[u][v]. Augments along shortest paths until there is none; returns the set of vertices still
-- reachable from "source", whose border is the smallest cut nearest to the source.
local function saturate(capacity)
  while true do
    local came_from, queue, head = { source = "source" }, { "source" }, 1
    while queue[head] do
      local u = queue[head]
      head = head + 1
      for v, room in pairs(capacity[u] or {}) do
        if room > 0 and not came_from[v] then
          came_from[v] = u
          queue[#queue + 1] = v
        end
      end
    end
    if not came_from.sink then return came_from end
    local flow, v = math.huge, "sink"
    while v ~= "source" do
      flow = math.min(flow, capacity[came_from[v]][v])
      v = came_from[v]
    end
    v = "sink"
    while v ~= "source" do
      local u = came_from[v]
      capacity[u][v] = capacity[u][v] - flow
      capacity[v] = capacity[v] or {}
      capacity[v][u] = (capacity[v][u] or 0) + flow
      v = u
    end
  end
end

--- problem: { roots = backward expressions, gates = leaves, seeds = leaves of arriving gradients, params = leaves,
-- free = nodes at hand anyway (states before and after), forward = nodes that the forward pass computes }, all lists.
-- Returns the list of nodes to save, oldest first.
function save.choose(problem)
  local gates, free, forward = set(problem.gates), set(problem.free), set(problem.forward)
  local from_seed = depends_on(set(problem.seeds))
  local varies = set(problem.gates)
  for node in pairs(free) do varies[node] = true end
  local from_step = depends_on(varies) -- otherwise made of params and constants: the same at every step

  local capacity, nodes, explored = { source = {} }, {}, {}
  local function edge(u, v, room)
    capacity[u] = capacity[u] or {}
    capacity[u][v] = room
  end
  -- Adds a forward value that backward reads, and what it is computed from.
  local function explore(node)
    if explored[node] or free[node] or not from_step(node) then return end
    explored[node] = true
    nodes[#nodes + 1] = node
    local enter, leave = -node.id, node.id
    edge(enter, leave, forward[node] and COST or COST + COST_EXTRA)
    if gates[node] or (forward[node] and expensive[node.op]) then
      edge("source", enter, math.huge)
    else
      each_operand(node, function(operand)
        explore(operand)
        if explored[operand] then edge(operand.id, enter, math.huge) end
      end)
    end
  end
  local visited = {}
  local function visit(node)
    if visited[node] then return end
    visited[node] = true
    if from_seed(node) then
      each_operand(node, visit)
    else
      explore(node)
      if explored[node] then edge(node.id, "sink", math.huge) end
    end
  end
  for _, root in ipairs(problem.roots) do visit(root) end

  local reachable, saved = saturate(capacity), {}
  for _, node in ipairs(nodes) do
    if reachable[-node.id] and not reachable[node.id] then saved[#saved + 1] = node end
  end
  table.sort(saved, function(x, y) return x.id < y.id end)
  return saved
end

return save
