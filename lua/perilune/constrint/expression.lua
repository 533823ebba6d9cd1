-- Expressions over integer variables and constraints on them: how they are written and printed. Nothing here knows how
-- they are solved.
--
-- Both are plain tables with an `op`. Sums are kept flat, constant + factors[k] * terms[k] + ..., as are products, and
-- constants are folded, so that 2 * (x + 3) - x is one sum of one term.

local complain = require "perilune.constrint.complain"
local at_caller, argument = complain.at_caller, complain.argument

local expression = {}
local Expression = { kind = "an expression" }
local Constraint = { kind = "a constraint" }

-- No value may be larger than this, so that sums and differences of two never wrap around.
local limit <const> = 1 << 60
expression.limit = limit

-- Raised where a problem cannot be solved as stated: a value may be too large, a divisor 0. See compile.lua.
expression.Refusal = { __tostring = function(refusal) return refusal.reason end }

function expression.refuse(reason, ...)
  error(setmetatable({ reason = reason:format(...) }, expression.Refusal), 0)
end

--- Refuses `e` when its value may be as large as `reach`, a float that cannot have wrapped around.
function expression.within_limit(e, reach)
  if reach > limit or reach < -limit then
    expression.refuse("'%s' can reach %.3g, and values beyond 2^60 are refused; narrow its variables' ranges", e, reach)
  end
end

function expression.is_expression(x) return getmetatable(x) == Expression end
function expression.is_constraint(x) return getmetatable(x) == Constraint end
local is_expression, is_constraint = expression.is_expression, expression.is_constraint

local function make(fields) return setmetatable(fields, Expression) end

local function constant(value, where)
  if value > limit or value < -limit then at_caller("%s: %d is beyond 2^60, the largest value", where, value) end
  return make { op = "constant", value = value }
end

-- An operand as an expression.
local function operand(x, where)
  if is_expression(x) then return x end
  local value = type(x) == "number" and math.tointeger(x)
  if not value then argument(where, x, "an expression or an integer") end
  return constant(value, where)
end

function expression.variable(name, problem) return make { op = "variable", name = name, problem = problem } end

-- ---- sums and products ----------------------------------------------------------------------------------------------

local too_large <const> = "the constants %d %s %d are beyond 2^60, the largest value"

local function times(a, b)
  local reach = 1.0 * a * b
  if reach > limit or reach < -limit then at_caller(too_large, a, "*", b) end
  return a * b
end

local function plus(a, b)
  if a + b > limit or a + b < -limit then at_caller(too_large, a, "+", b) end
  return a + b
end

local function add_term(sum, term, factor)
  for k, present in ipairs(sum.terms) do
    if rawequal(present, term) then
      sum.factors[k] = plus(sum.factors[k], factor)
      return
    end
  end
  sum.terms[#sum.terms + 1], sum.factors[#sum.factors + 1] = term, factor
end

local function add(sum, e, factor)
  if e.op == "constant" then
    sum.constant = plus(sum.constant, times(factor, e.value))
  elseif e.op == "sum" then
    sum.constant = plus(sum.constant, times(factor, e.constant))
    for k, term in ipairs(e.terms) do add_term(sum, term, times(factor, e.factors[k])) end
  else
    add_term(sum, e, factor)
  end
end

-- factor_a * a + factor_b * b in its simplest form.
local function sum_of(a, factor_a, b, factor_b)
  local sum = { op = "sum", constant = 0, factors = {}, terms = {} }
  add(sum, a, factor_a)
  if b then add(sum, b, factor_b) end
  for k = #sum.terms, 1, -1 do
    if sum.factors[k] == 0 then
      table.remove(sum.terms, k)
      table.remove(sum.factors, k)
    end
  end
  if #sum.terms == 0 then return make { op = "constant", value = sum.constant } end
  if #sum.terms == 1 and sum.factors[1] == 1 and sum.constant == 0 then return sum.terms[1] end
  return make(sum)
end

-- e as a factor and what remains.
local function split(e)
  if e.op == "sum" and #e.terms == 1 and e.constant == 0 then return e.factors[1], e.terms[1] end
  return 1, e
end

local function product_of(a, b)
  if a.op == "constant" then return sum_of(b, a.value) end
  if b.op == "constant" then return sum_of(a, b.value) end
  local factor_a, rest_a = split(a)
  local factor_b, rest_b = split(b)
  local terms = {}
  for _, rest in ipairs { rest_a, rest_b } do
    for _, term in ipairs(rest.op == "product" and rest.terms or { rest }) do terms[#terms + 1] = term end
  end
  return sum_of(make { op = "product", terms = terms }, times(factor_a, factor_b))
end

function Expression.__add(a, b) return sum_of(operand(a, "operand 1 of +"), 1, operand(b, "operand 2 of +"), 1) end
function Expression.__sub(a, b) return sum_of(operand(a, "operand 1 of -"), 1, operand(b, "operand 2 of -"), -1) end
function Expression.__mul(a, b) return product_of(operand(a, "operand 1 of *"), operand(b, "operand 2 of *")) end
function Expression.__unm(a) return sum_of(a, -1) end

function Expression.__pow(a, b)
  a, b = operand(a, "operand 1 of ^"), operand(b, "operand 2 of ^")
  if b.op == "constant" then
    if b.value < 0 then argument("the exponent of ^", b.value, "an integer of at least 0") end
    if b.value == 0 then return constant(1) end
    if b.value == 1 then return a end
    return make { op = "power", a = a, exponent = b.value }
  end
  if a.op ~= "constant" then argument("the exponent of ^", b, "an integer, unless the base is one") end
  if a.value < 1 then argument("the base of ^", a.value, "an integer of at least 1, since the exponent is none") end
  if a.value == 1 then return a end
  return make { op = "exponential", base = a.value, a = b }
end

-- ---- quotients, maxima, alternatives --------------------------------------------------------------------------------

local function divisor(x, where)
  local b = operand(x, where)
  if b.op == "constant" and b.value == 0 then argument(where, 0, "a divisor other than 0") end
  return b
end

local function quotient_of(a, b)
  if a.op == "constant" and b.op == "constant" then return constant(a.value // b.value) end
  if b.op == "constant" and b.value < 0 then a, b = -a, -b end
  return make { op = "quotient", a = a, b = b }
end

function Expression.__idiv(a, b) return quotient_of(operand(a, "operand 1 of //"), divisor(b, "operand 2 of //")) end

function Expression.__mod(a, b)
  a, b = operand(a, "operand 1 of %"), divisor(b, "operand 2 of %")
  if a.op == "constant" and b.op == "constant" then return constant(a.value % b.value) end
  if b.op == "constant" and b.value < 0 then return -(-a % -b) end
  return make { op = "modulo", a = a, b = b }
end

--- The quotient rounded up.
function expression.ceil_div(a, b)
  return -quotient_of(-operand(a, "ceil_div: argument 1"), divisor(b, "ceil_div: argument 2"))
end

local function larger(a, b)
  if a.op == "constant" and b.op == "constant" then return constant(math.max(a.value, b.value)) end
  return make { op = "max", a = a, b = b }
end

--- The larger of two.
function expression.max(a, b) return larger(operand(a, "max: argument 1"), operand(b, "max: argument 2")) end

--- The smaller of two.
function expression.min(a, b) return -larger(-operand(a, "min: argument 1"), -operand(b, "min: argument 2")) end

local function condition(x, where)
  if not is_constraint(x) then
    argument(where, x, type(x) == "boolean" and "a constraint (== and ~= make none; write constrint.eq or ne)"
      or "a constraint")
  end
  return x
end

--- a where c holds, else b.
function expression.when(c, a, b)
  return make {
    op = "when", c = condition(c, "when: argument 1"), a = operand(a, "when: argument 2"),
    b = operand(b, "when: argument 3"),
  }
end

-- ---- constraints ----------------------------------------------------------------------------------------------------

local function constraint(fields) return setmetatable(fields, Constraint) end

local function equality(a, b, sense) return constraint { op = "equal", a = a, b = b, sense = sense } end

-- a + offset <= b; how far a is below b is what is solved for.
local function order(a, b, offset)
  return constraint { op = "order", a = a, b = b, offset = offset, difference = sum_of(b, 1, a, -1) }
end

local function comparison(name, build)
  expression[name] = function(a, b)
    return build(operand(a, name .. ": argument 1"), operand(b, name .. ": argument 2"))
  end
end
comparison("eq", function(a, b) return equality(a, b, 1) end)
comparison("ne", function(a, b) return equality(a, b, 0) end)
comparison("le", function(a, b) return order(a, b, 0) end)
comparison("lt", function(a, b) return order(a, b, 1) end)
comparison("ge", function(a, b) return order(b, a, 0) end)
comparison("gt", function(a, b) return order(b, a, 1) end)
--- b is a multiple of a. 0 divides only 0.
comparison("divides", function(a, b) return constraint { op = "divides", a = a, b = b, sense = 1 } end)

-- A list of constraints that `any` (sense 1) or `all` (sense 0) joins: its truth is `sense` as soon as a part's is.
local function joined(parts, sense, name)
  if type(parts) ~= "table" or is_constraint(parts) or is_expression(parts) then
    argument(name .. ": argument 1", parts, "a list of constraints")
  end
  local copy = {}
  for k = 1, #parts do copy[k] = condition(parts[k], ("%s: constraint %d of the list"):format(name, k)) end
  return constraint { op = "join", parts = copy, sense = sense }
end

function expression.any(parts) return joined(parts, 1, "any") end
function expression.all(parts) return joined(parts, 0, "all") end

local function opposite(c)
  if c.op == "order" then return order(c.b, c.a, 1 - c.offset) end
  if c.op == "join" then
    local parts = {}
    for k, part in ipairs(c.parts) do parts[k] = opposite(part) end
    return constraint { op = "join", parts = parts, sense = 1 - c.sense }
  end
  return constraint { op = c.op, a = c.a, b = c.b, sense = 1 - c.sense }
end

--- c does not hold.
function expression.no(c) return opposite(condition(c, "no: argument 1")) end

--- No constraint of the list holds.
function expression.none(parts) return opposite(joined(parts, 1, "none")) end

--- d holds wherever c does.
function expression.implies(c, d)
  return joined({ opposite(condition(c, "implies: argument 1")), condition(d, "implies: argument 2") }, 1)
end

-- ---- what is not meant ----------------------------------------------------------------------------------------------

local function instead(sign, advice)
  return function() at_caller("'%s' does not work on expressions; use %s", sign, advice) end
end
Expression.__lt = instead("<", "constrint.lt(a, b), or constrint.gt(a, b) for '>'")
Expression.__le = instead("<=", "constrint.le(a, b), or constrint.ge(a, b) for '>='")
Expression.__eq = instead("==", "constrint.eq(a, b), or constrint.ne(a, b) for '~='")
Expression.__div = instead("/", "a // b, constrint.ceil_div(a, b), or constrint.divides(b, a)")
for _, event in ipairs { "__add", "__sub", "__mul", "__unm", "__lt", "__le" } do
  Constraint[event] = function() at_caller("constraints are no numbers; use constrint.when(c, 1, 0)") end
end

-- ---- printing -------------------------------------------------------------------------------------------------------

local function grouped(e)
  local text = tostring(e)
  return (e.op == "sum" or e.op == "product" or text:find "[ -]" and not text:find "^%a+%b()$") and "(" .. text .. ")"
    or text
end

local function in_product(e) return e.op == "product" and tostring(e) or grouped(e) end

local function sum_text(e)
  local text = ""
  for k, term in ipairs(e.terms) do
    local factor = e.factors[k]
    local sign = factor < 0 and (k == 1 and "-" or " - ") or (k == 1 and "" or " + ")
    local size = math.abs(factor) == 1 and "" or math.abs(factor) .. " * "
    text = text .. sign .. size .. in_product(term)
  end
  if e.constant ~= 0 then text = ("%s %s %d"):format(text, e.constant < 0 and "-" or "+", math.abs(e.constant)) end
  return text
end

local function list_text(parts)
  local texts = {}
  for k, part in ipairs(parts) do texts[k] = tostring(part) end
  return table.concat(texts, ", ")
end

local texts = {
  constant = function(e) return tostring(e.value) end,
  variable = function(e) return e.name end,
  sum = sum_text,
  product = function(e)
    local factors = {}
    for k, term in ipairs(e.terms) do factors[k] = grouped(term) end
    return table.concat(factors, " * ")
  end,
  power = function(e) return grouped(e.a) .. "^" .. e.exponent end,
  exponential = function(e) return e.base .. "^" .. grouped(e.a) end,
  quotient = function(e) return grouped(e.a) .. " // " .. grouped(e.b) end,
  modulo = function(e) return grouped(e.a) .. " % " .. grouped(e.b) end,
  max = function(e) return ("max(%s, %s)"):format(e.a, e.b) end,
  when = function(e) return ("when(%s, %s, %s)"):format(e.c, e.a, e.b) end,
  equal = function(c) return ("%s %s %s"):format(c.a, c.sense == 1 and "==" or "~=", c.b) end,
  order = function(c) return ("%s %s %s"):format(c.a, c.offset == 0 and "<=" or "<", c.b) end,
  divides = function(c) return ("%s %s %s"):format(c.a, c.sense == 1 and "divides" or "does not divide", c.b) end,
  join = function(c) return ("%s{%s}"):format(c.sense == 1 and "any" or "all", list_text(c.parts)) end,
}
function Expression.__tostring(e) return texts[e.op](e) end
Constraint.__tostring = Expression.__tostring

-- ---- variables ------------------------------------------------------------------------------------------------------

local function add_variables(e, list, seen)
  if seen[e] then return end
  seen[e] = true
  if e.op == "variable" then
    list[#list + 1] = e
    return
  end
  if e.a then add_variables(e.a, list, seen) end
  if e.b then add_variables(e.b, list, seen) end
  if e.c then add_variables(e.c, list, seen) end
  for _, part in ipairs(e.terms or e.parts or {}) do add_variables(part, list, seen) end
end

--- The variables of an expression or constraint, in the order in which they occur.
function expression.variables(e)
  local list = {}
  add_variables(e, list, {})
  return list
end

return expression
