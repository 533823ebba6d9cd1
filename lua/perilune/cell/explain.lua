-- A traced cell as text: its equations, their gradient, what backward is given, the two programs, and what is compiled
-- for a GPU.

local graph = require "perilune.cell.graph"
local gradient = require "perilune.cell.gradient"
local join = require("perilune.cell.list").join

local explain = {}

local function uses(roots)
  local count = {}
  for _, root in ipairs(roots) do count[root] = (count[root] or 0) + 1 end
  for _, node in ipairs(gradient.in_order(roots)) do
    for _, operand in ipairs { node.a, node.b or nil, node.c or nil } do
      if operand then count[operand] = (count[operand] or 0) + 1 end
    end
  end
  return count
end

-- Appends one line per named expression: first every value used more than once, as it comes, then the roots by theirs.
-- names[node] holds what is already named, and grows.
local function equations(lines, roots, root_names, names, prefix)
  local count, named_roots = uses(roots), {}
  for i, root in ipairs(roots) do
    if root.a and not names[root] and not named_roots[root] then named_roots[root] = root_names[i] end
  end
  local temporaries = 0
  local function line(name, node) lines[#lines + 1] = ("  %s = %s"):format(name, graph.text(node, names, true)) end
  local function visit(node)
    if not node or names[node] or not node.a then return end
    visit(node.a)
    visit(node.b)
    visit(node.c)
    if named_roots[node] then
      line(named_roots[node], node)
      names[node] = named_roots[node]
    elseif count[node] > 1 then
      temporaries = temporaries + 1
      local name = prefix .. temporaries
      line(name, node)
      names[node] = name
    end
  end
  for i, root in ipairs(roots) do
    visit(root)
    if named_roots[root] ~= root_names[i] then
      lines[#lines + 1] = ("  %s = %s"):format(root_names[i], graph.text(root, names))
    end
  end
end

local function listing(lines, title, code, inputs, outputs)
  lines[#lines + 1] = ("%s: %d inputs, %d constants, %d registers, %d instructions"):format(
    title, code.inputs, #code.constants, code.registers, #code.code)
  for i, name in ipairs(inputs) do lines[#lines + 1] = ("  r%d = %s"):format(i - 1, name) end
  for i, value in ipairs(code.constants) do
    lines[#lines + 1] = ("  r%d = %s"):format(code.inputs + i - 1, graph.number_text(value))
  end
  for _, instruction in ipairs(code.code) do
    local op, target = instruction[1], instruction[2]
    local operands = {}
    for k = 1, graph.rows[op].arity do operands[k] = "r" .. instruction[2 + k] end
    lines[#lines + 1] = ("  r%d = %s %s"):format(target, op, table.concat(operands, " "))
  end
  for i, name in ipairs(outputs) do
    local register = code.outputs[i]
    lines[#lines + 1] = ("  %s = %s"):format(name, register < 0 and "0" or "r" .. register)
  end
end

local function prefixed(prefix, names)
  local list = {}
  for i, name in ipairs(names) do list[i] = prefix .. name end
  return list
end

local function gate_text(cell, i)
  local has = {}
  for _, part in ipairs { "input", "recurrent", "bias" } do
    if cell.parts[i][part] then has[#has + 1] = part end
  end
  return ("  gate.%s = %s"):format(cell.gates[i], table.concat(has, " + "))
end

-- What the cell declares and its equations, as lines; and the names of expressions in them.
local function beginning(cell, compiled)
  local lines = { "cell " .. cell.name }
  for i in ipairs(cell.gates) do lines[#lines + 1] = gate_text(cell, i) end
  for i, name in ipairs(cell.states) do
    lines[#lines + 1] = ("  state.%s starts at %s%s"):format(name, graph.number_text(cell.initial[i]),
                                                          i == 1 and ", fed back through R" or "")
  end
  for _, name in ipairs(cell.params) do lines[#lines + 1] = ("  k.%s is a parameter per unit"):format(name) end
  local constants = {}
  for name, value in pairs(cell.constants) do
    constants[#constants + 1] = ("  k.%s = %s"):format(name, graph.number_text(value))
  end
  table.sort(constants)
  lines = join(lines, constants)
  local names = {}
  lines[#lines + 1] = "equations"
  equations(lines, compiled.new, prefixed("new.", cell.states), names, "v")
  return lines, names
end

--- What the cell declares, and its equations, as text. `cell` is a cell object, `compiled` what program.compile made of
-- it.
function explain.equations(cell, compiled) return table.concat(beginning(cell, compiled), "\n") end

--- The whole text; `generated` is the text that devices compile.
function explain.text(cell, compiled, generated)
  local lines, names = beginning(cell, compiled)
  local new = prefixed("new.", cell.states)
  local inputs = join(prefixed("gate.", cell.gates), prefixed("state.", cell.states), prefixed("k.", cell.params))
  local gradients = prefixed("gradient.", inputs)
  lines[#lines + 1] = "gradient (gradient.new.X is what arrives at the new state X)"
  equations(lines, compiled.gradients, gradients, names, "w")

  local saves = {}
  for i, node in ipairs(compiled.saves) do saves[i] = names[node] or graph.text(node, names) end
  lines[#lines + 1] = ("saved for backward, beside the states: %s"):format(#saves > 0 and table.concat(saves, ", ") or
                                                                           "nothing")
  local save_names = {}
  for i, text in ipairs(saves) do save_names[i] = ("save %d (%s)"):format(i, text) end
  listing(lines, "forward program", compiled.forward, inputs, join(new, save_names))
  listing(lines, "backward program", compiled.backward,
          join(save_names, prefixed("state.", cell.states), new, prefixed("k.", cell.params),
               prefixed("gradient.", new)), gradients)
  lines[#lines + 1] = "generated code: T is the type of the arithmetic, in[i] register i of the program above"
  return table.concat(lines, "\n") .. "\n" .. generated
end

return explain
