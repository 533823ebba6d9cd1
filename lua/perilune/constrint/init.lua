-- Solves constraints on integers, among them that one number divides another: for sizes that must fit into each other,
-- puzzles, gears, timetables. Plain Lua 5.4, of use without the rest of perilune.
--
--   local constrint = require "perilune.constrint"
--   local le, divides = constrint.le, constrint.divides
--
--   -- Square tiles for a floor of 360 x 504 cm, at most 50 cm wide, as few as possible.
--   local problem = constrint.problem()
--   local width = problem:integer("width", 1, 50)
--   problem:require("whole tiles along the floor", divides(width, 504))
--   problem:require("whole tiles across the floor", divides(width, 360))
--   print(problem:best { cost = (504 // width) * (360 // width) }.width)      --> 36
--   print(problem:explain("width", 40))
--   --> width = 40 is excluded by
--   -->   - whole tiles along the floor
--
-- Expressions are written with + - * // % and ^ on variables and integers (x ^ 3, or 2 ^ x), ceil_div(a, b), min(a, b),
-- max(a, b), and when(c, a, b), which is a where the constraint c holds and b elsewhere. // rounds down and % is Lua's.
-- Constraints are eq, ne, le, lt, ge, gt (a, b); divides(a, b): b is a multiple of a; any { c, ... }, all { c, ... },
-- none { c, ... }, no(c), implies(c, d).
--
-- Lua gives == and ~= between an expression and a number to nobody: x == 3 is simply false. Write eq(x, 3); `require`
-- complains of a false. Between two expressions ==, and < and <= with either, raise an error that says so.
--
-- Values beyond 2^60 are refused: where an expression can reach them within its variables' ranges, as far as the other
-- constraints have narrowed these, solving raises an error that names it. So does a divisor of // or % that can be 0.
--
-- tests/constrint/examples_spec.lua has a puzzle of letters, change gears of a lathe, and shelves cut from planks.
--
-- The files: expression.lua is how problems are written, compile.lua turns one into the numbers of model.lua and the
-- rules of rules.lua, search.lua fixes numbers one after the other, explain.lua says why there is no solution.

local compile = require "perilune.constrint.compile"
local complain = require "perilune.constrint.complain"
local explain = require "perilune.constrint.explain"
local expression = require "perilune.constrint.expression"
local search = require "perilune.constrint.search"

local at_caller, argument, shown, unless_integer =
  complain.at_caller, complain.argument, complain.shown, complain.unless_integer

local constrint = {}
for _, name in ipairs {
  "ceil_div", "min", "max", "when", "eq", "ne", "le", "lt", "ge", "gt", "divides",
  "any", "all", "none", "no", "implies",
} do
  constrint[name] = expression[name]
end

local Problem = { kind = "a problem" }
Problem.__index = Problem

--- A problem without variables and constraints.
function constrint.problem()
  return setmetatable({ ranges = {}, constraints = {}, range_of = {}, nodes = 0 }, Problem)
end

-- ---- stating a problem ----------------------------------------------------------------------------------------------

local function sorted_values(list)
  local values, seen = {}, {}
  for k = 1, #list do
    local value = unless_integer(("integer: value %d of the list"):format(k), list[k])
    if not seen[value] then values[#values + 1] = value end
    seen[value] = true
  end
  if #values == 0 then argument("integer: argument 2", list, "a list with at least one value") end
  table.sort(values)
  return values
end

--- A variable: problem:integer(name, least, most [, words]) or problem:integer(name, values [, words]), `values` being
-- a list. `words` say why the range is what it is ("x is in 1..9" when they are missing).
function Problem:integer(name, least, most, words)
  if type(name) ~= "string" or name == "" then argument("integer: argument 1", name, "a name") end
  if self.range_of[name] then at_caller("integer: there is a variable '%s' already", name) end
  local range = { variable = expression.variable(name, self) }
  if type(least) == "table" and not expression.is_expression(least) then
    local values = sorted_values(least)
    range.values, words = values, most
    range.least, range.most = values[1], values[#values]
    range.words = words or ("%s is one of %s"):format(name, table.concat(values, ", "))
  else
    range.least, range.most = unless_integer("integer: argument 2", least), unless_integer("integer: argument 3", most)
    range.words = words or ("%s is in %d..%d"):format(name, least, most)
    if range.least > range.most then
      argument("integer: argument 3", most, ("at least %d, the least value"):format(least))
    end
  end
  if words ~= nil and type(words) ~= "string" then argument("integer: the words", words, "a string") end
  if range.least < -expression.limit or range.most > expression.limit then
    at_caller("integer: the range of '%s' goes beyond 2^60, the largest value", name)
  end
  self.ranges[#self.ranges + 1] = range
  self.range_of[name] = range
  return range.variable
end

--- Demands that `constraint` hold. `words` say it to people; `family` is a name by which a group of constraints can be
-- left out (option `without`).
function Problem:require(words, constraint, family)
  if type(words) ~= "string" or words == "" then argument("require: argument 1", words, "the constraint in words") end
  if not expression.is_constraint(constraint) then
    argument("require: argument 2", constraint, type(constraint) == "boolean"
      and "a constraint (== and ~= make none; write constrint.eq or ne)" or "a constraint")
  end
  if family ~= nil and type(family) ~= "string" then argument("require: argument 3", family, "a family's name") end
  local variables = expression.variables(constraint)
  for _, variable in ipairs(variables) do
    if not rawequal(variable.problem, self) then
      at_caller("require: the variable '%s' belongs to another problem", variable.name)
    end
  end
  self.constraints[#self.constraints + 1] =
    { words = words, constraint = constraint, family = family, variables = variables }
end

-- ---- options --------------------------------------------------------------------------------------------------------

-- Each option: what it becomes, or a complaint.
local readers = {}

local function range_named(problem, name, where)
  local range = type(name) == "string" and problem.range_of[name]
  if not range then argument(where, name, "the name of a variable") end
  return range
end

local function a_table(value, where, expected)
  if type(value) ~= "table" or getmetatable(value) then argument(where, value, expected) end
end

function readers.nodes(_, value, where)
  local nodes = unless_integer(where, value)
  if nodes < 1 then argument(where, value, "an integer of at least 1") end
  return nodes
end
readers.limit = readers.nodes

function readers.order(problem, value, where)
  a_table(value, where, "a list of names of variables")
  for k = 1, #value do range_named(problem, value[k], ("%s, name %d"):format(where, k)) end
  return value
end

function readers.values(problem, value, where)
  a_table(value, where, "a table from names of variables to orders of values")
  for name, order in pairs(value) do
    range_named(problem, name, where)
    local entry = ("%s of '%s'"):format(where, name)
    if type(order) == "table" and not getmetatable(order) then
      for k = 1, #order do unless_integer(("%s, value %d"):format(entry, k), order[k]) end
    elseif order ~= "ascending" and order ~= "descending" then
      argument(entry, order, '"ascending", "descending" or a list of integers')
    end
  end
  return value
end

function readers.given(problem, value, where)
  a_table(value, where, "a table from names of variables to values")
  for name, given in pairs(value) do
    range_named(problem, name, where)
    unless_integer(("%s of '%s'"):format(where, name), given)
  end
  return value
end

function readers.without(problem, value, where)
  a_table(value, where, "a list of families")
  local without, families = {}, {}
  for _, item in ipairs(problem.constraints) do families[item.family or ""] = true end
  for k = 1, #value do
    if type(value[k]) ~= "string" or not families[value[k]] then
      argument(("%s, name %d"):format(where, k), value[k], "a family that some constraint has")
    end
    without[value[k]] = true
  end
  return without
end

local function function_or_expression(problem, value, where)
  if expression.is_expression(value) then
    for _, variable in ipairs(expression.variables(value)) do
      if not rawequal(variable.problem, problem) then
        at_caller("%s: the variable '%s' belongs to another problem", where, variable.name)
      end
    end
  elseif type(value) ~= "function" then
    argument(where, value, "an expression or a function")
  end
  return value
end
readers.cost, readers.bound = function_or_expression, function_or_expression

local default_nodes <const> = { first = 100000, all = 100000, best = 100000, conflict = 10000, explain = 10000 }

-- The options of `name`, of which it may have those in `allowed`, with defaults.
local function read_options(problem, name, options, ...)
  local read = { nodes = default_nodes[name], order = {}, values = {}, given = {}, without = {} }
  if options == nil then return read end
  a_table(options, name .. ": the options", "a table of options")
  local allowed = {}
  for _, option in ipairs { "given", "without", ... } do allowed[option] = true end
  for option, value in pairs(options) do
    if not allowed[option] then
      at_caller("%s has no option %s; it has given, without, %s", name, shown(option), table.concat({ ... }, ", "))
    end
    read[option] = readers[option](problem, value, ("%s: option '%s'"):format(name, option))
  end
  return read
end

local function counting(options)
  return function(item) return not options.without[item.family] end
end

-- ---- solving --------------------------------------------------------------------------------------------------------

-- The variables as search.run takes them: those of option `order` first, then the others as they were declared.
local function in_order(problem, m, options)
  local variables, placed = {}, {}
  local function place(name)
    if placed[name] then return end
    placed[name] = true
    local order = options.values[name] or "ascending"
    local variable = { number = m.number_of[name], direction = order }
    if type(order) == "table" then
      variable.direction, variable.preferred, variable.is_preferred = "ascending", {}, {}
      for _, value in ipairs(order) do
        if not variable.is_preferred[value] then variable.preferred[#variable.preferred + 1] = value end
        variable.is_preferred[value] = true
      end
    end
    variables[#variables + 1] = variable
  end
  for _, name in ipairs(options.order) do place(name) end
  for _, range in ipairs(problem.ranges) do place(range.variable.name) end
  return variables
end

-- The model of a problem; nil when the rules alone exclude every solution.
local function compiled(problem, name, options)
  problem.nodes = 0
  local m, refusal = compile.problem(problem, options.given, counting(options))
  if refusal then at_caller("%s: %s", name, refusal) end
  return m
end

-- Fills `into` with the bounds of every variable in `array`.
local function copy_values(problem, m, array, into)
  for _, range in ipairs(problem.ranges) do
    local name = range.variable.name
    into[name] = array[m.number_of[name]]
  end
  return into
end

local function stopped(options, found)
  return ("stopped after trying %d values (option 'nodes'), %s"):format(options.nodes, found)
end

local none = "no solution; conflict() tells which constraints exclude them all"

-- Collects up to `limit` solutions; returns them and whether option nodes ended the search.
local function solutions(problem, name, options, limit)
  local m, found, exhausted = compiled(problem, name, options), {}, false
  if m then
    exhausted, problem.nodes = search.run(m, in_order(problem, m, options), options.nodes, function()
      found[#found + 1] = copy_values(problem, m, m.lo, {})
      return #found == limit
    end)
  end
  return found, exhausted
end

--- The first solution, a table from names to values: the one that comes first when variables are compared in the order
-- of `order` and values in the order of `values`. Nil and why when there is none, or none was found.
--
-- Options: order, a list of names (the others follow as declared); values, a table from names to "ascending" (what is
-- not said is), "descending", or a list of values to try before the others; nodes, how many values may be tried in all
-- (100000); given, a table from names to values that are fixed; without, a list of families to leave out.
function Problem:first(options)
  options = read_options(self, "first", options, "order", "values", "nodes")
  local found, exhausted = solutions(self, "first", options, 1)
  if found[1] then return found[1] end
  return nil, exhausted and stopped(options, "without a solution") or none
end

--- A list of all solutions, or of the first `limit`, in the order that `first` would find them. Options: those of
-- `first`, and limit. A second result, when option nodes ended the search, says so.
function Problem:all(options)
  options = read_options(self, "all", options, "order", "values", "nodes", "limit")
  local found, exhausted = solutions(self, "all", options, options.limit)
  return found, exhausted and stopped(options, ("with %d solutions"):format(#found)) or nil
end

--- A solution of least cost, the first of several, and its cost. Nil and why when there is none, or none was found; a
-- third result says so when option nodes ended the search before everything else was known to cost as much.
--
-- Options: those of `first`, and cost: an expression, or a function of a solution (one table for all, to be copied by
-- who keeps it) that returns a number. With a function, `bound` may be an expression that is never larger than the
-- cost, or a function bound(least, most) of two tables from names to bounds, that returns what no solution within them
-- costs less than; without, every solution is visited.
function Problem:best(options)
  options = read_options(self, "best", options, "order", "values", "nodes", "cost", "bound")
  local cost, bound = options.cost, options.bound
  if not cost then argument("best: option 'cost'", nil, "an expression or a function") end
  local m = compiled(self, "best", options)
  if not m then return nil, none end

  local at, best, least = {}, nil, nil
  if expression.is_expression(cost) then
    local _, value = compile.expression(m, cost, "best: option 'cost'")
    cost, bound = value, bound or cost
  end
  local restrict, promising
  if expression.is_expression(bound) then
    local number = compile.expression(m, bound, "best: option 'bound'")
    function restrict()
      local most = least and math.ceil(least) - 1
      if math.type(most) == "integer" then m.lower(number, most) end
    end
  elseif bound then
    local low, high = {}, {}
    function promising()
      return not least or bound(copy_values(self, m, m.lo, low), copy_values(self, m, m.hi, high)) < least
    end
  end

  local exhausted
  exhausted, self.nodes = search.run(m, in_order(self, m, options), options.nodes, function()
    local found = cost(copy_values(self, m, m.lo, at))
    if type(found) ~= "number" or found ~= found then
      argument("best: what option 'cost' returned", found, "a number")
    end
    if not least or found < least then
      best, least = copy_values(self, m, m.lo, {}), found
    end
    return false
  end, restrict, promising)
  if best then return best, least, exhausted and stopped(options, "so there may be a better solution") or nil end
  return nil, exhausted and stopped(options, "without a solution") or none
end

--- What the rules alone leave of each variable: a table from names to { least =, most =, step =, values = }, where step
-- divides every value, and values, if any, is the list of them. Nil when the rules leave nothing. Options: given,
-- without.
function Problem:domains(options)
  local m = compiled(self, "domains", read_options(self, "domains", options))
  if not m then return nil end
  local domains = {}
  for _, range in ipairs(self.ranges) do
    local name = range.variable.name
    local i = m.number_of[name]
    domains[name] = { least = m.lo[i], most = m.hi[i], step = m.step_of(i) }
    if m.values[i] then domains[name].values = m.left(i) end
  end
  return domains
end

-- ---- explaining -----------------------------------------------------------------------------------------------------

--- The words of the constraints and ranges that `values`, a table from names to integers, breaks; an empty list for a
-- solution. Option: without.
function Problem:broken(values, options)
  options = read_options(self, "broken", options)
  a_table(values, "broken: argument 1", "a table from names of variables to values")
  local words = {}
  for _, range in ipairs(self.ranges) do
    local name = range.variable.name
    local value, allowed = unless_integer(("broken: the value of '%s'"):format(name), values[name]), not range.values
    for _, other in ipairs(range.values or {}) do allowed = allowed or other == value end
    if not allowed or value < range.least or value > range.most then words[#words + 1] = range.words end
  end
  for _, item in ipairs(self.constraints) do
    if counting(options)(item) then
      local holds, refusal = compile.holds(self, item, values)
      if refusal then at_caller("broken: %s", refusal) end
      if not holds then words[#words + 1] = item.words end
    end
  end
  return words
end

local function reasons(problem, name, what, given, options)
  local found = explain.reasons(problem, what, given, options.nodes, counting(options))
  if found then return found end
  local _, refusal = compile.problem(problem, given, counting(options))
  at_caller("%s: %s", name, refusal or stopped(options, "without knowing"))
end

--- Why there is no solution: a list of words of constraints and ranges that together exclude every one, none of which
-- could be missing; print it to see them. Its field `excluded` is false, and the list empty, when there is a solution.
-- Options: given, without, and nodes, the values that each of the searches may try (10000), which raises an error when
-- that is too few. Where it is too few only for what remains without a constraint, or that is refused, the constraint
-- stays in the list.
function Problem:conflict(options)
  options = read_options(self, "conflict", options, "nodes")
  return reasons(self, "conflict", "every solution", options.given, options)
end

--- Why a variable cannot have a value: as `conflict`, of the problem in which it has.
function Problem:explain(name, value, options)
  options = read_options(self, "explain", options, "nodes")
  range_named(self, name, "explain: argument 1")
  unless_integer("explain: argument 2", value)
  local given = { [name] = value }
  for other, fixed in pairs(options.given) do
    if other ~= name then given[other] = fixed end
  end
  return reasons(self, "explain", ("%s = %d"):format(name, value), given, options)
end

return constrint
