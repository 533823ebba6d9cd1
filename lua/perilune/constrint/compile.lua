-- Turns a problem into a model with its rules: one number per expression, however often it occurs. Rules of divisors
-- are posted where something asks for them: equality, divisibility and remainders do, mere order does not.
--
-- No rule guards against values that wrap around; instead a constraint is posted only where no value of it can reach
-- 2^60. One that might waits until the others have narrowed its variables, and is refused if they do not.

local complain = require "perilune.constrint.complain"
local expression = require "perilune.constrint.expression"
local model = require "perilune.constrint.model"
local rules = require "perilune.constrint.rules"
local source = require "perilune.constrint.source"

local within_limit, refuse = expression.within_limit, expression.refuse

-- A variable of at most so many values has them in a list, and so may lose any one of them.
local most_values <const> = 1024

local build = {}

local function node(m, e)
  local i = m.numbers[e]
  if not i then
    i = build[e.op](m, e)
    m.numbers[e] = i
  end
  return i
end

-- Posts the rules of divisors of a number, and of those it is made from.
local function with_divisors(m, i)
  local post = m.later[i]
  if post then
    m.later[i] = nil
    post()
  end
  return i
end

local function size(m, i) return math.max(-m.lo[i], m.hi[i]) end

-- A number that stands for an operator's result, bounded by running its rule.
local function result(m, rule, divisors, ...)
  local z, operands = m.new(-expression.limit, expression.limit), { ... }
  m.rule(rule(z), { z, ... })
  m.later[z] = function()
    for _, x in ipairs(operands) do with_divisors(m, x) end
    if divisors then m.rule(divisors(z), { z, table.unpack(operands) }, true) end
  end
  return z
end

function build.constant(m, e)
  local i = m.constants[e.value] or m.new(e.value, e.value)
  m.constants[e.value] = i
  return i
end

-- The terms of a sum that stays within the limit.
local function terms_of(m, e)
  local terms, reach = {}, math.abs(1.0 * e.constant)
  for k, term in ipairs(e.terms) do
    terms[k] = node(m, term)
    reach = reach + math.abs(1.0 * e.factors[k]) * size(m, terms[k])
  end
  within_limit(e, reach)
  return terms
end

function build.sum(m, e)
  local terms = terms_of(m, e)
  return result(m, function(z) return rules.sum(m, z, e.constant, e.factors, terms) end,
    function(z) return rules.sum_divisors(m, z, e.constant, e.factors, terms) end, table.unpack(terms))
end

function build.product(m, e)
  local terms, reach, signed = {}, 1.0, false
  for k, term in ipairs(e.terms) do
    local x = node(m, term)
    terms[k], reach, signed = x, reach * math.max(1, size(m, x)), signed or m.lo[x] < 0
  end
  within_limit(e, reach)
  local function product_of(factors)
    return result(m, function(z)
      if signed then return rules.signed_product(m, z, factors[1], factors[2]) end
      return rules.product(m, z, factors)
    end, function(z) return rules.product_divisors(m, z, factors) end, table.unpack(factors))
  end
  if not signed then return product_of(terms) end
  local z = terms[1]
  for k = 2, #terms do z = product_of { z, terms[k] } end
  return z
end

function build.power(m, e)
  local x = node(m, e.a)
  -- Even powers are those of the absolute value, so that every power grows with its base.
  if e.exponent % 2 == 0 and m.lo[x] < 0 then
    x = node(m, expression.max(e.a, -e.a))
    m.raise(x, 0)
  end
  within_limit(e, (1.0 * size(m, x)) ^ e.exponent)
  return result(m, function(z)
    return rules.growing(m, z, x, function(base) return source.power(base, e.exponent) end)
  end, function(z) return rules.power_divisors(m, z, x, e.exponent) end, x)
end

function build.exponential(m, e)
  local x = node(m, e.a)
  if m.lo[x] < 0 then refuse("the exponent of '%s' can be %d; it must be at least 0", e, m.lo[x]) end
  within_limit(e, (1.0 * e.base) ^ m.hi[x])
  return result(m, function(z)
    return rules.growing(m, z, x, function(exponent) return source.power(e.base, exponent) end)
  end, function(z) return rules.exponential_divisors(m, z, x, e.base) end, x)
end

-- The operands of // and %, the divisor positive.
local function dividend_and_divisor(m, e)
  local y = node(m, e.b)
  if m.lo[y] <= 0 and m.hi[y] >= 0 then
    refuse("the divisor of '%s' can be 0; give it a range without 0", e)
  end
  if m.hi[y] < 0 then return node(m, -e.a), node(m, -e.b) end
  return node(m, e.a), y
end

function build.quotient(m, e)
  local x, y = dividend_and_divisor(m, e)
  within_limit(e, (1.0 * size(m, x) / m.lo[y] + 2) * m.hi[y])
  return result(m, function(z) return rules.quotient(m, z, x, y) end,
    function(z) return rules.quotient_divisors(m, z, x, y) end, x, y)
end

function build.modulo(m, e)
  local x, y = dividend_and_divisor(m, e)
  local z = result(m, function(z) return rules.modulo(m, z, x, y) end,
    function(z) return rules.modulo_divisors(m, z, x, y) end, x, y)
  with_divisors(m, z)
  if m.hi[node(m, e.b)] < 0 then -- -(-a % -b)
    return result(m, function(negated) return rules.sum(m, negated, 0, { -1 }, { z }) end,
      function(negated) return rules.sum_divisors(m, negated, 0, { -1 }, { z }) end, z)
  end
  return z
end

function build.max(m, e)
  local x, y = node(m, e.a), node(m, e.b)
  return result(m, function(z) return rules.max(m, z, x, y) end, nil, x, y)
end

local truth

function build.when(m, e)
  local t, x, y = truth(m, e.c), node(m, e.a), node(m, e.b)
  return result(m, function(z) return rules.when(m, z, t, x, y) end,
    function(z) return rules.when_divisors(m, z, t, x, y) end, t, x, y)
end

-- ---- constraints ----------------------------------------------------------------------------------------------------

-- Each posts the rule that makes t, 0 or 1, a constraint's truth.
local relate = {}

function relate.order(m, c, t)
  local x = node(m, c.difference)
  m.rule(rules.order(m, t, x, c.offset), { t, x })
end

function relate.equal(m, c, t)
  local x, y = with_divisors(m, node(m, c.a)), with_divisors(m, node(m, c.b))
  m.rule(rules.equal(m, t, x, y, c.sense), { t, x, y })
  m.rule(rules.equal_divisors(m, t, x, y, c.sense), { t, x, y }, true)
end

function relate.divides(m, c, t)
  local x, y = with_divisors(m, node(m, c.a)), with_divisors(m, node(m, c.b))
  local rule = rules.divides(m, t, x, y, c.sense)
  m.rule(rule, { t, x, y })
  m.rule(rule, { x, y }, true)
end

function relate.join(m, c, t)
  local parts = {}
  for k, part in ipairs(c.parts) do parts[k] = truth(m, part) end
  m.rule(rules.join(m, t, parts, c.sense), { t, table.unpack(parts) })
end

function truth(m, c)
  local t = m.numbers[c]
  if not t then
    t = m.new(0, 1)
    relate[c.op](m, c, t)
    m.numbers[c] = t
  end
  return t
end

local function empty_model()
  local m = model.new()
  m.numbers, m.constants, m.number_of, m.later, m.constraints, m.constraints_of = {}, {}, {}, {}, {}, {}
  m.yes = m.new(1, 1)
  return m
end

-- A model of nothing but one variable of m.
local function alone(m, variable, i)
  local other = empty_model()
  other.numbers[variable] = other.new(m.lo[i], m.hi[i])
  return other
end

-- Makes a constraint hold. One of a single variable with a list of values is applied to the list and done with.
local function post(m, c, variables)
  if c.op == "join" and c.sense == 0 then
    for _, part in ipairs(c.parts) do post(m, part, expression.variables(part)) end
    return
  end
  local i = #variables == 1 and m.numbers[variables[1]]
  if i and m.values[i] then
    local other = alone(m, variables[1], i)
    relate[c.op](other, c, other.yes) -- which refuses what may be too large
    local at = {}
    local holds = source.test({ c }, m.number_of, at)
    return m.keep(i, function(x)
      at[i] = x
      return holds()
    end)
  end
  local difference = c.difference
  if difference and difference.op == "sum" and not m.numbers[difference] then
    local terms = terms_of(m, difference)
    m.rule(rules.sum_at_least(m, difference.constant - c.offset, difference.factors, terms), terms)
  else
    relate[c.op](m, c, m.yes)
  end
  m.constraints[#m.constraints + 1] = c
  for _, variable in ipairs(variables) do
    local constraints = m.constraints_of[m.numbers[variable]]
    constraints[#constraints + 1] = c
  end
end

-- ---- problems -------------------------------------------------------------------------------------------------------

local function add_variable(m, range, counts, given, reach)
  local i
  if not counts then
    i = m.new(given or -reach, given or reach)
  elseif range.values then
    i = m.new(range.least, range.most, range.values)
  elseif range.most - range.least < most_values then
    local list = {}
    for value = range.least, range.most do list[#list + 1] = value end
    i = m.new(range.least, range.most, list)
  else
    i = m.new(range.least, range.most)
  end
  m.numbers[range.variable], m.constraints_of[i] = i, {}
  m.number_of[range.variable.name] = i
end

-- f(...), or its refusal.
local function attempt(f, ...)
  local ok, refusal = pcall(f, ...)
  if ok then return nil end
  if getmetatable(refusal) ~= expression.Refusal then error(refusal, 0) end
  return refusal
end

local compile = {}

--- A model of the constraints and ranges of `problem` for which counts(item) is true, with variables fixed as in
-- `given`, a table by name, narrowed as far as rules can; one whose range does not count is from -reach to reach
-- (default: 2^31). m.number_of[name] is a variable's number. Returns nil when
-- the rules alone find that there is no solution; nil and a reason when a constraint is refused.
function compile.problem(problem, given, counts, reach)
  local m, tests = empty_model(), {}
  -- A test of all that is said of a variable when the others have values that the rules have seen: the rules may rest.
  -- Where they were stopped, it is a test of all that is said.
  function m.test_of(i)
    if m.unfinished then i = 0 end
    tests[i] = tests[i] or source.test(m.constraints_of[i] or m.constraints, m.number_of, m.lo)
    return tests[i]
  end
  for _, range in ipairs(problem.ranges) do
    add_variable(m, range, counts(range), given[range.variable.name], reach or 1 << 31)
  end
  for name, value in pairs(given) do m.fix(m.number_of[name], value) end
  local waiting = {}
  for _, item in ipairs(problem.constraints) do
    if counts(item) then waiting[#waiting + 1] = item end
  end
  while true do
    local refused, reason = {}, nil
    for _, item in ipairs(waiting) do
      local refusal = attempt(post, m, item.constraint, item.variables)
      if refusal then
        refused[#refused + 1] = item
        reason = reason or ("%s: %s"):format(item.words, refusal)
      end
    end
    if not m.propagate() then return nil end
    if #refused == 0 then return m end
    if #refused == #waiting then return nil, reason end
    waiting = refused
  end
end

--- The number of an expression beside the constraints, such as a cost, and a function that returns its value.
function compile.expression(m, e, what)
  local i
  local refusal = attempt(function() i = node(m, e) end)
  if refusal then complain.at_caller("%s: %s", what, refusal) end
  m.propagate()
  return i, source.value(e, m.number_of, m.lo)
end

--- Whether a constraint of `problem` holds at `values`, a table by name; nil and a reason when it is refused.
function compile.holds(problem, item, values)
  local m, refusal = compile.problem(problem, values, function(other) return other == item end)
  if refusal then return nil, refusal end
  return m ~= nil
end

return compile
