-- Expressions and constraints as functions of their variables' values, by way of Lua text: much quicker than rules
-- where every value is known. Nothing here guards against values that wrap around; compile.lua has.

local source = {}

local function power(base, exponent)
  if base * base <= 1 then return exponent % 2 == 0 and base * base or base end -- however large the exponent is
  local result = 1
  for _ = 1, exponent do result = result * base end
  return result
end
source.power = power

local function divides(a, b) return b == 0 or a ~= 0 and b % a == 0 end

-- The text of an operation, whose operands are named by text(e).
local operations = {
  constant = function(e) return ("%d"):format(e.value) end,
  sum = function(e, text)
    local terms = { ("%d"):format(e.constant) }
    for k, term in ipairs(e.terms) do terms[k + 1] = ("(%d) * %s"):format(e.factors[k], text(term)) end
    return table.concat(terms, " + ")
  end,
  product = function(e, text)
    local factors = {}
    for k, term in ipairs(e.terms) do factors[k] = text(term) end
    return table.concat(factors, " * ")
  end,
  power = function(e, text) return ("power(%s, %d)"):format(text(e.a), e.exponent) end,
  exponential = function(e, text) return ("power(%d, %s)"):format(e.base, text(e.a)) end,
  quotient = function(e, text) return ("%s // %s"):format(text(e.a), text(e.b)) end,
  modulo = function(e, text) return ("%s %% %s"):format(text(e.a), text(e.b)) end,
  max = function(e, text) return ("max(%s, %s)"):format(text(e.a), text(e.b)) end,
  when = function(e, text) return ("%s and %s or %s"):format(text(e.c), text(e.a), text(e.b)) end,
  equal = function(c, text) return ("(%s == %s) == %s"):format(text(c.a), text(c.b), c.sense == 1) end,
  order = function(c, text) return ("%s >= %d"):format(text(c.difference), c.offset) end,
  divides = function(c, text) return ("divides(%s, %s) == %s"):format(text(c.a), text(c.b), c.sense == 1) end,
  join = function(c, text)
    local parts = { tostring(c.sense == 0) }
    for k, part in ipairs(c.parts) do parts[k + 1] = text(part) end
    return table.concat(parts, c.sense == 1 and " or " or " and ")
  end,
}

-- Each operation is a statement of its own, so that no expression is too deep for Lua.
local function writer(number_of)
  local lines, names, count = {}, {}, 0
  local function text(e)
    if e.op == "variable" then return ("v[%d]"):format(number_of[e.name]) end
    if not names[e] then
      local operation = operations[e.op](e, text)
      count = count + 1
      names[e] = ("t[%d]"):format(count)
      lines[#lines + 1] = ("%s = %s"):format(names[e], operation)
    end
    return names[e]
  end
  return lines, text
end

local function loaded(lines, v)
  local chunk = ("local v, max, power, divides = ...\nlocal t = {}\nreturn function()\n%s\nend"):format(
    table.concat(lines, "\n"))
  return assert(load(chunk, "=constrint", "t", {}))(v, math.max, power, divides)
end

--- A function without arguments that tells whether all `constraints` hold, where v[number_of[name]] is the value of the
-- variable of that name.
function source.test(constraints, number_of, v)
  local lines, text = writer(number_of)
  for _, c in ipairs(constraints) do
    local holds = text(c)
    lines[#lines + 1] = ("if not %s then return false end"):format(holds)
  end
  lines[#lines + 1] = "return true"
  return loaded(lines, v)
end

--- A function without arguments that returns the value of `e`.
function source.value(e, number_of, v)
  local lines, text = writer(number_of)
  local result = text(e)
  lines[#lines + 1] = "return " .. result
  return loaded(lines, v)
end

return source
