-- Small random problems, and how to solve them by trying everything: expressions are kept twice, for constrint and as
-- plain Lua functions of an assignment that share no code with it.
local constrint = require "perilune.constrint"

local random_problem = {}

-- A generator of its own: the same problems everywhere.
local function generator(seed)
  local state = seed * 2654435761 + 12345
  return function(least, most)
    state = (state * 6364136223846793005 + 1442695040888963407)
    return least + ((state >> 33) % (most - least + 1))
  end
end

local function expression(random, variables, depth)
  local kind = depth == 0 and random(1, 3) or random(1, 13)
  if kind <= 2 then
    local variable = variables[random(1, #variables)]
    local name = variable.name
    variables.used[name] = true
    return variable, function(at) return at[name] end
  end
  if kind == 3 then
    local value = random(-3, 6)
    return value, function() return value end
  end
  local a, f = expression(random, variables, depth - 1)
  local b, g = expression(random, variables, depth - 1)
  if kind == 4 or kind == 5 then return a + b, function(at) return f(at) + g(at) end end
  if kind == 6 then return a - b, function(at) return f(at) - g(at) end end
  if kind == 7 or kind == 8 then return a * b, function(at) return f(at) * g(at) end end
  if kind == 9 then return constrint.max(a, b), function(at) return math.max(f(at), g(at)) end end
  if kind == 10 then return constrint.min(a, b), function(at) return math.min(f(at), g(at)) end end
  if kind == 11 then
    -- Divisors: a constant of either sign, or a positive variable.
    local d = random(1, 5) * (random(0, 1) * 2 - 1)
    local h = function() return d end
    local positive = variables.positive
    if positive and random(0, 1) == 1 then
      d = positive
      variables.used[positive.name] = true
      h = function(at) return at[positive.name] end
    end
    if type(a) == "number" and type(d) == "number" then return a // d, function() return a // d end end
    local which = random(1, 3)
    if which == 1 then return a // d, function(at) return f(at) // h(at) end end
    if which == 2 then return a % d, function(at) return f(at) % h(at) end end
    return constrint.ceil_div(a, d), function(at) return math.ceil(f(at) / h(at)) end
  end
  if kind == 12 then
    local exponent = random(0, 3)
    if type(a) == "number" then return a, f end
    return a ^ exponent, function(at)
      local result = 1
      for _ = 1, exponent do result = result * f(at) end
      return result
    end
  end
  local positive = variables.positive
  if not positive then return a, f end
  variables.used[positive.name] = true
  local base = random(1, 3)
  return base ^ positive, function(at)
    local result = 1
    for _ = 1, at[positive.name] do result = result * base end
    return result
  end
end

local function divides(a, b)
  if a == 0 then return b == 0 end
  return b % a == 0
end

local comparisons = {
  { "eq", function(a, b) return a == b end }, { "ne", function(a, b) return a ~= b end },
  { "le", function(a, b) return a <= b end }, { "lt", function(a, b) return a < b end },
  { "ge", function(a, b) return a >= b end }, { "gt", function(a, b) return a > b end },
  { "divides", divides }, { "divides", divides }, { "eq", function(a, b) return a == b end },
}

local constraint

local function comparison(random, variables)
  local row = comparisons[random(1, #comparisons)]
  local a, f = expression(random, variables, random(0, 2))
  local b, g = expression(random, variables, random(0, 2))
  if random(1, 8) == 1 then
    local c, holds = constraint(random, variables, 0)
    local other, other_f = expression(random, variables, 1)
    local then_f, else_f = f, g
    b = constrint.when(c, a, b)
    g = function(at)
      if holds(at) then return then_f(at) end
      return else_f(at)
    end
    a, f = other, other_f
  end
  return constrint[row[1]](a, b), function(at) return row[2](f(at), g(at)) end
end

function constraint(random, variables, depth)
  local kind = depth == 0 and 1 or random(1, 8)
  if kind <= 3 then return comparison(random, variables) end
  local c, f = constraint(random, variables, depth - 1)
  local d, g = constraint(random, variables, depth - 1)
  if kind == 4 then return constrint.any { c, d }, function(at) return f(at) or g(at) end end
  if kind == 5 then return constrint.all { c, d }, function(at) return f(at) and g(at) end end
  if kind == 6 then return constrint.implies(c, d), function(at) return not f(at) or g(at) end end
  if kind == 7 then return constrint.none { c, d }, function(at) return not f(at) and not g(at) end end
  return constrint.no(c), function(at) return not f(at) end
end

--- A problem: the constrint problem, its variables' `domains` (a list of { name, values }), its constraints' `tests` (a
-- list of { words, holds, uses }), and `random`, with which to go on. `most` is the largest number of values of a
-- variable. With `far`, ranges have thousands of values, too many for a list, of which constraints leave `most`.
function random_problem.new(seed, constraints, most, far)
  local random = generator(seed)
  local p = { problem = constrint.problem(), domains = {}, tests = {}, random = random, variables = {}, words = {} }
  for k = 1, random(2, 4) do
    local name, values = "x" .. k, {}
    local variable
    if random(1, 3) == 1 then
      for _ = 1, random(1, most) do values[#values + 1] = random(-12, 24) end
      variable = p.problem:integer(name, values, "range of " .. name)
      table.sort(values)
      for i = #values, 2, -1 do
        if values[i] == values[i - 1] then table.remove(values, i) end
      end
    else
      local least = random(-4, 4)
      local greatest = least + random(0, most - 1)
      for value = least, greatest do values[#values + 1] = value end
      variable = p.problem:integer(name, least, far and 5000 or greatest, "range of " .. name)
      if far then p.problem:require("end of " .. name, constrint.le(variable, greatest)) end
    end
    p.domains[k], p.variables[k] = { name = name, values = values }, variable
    if values[1] > 0 and values[#values] <= 10 then p.variables.positive = variable end
  end
  for k = 1, random(1, constraints) do
    p.variables.used = {}
    local c, holds = constraint(random, p.variables, random(0, 2))
    local words = "constraint " .. k
    p.problem:require(words, c, "family " .. k % 2)
    p.tests[k] = { words = words, holds = holds, uses = p.variables.used }
  end
  return p
end

--- Visits every assignment of `domains` that passes all `tests`, until visit(at) returns true.
function random_problem.each(domains, tests, visit)
  local at, tests_at = {}, {} -- the tests as soon as what they use has values
  for k = 0, #domains do tests_at[k] = {} end
  for _, test in ipairs(tests) do
    local last = 0
    for k, domain in ipairs(domains) do
      if test.uses[domain.name] then last = k end
    end
    table.insert(tests_at[last], test)
  end
  local function descend(k)
    for _, test in ipairs(tests_at[k]) do
      if not test.holds(at) then return false end
    end
    local domain = domains[k + 1]
    if not domain then return visit(at) end
    for _, value in ipairs(domain.values) do
      at[domain.name] = value
      if descend(k + 1) then return true end
    end
    return false
  end
  return descend(0)
end

function random_problem.copy(at)
  local copy = {}
  for name, value in pairs(at) do copy[name] = value end
  return copy
end

return random_problem
