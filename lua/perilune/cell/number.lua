-- The elementwise operations on plain numbers: what folds constants, and what pl.exp(2) returns.

local core = require "perilune.core"
local formula = require "perilune.cell.formula"

local functions = {}

local function truth(condition) return condition and 1.0 or 0.0 end

function functions.K(x) return x end
function functions.eq(a, b) return truth(a == b) end
function functions.ne(a, b) return truth(a ~= b) end
function functions.lt(a, b) return truth(a < b) end
function functions.le(a, b) return truth(a <= b) end
function functions.gt(a, b) return truth(a > b) end
function functions.ge(a, b) return truth(a >= b) end
function functions.where(condition, x, y) if condition ~= 0 then return x end return y end

functions.exp, functions.log, functions.sqrt = math.exp, math.log, math.sqrt
functions.sin, functions.cos, functions.abs = math.sin, math.cos, math.abs
function functions.pow(a, b) return a ^ b end
function functions.mod(a, b) return a - b * math.floor(a / b) end
function functions.floor(a) return a - a % 1.0 end
function functions.ceil(a) return -functions.floor(-a) end

-- Halves go to the even neighbour, as in the C loops.
function functions.round(a)
  local below = functions.floor(a)
  local rest = a - below
  if rest < 0.5 or (rest == 0.5 and below % 2 == 0) then return below end
  return below + 1
end

-- Kahan's way: the error of the rounded intermediate cancels in the quotient.
function functions.expm1(a)
  local u = math.exp(a)
  if u == 1 then return a end
  if u - 1 == -1 or u == math.huge then return u - 1 end
  return (u - 1) * a / math.log(u)
end

function functions.log1p(a)
  local u = 1 + a
  if u == 1 or u == math.huge then return a end
  return math.log(u) * a / (u - 1)
end

function functions.tanh(a)
  if a ~= a then return a end
  local t = functions.expm1(-2 * math.abs(a))
  local magnitude = -t / (t + 2)
  return a < 0 and -magnitude or magnitude
end

-- Maclaurin series near zero (Abramowitz and Stegun 7.1.6), continued fraction of erfc beyond (7.1.14).
function functions.erf(a)
  local x = math.abs(a)
  if x ~= x then return a end
  if x > 6 then return a > 0 and 1.0 or -1.0 end
  local result
  if x < 2.5 then
    local term, sum, n = x, x, 0
    repeat
      n = n + 1
      term = term * 2 * x * x / (2 * n + 1)
      sum = sum + term
    until term < 1e-17 * sum
    result = 2 / math.sqrt(math.pi) * math.exp(-x * x) * sum
  else
    local fraction = x
    for k = 80, 1, -1 do fraction = x + k / 2 / fraction end
    result = 1 - math.exp(-x * x) / math.sqrt(math.pi) / fraction
  end
  return a < 0 and -result or result
end

local compiled = formula.cache(functions)
local number = { functions = functions }

local rows = {}
for _, row in ipairs(core.pointwise) do rows[row.name] = row end

--- The value of operation `name` on numbers.
function number.apply(name, a, b, c) return compiled[rows[name].value](a, b, c) end

return number
