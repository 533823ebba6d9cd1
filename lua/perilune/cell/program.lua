-- Straight-line code for a register machine, from expressions (see pl_program in host/device/recurrence.h): registers
-- hold first the inputs, then the constants, then temporaries, which are used again once dead. Numbers are 0-based.

local graph = require "perilune.cell.graph"
local gradient = require "perilune.cell.gradient"
local join = require("perilune.cell.list").join
local save = require "perilune.cell.save"

local program = { REGISTERS_MAX = 255, SAVES_MAX = 32 }

-- Nodes that `roots` need beyond the inputs, operands first: constants and operations apart.
local function schedule(roots, given)
  local constants, operations, seen = {}, {}, {}
  local function visit(node)
    if not node or seen[node] or given[node] then return end
    seen[node] = true
    visit(node.a)
    visit(node.b)
    visit(node.c)
    local list = node.op == "constant" and constants or operations
    list[#list + 1] = node
  end
  for _, root in ipairs(roots) do visit(root) end
  return constants, operations
end

-- last[node]: the index of the operation that reads it last; infinite for outputs.
local function last_uses(operations, roots)
  local last = {}
  for i, node in ipairs(operations) do
    if node.a then last[node.a] = i end
    if node.b then last[node.b] = i end
    if node.c then last[node.c] = i end
  end
  for _, root in ipairs(roots) do last[root] = math.huge end
  return last
end

-- Gives each operation a register: the lowest one that is free. An operand's register is freed only after the target
-- was chosen, so no instruction writes what it reads.
local function allocate(operations, last, register, first)
  local free, top = {}, first
  local function take()
    if #free == 0 then
      top = top + 1
      return top - 1
    end
    table.sort(free, function(x, y) return x > y end)
    return table.remove(free)
  end
  local temporary = {}
  for i, node in ipairs(operations) do
    register[node] = take()
    temporary[node] = true
    local freed = {}
    for _, operand in ipairs { node.a, node.b or node.a, node.c or node.a } do
      if temporary[operand] and last[operand] == i and not freed[operand] then
        freed[operand] = true
        free[#free + 1] = register[operand]
      end
    end
  end
  return top
end

--- Code that computes `roots` from `inputs` (lists of nodes). With `zero_outputs`, a root that is 0 becomes output -1.
-- An error, naming `what`, when it needs more than REGISTERS_MAX registers.
function program.emit(inputs, roots, what, zero_outputs)
  local register, given = {}, {}
  for i, node in ipairs(inputs) do
    register[node] = register[node] or i - 1
    given[node] = true
  end
  local wanted = {}
  local function absent(root) return zero_outputs and root.op == "constant" and root.value == 0 end
  for _, root in ipairs(roots) do
    if not absent(root) then wanted[#wanted + 1] = root end
  end
  local constants, operations = schedule(wanted, given)
  local code = { inputs = #inputs, constants = {}, code = {}, outputs = {} }
  for i, node in ipairs(constants) do
    register[node] = #inputs + i - 1
    code.constants[i] = node.value
  end
  code.registers = allocate(operations, last_uses(operations, wanted), register, #inputs + #constants)
  if code.registers > program.REGISTERS_MAX then
    error(("%s needs %d registers; at most %d are there: write step with fewer values alive at once"):format(
      what, code.registers, program.REGISTERS_MAX), 0)
  end
  for i, node in ipairs(operations) do
    if not graph.rows[node.op] then error(("%s: %s is not an input of it"):format(what, tostring(node)), 0) end
    local a = register[node.a]
    code.code[i] = { node.op, register[node], a, node.b and register[node.b] or a, node.c and register[node.c] or a }
  end
  for i, root in ipairs(roots) do code.outputs[i] = absent(root) and -1 or register[root] end
  return code
end

--- What a traced cell compiles to: { saves = nodes, forward =, backward =, ... } with the inputs and outputs of the two
-- programs in the order of host/device/recurrence.h, and the expressions behind them for explain. `traced` as
-- trace.on_expressions gives it; `owner` names the cell in errors.
function program.compile(traced, owner)
  local g = traced.graph
  local plain = gradient.evaluated(g)
  local new, seeds = {}, {}
  for i, node in ipairs(traced.new) do
    new[i] = plain(node)
    seeds[i] = g:input("gradient.new." .. traced.state_names[i])
  end
  local wrt = join(traced.gates, traced.states, traced.params)
  local gradients = gradient.of(g, traced.new, seeds, wrt, plain)
  local saves = save.choose {
    roots = gradients, gates = traced.gates, seeds = seeds, free = join(traced.states, new),
    forward = gradient.in_order(new),
  }
  if #saves > program.SAVES_MAX then
    error(("%s: its backward needs %d values saved per step; at most %d are there"):format(
      owner, #saves, program.SAVES_MAX), 0)
  end
  return {
    new = new, seeds = seeds, wrt = wrt, gradients = gradients, saves = saves,
    forward = program.emit(wrt, join(new, saves), owner .. ": its forward program"),
    backward = program.emit(join(saves, traced.states, new, traced.params, seeds), gradients,
                            owner .. ": its backward program", true),
  }
end

return program
