-- Runs a cell's step function: once on expressions, to learn its graph, or on tensors, as the vanilla backend does.
-- Whatever goes wrong inside is reported with the cell, the line of the step function and the operand.

local core = require "perilune.core"
local graph = require "perilune.cell.graph"
local place = require "perilune.cell.place"

local trace = {}

-- Sources whose frames are not the user's: the place of an error is the innermost frame outside them.
local own_sources = {}
for _, f in ipairs { graph.new, require("perilune.pointwise").exp } do
  own_sources[debug.getinfo(f, "S").source] = true
end
own_sources[debug.getinfo(1, "S").source] = true

--- The most expressions that a step function may make: what follows works through them recursively, and kernels are
-- compiled from them.
trace.EXPRESSIONS_MAX = 4096

--- A view of `values` of which a read of anything else and any write is an error: `what` says what they are ("gate").
function trace.strict(values, what, names)
  return setmetatable({}, {
    __index = function(_, name)
      if values[name] ~= nil then return values[name] end
      local there = #names > 0 and "there are " .. table.concat(names, ", ") or "the cell declares none"
      error(("%s.%s is not declared; %s"):format(what, tostring(name), there), 0)
    end,
    __newindex = function(_, name) error(("%s.%s: step must not assign to it"):format(what, tostring(name)), 0) end,
    __pairs = function() return pairs(values) end,
  })
end

-- A tensor and an expression among the operands of the C function at `level`: the user mixed them, and the tensor's
-- own operator complained about the expression.
local function tensor_among_operands(level)
  local tensor, node
  for i = 1, 8 do
    local name, value = debug.getlocal(level + 1, i)
    if not name then break end
    if core.is_tensor(value) then tensor = value end
    if graph.is_node(value) then node = true end
  end
  return node and tensor
end

local function source_line(info)
  local file = info.source:match("^@(.*)")
  local wanted, count = info.currentline, 0
  if file then
    local handle = io.open(file)
    if not handle then return nil end
    for line in handle:lines() do
      count = count + 1
      if count == wanted then handle:close() return line end
    end
    handle:close()
    return nil
  end
  if info.source:match("^=") then return nil end
  for line in (info.source .. "\n"):gmatch("(.-)\n") do
    count = count + 1
    if count == wanted then return line end
  end
end

-- What was raised, as text.
local function text_of(raised)
  if type(raised) == "string" then return raised end
  local meta = getmetatable(raised)
  if type(meta) == "table" and meta.__tostring then return tostring(raised) end
  return ("raised %s instead of a message"):format(raised == nil and "nil" or "a " .. type(raised))
end

-- Message handler: adds file, line and the text of the line to what the step function failed with.
local function locate(owner)
  return function(raised)
    local message, level = text_of(raised), 2
    while true do
      local info = debug.getinfo(level, "Sl")
      if not info then return ("%s: step: %s"):format(owner, message) end
      if info.what == "C" then
        local tensor = tensor_among_operands(level)
        if tensor then message = graph.tensor_message(tensor) end
      elseif not own_sources[info.source] then
        local where = ("%s:%d"):format(info.short_src, info.currentline)
        if message:sub(1, #where + 2) == where .. ": " then message = message:sub(#where + 3) end
        local line = source_line(info)
        line = line and ("\n  in: " .. line:match("^%s*(.-)%s*$")) or ""
        return ("%s: step (%s): %s%s"):format(owner, where, place.strip(message), line)
      end
      level = level + 1
    end
  end
end

-- Complains about what step returned, in one voice.
local function returned(cell, message, ...)
  local info = debug.getinfo(cell.step, "S")
  error(("%s: step (%s:%d) returned %s"):format(cell.owner, info.short_src, info.linedefined, message:format(...)), 0)
end

local function check_returned(cell, count, new, is_value, expected)
  local names = table.concat(cell.states, ", ")
  if count ~= 1 then returned(cell, "%d values; expected one table with the new states %s", count, names) end
  if type(new) ~= "table" or graph.is_node(new) then
    local got = graph.is_node(new) and "an expression" or core.is_tensor(new) and "a tensor" or type(new)
    returned(cell, "%s; expected a table with the new states %s", got, names)
  end
  local declared = {}
  for _, name in ipairs(cell.states) do
    declared[name] = true
    local value = new[name]
    if value == nil then returned(cell, "no state '%s'; expected the new states %s", name, names) end
    if expected == "an expression" and core.is_tensor(value) then
      returned(cell, "for state '%s' a tensor from outside; build it from gate, state and k", name)
    end
    if type(value) ~= "number" and not is_value(value) then
      returned(cell, "a %s for state '%s'; expected %s or a number", type(value), name, expected)
    end
  end
  for name in pairs(new) do
    if not declared[name] then
      returned(cell, "a state '%s' that is not declared; expected %s", tostring(name), names)
    end
  end
end

local function call(cell, gate, state, k)
  local results = table.pack(xpcall(cell.step, locate(cell.owner), gate, state, k))
  if not results[1] then error(results[2], 0) end
  return results.n - 1, results[2]
end

local function k_names(cell)
  local names = table.move(cell.params, 1, #cell.params, 1, {})
  for name in pairs(cell.constants) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function run(cell, gates, states, params, is_value, expected)
  local k = {}
  for name, value in pairs(params) do k[name] = value end
  for name, value in pairs(cell.constants) do k[name] = value end
  local count, new = call(cell, trace.strict(gates, "gate", cell.gates), trace.strict(states, "state", cell.states),
                          trace.strict(k, "k", k_names(cell)))
  check_returned(cell, count, new, is_value, expected)
  return new
end

--- Runs step on tensors: gates, states, params are tables of tensors by name. Returns the new states by name, each a
-- tensor or a number.
function trace.on_tensors(cell, gates, states, params)
  return run(cell, gates, states, params, core.is_tensor, "a tensor")
end

--- Runs step once on expressions. Returns { graph=, gates=, states=, params=, new= }, each a list of nodes in declared
-- order; new are the new states.
function trace.on_expressions(cell)
  local g = graph.new(cell.owner, trace.EXPRESSIONS_MAX)
  local traced = { graph = g, new = {}, state_names = cell.states }
  local function leaves(names, prefix)
    local list, by_name = {}, {}
    for i, name in ipairs(names) do
      list[i] = g:input(prefix .. "." .. name)
      by_name[name] = list[i]
    end
    return list, by_name
  end
  local gates, states, params
  traced.gates, gates = leaves(cell.gates, "gate")
  traced.states, states = leaves(cell.states, "state")
  traced.params, params = leaves(cell.params, "k")
  local function is_ours(x)
    if not graph.is_node(x) then return false end
    if x.graph ~= g then returned(cell, "an expression of another trace") end
    return true
  end
  local new = run(cell, gates, states, params, is_ours, "an expression")
  for i, name in ipairs(cell.states) do
    local value = new[name]
    traced.new[i] = graph.is_node(value) and value or g:constant(value)
  end
  g:unlimited()
  return traced
end

return trace
