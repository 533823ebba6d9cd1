-- Expression graphs of cells: nodes, interned so that equal expressions are one node, simplified as they are made.
-- A node is a leaf (op "input" or "constant"), a row of core.pointwise, or "stop_gradient". Operators and methods of
-- tensors work on nodes, so a step function cannot tell which it was given.

local core = require "perilune.core"
local formula = require "perilune.cell.formula"
local number = require "perilune.cell.number"
local simplify = require "perilune.cell.simplify"

local graph = {}
local Node = {} -- the metatable of nodes
local Graph = { __index = {} }

local rows = {}
for _, row in ipairs(core.pointwise) do rows[row.name] = row end
graph.rows = rows

local commutative = { add = true, mul = true, eq = true, ne = true }

function graph.is_node(x) return getmetatable(x) == Node end
local is_node = graph.is_node

local function shape_text(tensor) return "[" .. table.concat(tensor.shape, ", ") .. "]" end

--- The message for a tensor met where only expressions can be.
function graph.tensor_message(tensor)
  return ("step uses a tensor from outside (shape %s); declare it in params"):format(shape_text(tensor))
end

local function what(x)
  if x == nil then return "nil" end
  if type(x) == "string" then return ("the string %q"):format(x) end
  return "a " .. type(x)
end

-- Every field is always there (false when unused): a missing one would look like a method.
local function add_node(self, key, op, a, b, c, value)
  if #self.nodes >= self.limit then
    error(("step makes more than %d expressions; a cell's step is one time step of one unit"):format(self.limit), 0)
  end
  local node = setmetatable({
    graph = self, id = #self.nodes + 1, op = op, a = a or false, b = b or false, c = c or false, value = value,
  }, Node)
  self.nodes[node.id] = node
  self.interned[key] = node
  return node
end

--- The leaf that stands for one value per element given from outside; `value` is how it is printed.
function Graph.__index:input(value)
  local key = "input " .. value
  return self.interned[key] or add_node(self, key, "input", nil, nil, nil, value)
end

function Graph.__index:constant(value)
  value = value + 0.0
  if value == 0 then value = 0.0 end -- one zero
  local key = value ~= value and "nan" or ("%a"):format(value)
  return self.interned[key] or add_node(self, key, "constant", nil, nil, nil, value)
end

--- x without a gradient: differentiation stops here, evaluation passes through.
function Graph.__index:stop_gradient(x)
  local key = "stop_gradient " .. x.id
  return self.interned[key] or add_node(self, key, "stop_gradient", x, nil, nil, false)
end

local function intern(self, op, a, b, c)
  local key = op .. " " .. a.id .. " " .. (b and b.id or "") .. " " .. (c and c.id or "")
  return self.interned[key] or add_node(self, key, op, a, b, c, false)
end

local function fold(self, op, a, b, c)
  local value = number.apply(op, a.value, b and b.value, c and c.value)
  return self:constant(value)
end

--- The node of operation `op` on nodes of this graph, or a simpler one that is equal to it.
function Graph.__index:make(op, a, b, c)
  if a.op == "constant" and (not b or b.op == "constant") and (not c or c.op == "constant") then
    return fold(self, op, a, b, c)
  end
  if commutative[op] and a.id > b.id then a, b = b, a end
  local rule = simplify[op]
  local simpler = rule and rule(self.maker, a, b, c)
  return simpler or intern(self, op, a, b, c)
end

--- Lets the graph grow beyond the limit it was made with.
function Graph.__index:unlimited() self.limit = math.huge end

--- An empty graph of at most `limit` nodes (nil: any number); `owner` names it in messages ("cell 'lstm'"). Its `maker`
-- is what simplification rules build with: maker(number) or maker(op, a, b, c).
function graph.new(owner, limit)
  local self = setmetatable({ owner = owner, nodes = {}, interned = {}, limit = limit or math.huge }, Graph)
  function self.maker(op, a, b, c)
    if type(op) == "number" then return self:constant(op) end
    return self:make(op, a, b, c)
  end
  return self
end

-- An operand of `name` as a node of `self`: nodes pass, numbers become constants, all else is an error.
local function operand(self, x, name, position)
  if is_node(x) then
    if x.graph ~= self then
      error(("operand %d of %s comes from another trace (%s); use only gate, state and k of this call"):format(
        position, name, x.graph.owner), 0)
    end
    return x
  end
  if type(x) == "number" then return self:constant(x) end
  if core.is_tensor(x) then error(graph.tensor_message(x), 0) end
  error(("operand %d of %s is %s; expected an expression or a number"):format(position, name, what(x)), 0)
end

local function graph_of(...)
  for i = 1, select("#", ...) do
    local x = select(i, ...)
    if is_node(x) then return x.graph end
  end
end

--- Operation `name` on nodes and numbers, at least one of them a node.
function graph.apply(name, ...)
  local row, given = rows[name], select("#", ...)
  if given ~= row.arity then
    error(("%s takes %d operand%s, got %d"):format(name, row.arity, row.arity == 1 and "" or "s", given), 0)
  end
  local self, operands = graph_of(...), { ... }
  for i = 1, row.arity do operands[i] = operand(self, operands[i], name, i) end
  return self:make(name, operands[1], operands[2], operands[3])
end
local apply = graph.apply

--- The functions that formulas of the table call, on nodes and numbers alike.
graph.functions = { K = number.functions.K }
for name, plain in pairs(number.functions) do
  local op = name == "mod" and "remainder" or name
  graph.functions[name] = graph.functions[name] or function(...)
    if graph_of(...) then return apply(op, ...) end
    return plain(...)
  end
end

local compiled = formula.cache(graph.functions)

--- A formula of the table on nodes of this graph; the result is a node.
function Graph.__index:formula(text, a, b, c, g, y)
  local result = compiled[text](a, b, c, g, y)
  return type(result) == "number" and self:constant(result) or result
end

-- ---- operators and methods --------------------------------------------------------------------------------------

local operators = {
  __add = "add", __sub = "sub", __mul = "mul", __div = "div", __pow = "pow", __mod = "remainder",
}
for event, row in pairs(operators) do
  Node[event] = function(a, b) return apply(row, a, b) end
end
Node.__unm = function(a) return apply("neg", a) end
Node.__idiv = function() error("// is not defined on expressions; use pl.floor(a / b)", 0) end

local function refuse_comparison(signs, advice)
  return function() error(("%s cannot compare expressions; use %s, which is 1 or 0"):format(signs, advice), 0) end
end
Node.__lt = refuse_comparison("'<' and '>'", "pl.lt(a, b) or pl.gt(a, b)")
Node.__le = refuse_comparison("'<=' and '>='", "pl.le(a, b) or pl.ge(a, b)")
Node.__eq = refuse_comparison("'==' and '~='", "pl.eq(a, b) or pl.ne(a, b)")

function Node.__index(_, name)
  if rows[name] then return function(self, ...) return apply(name, self, ...) end end
  if name == "detach" then return function(self) return self.graph:stop_gradient(self) end end
  local wanted = type(name) == "string" and ("'%s'"):format(name) or "elements to index"
  error(("an expression has no %s: step works on one element at a time, with elementwise operations"):format(wanted), 0)
end

function Node.__newindex(_, name) error(("cannot set field '%s' of an expression"):format(tostring(name)), 0) end

-- ---- printing ---------------------------------------------------------------------------------------------------

local infix = { add = { "+", 1 }, sub = { "-", 1 }, mul = { "*", 2 }, div = { "/", 2 }, pow = { "^", 4 } }

local function number_text(x)
  if x == math.floor(x) and math.abs(x) < 1e15 then return ("%d"):format(x) end
  local short = ("%.15g"):format(x)
  return tonumber(short) == x and short or ("%.17g"):format(x)
end

--- `node` as a formula. names[node] replaces a node by its name; `whole` prints the node itself even when it has one.
function graph.text(node, names, whole)
  local function show(n, outer, top)
    if names and names[n] and not top then return names[n] end
    if n.op == "input" then return n.value end
    if n.op == "constant" then return number_text(n.value) end
    local text, level
    if n.op == "neg" then
      text, level = "-" .. show(n.a, 3), 3
    elseif infix[n.op] then
      local sign
      sign, level = infix[n.op][1], infix[n.op][2]
      text = show(n.a, level) .. " " .. sign .. " " .. show(n.b, level + 1)
    else
      local operands = { show(n.a, 0), n.b and show(n.b, 0), n.c and show(n.c, 0) }
      while operands[#operands] == false do operands[#operands] = nil end
      return n.op .. "(" .. table.concat(operands, ", ") .. ")"
    end
    return level < outer and "(" .. text .. ")" or text
  end
  return show(node, 0, whole)
end

Node.__tostring = function(node) return graph.text(node) end
graph.number_text = number_text

return graph
