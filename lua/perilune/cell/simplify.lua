-- Rules that the graph's constructors apply: one function per operation, from operands to a simpler node or nil.
-- Each keeps the value for finite operands (the sign of a zero and a last rounding aside); none reorders a sum. So
-- x * 0 is 0 here even where x would be infinite.

local number = require "perilune.cell.number"

local rules = {}

local function constant(node) return node.op == "constant" and node.value or nil end
local function is(node, value) return node.op == "constant" and node.value == value end
local function same(a, b) return rawequal(a, b) end
local function negated(node) return node.op == "neg" and node.a or nil end

local tests = { eq = true, ne = true, lt = true, le = true }

-- Whether the value is always 1 or 0: a test, or 1 - test.
local function is_test(node)
  return tests[node.op] or (node.op == "sub" and is(node.a, 1) and is_test(node.b))
end

local function is_power_of_two(x)
  if x == 0 or x ~= x or math.abs(x) == math.huge then return false end
  local exponent = math.log(math.abs(x), 2)
  return exponent == math.floor(exponent) and 2.0 ^ exponent == math.abs(x)
end

-- 1 + exp(a) as (a); nil for anything else.
local function one_plus_exp(node)
  if node.op ~= "add" then return nil end
  local x, y = node.a, node.b
  if is(x, 1) and y.op == "exp" then return y.a end
  if is(y, 1) and x.op == "exp" then return x.a end
  return nil
end

function rules.add(make, a, b)
  if is(a, 0) then return b end
  if is(b, 0) then return a end
  if negated(b) then return make("sub", a, b.a) end
  if negated(a) then return make("sub", b, a.a) end
end

function rules.sub(make, a, b)
  if is(b, 0) then return a end
  if is(a, 0) then return make("neg", b) end
  if same(a, b) then return make(0) end
  if negated(b) then return make("add", a, b.a) end
  if is(a, 1) and b.op == "sub" and is_test(b) then return b.b end
end

function rules.mul(make, a, b)
  if is(a, 0) or is(b, 0) then return make(0) end
  if is(a, 1) then return b end
  if is(b, 1) then return a end
  if is(a, -1) then return make("neg", b) end
  if is(b, -1) then return make("neg", a) end
  if negated(a) then return make("neg", make("mul", a.a, b)) end
  if negated(b) then return make("neg", make("mul", a, b.a)) end
end

function rules.neg(make, a)
  if negated(a) then return a.a end
  if a.op == "sub" then return make("sub", a.b, a.a) end
end

function rules.div(make, a, b)
  if is(a, 0) then return a end
  if is(b, 1) then return a end
  if negated(a) then return make("neg", make("div", a.a, b)) end
  if negated(b) then return make("neg", make("div", a, b.a)) end
  local divisor = constant(b)
  if divisor and is_power_of_two(divisor) then return make("mul", a, make(1 / divisor)) end
  local exponent = one_plus_exp(b)
  if exponent then return make("mul", a, make("sigmoid", make("neg", exponent))) end
end

function rules.pow(make, a, b)
  local exponent = constant(b)
  if exponent == 0 then return make(1) end
  if exponent == 1 then return a end
  if exponent == 2 then return make("mul", a, a) end
  if exponent == 0.5 then return make("sqrt", a) end
  if exponent == -1 then return make("div", make(1), a) end
end

function rules.square(make, a) return make("mul", a, a) end
function rules.reciprocal(make, a) return make("div", make(1), a) end

function rules.abs(make, a)
  if negated(a) then return make("abs", a.a) end
  if a.op == "abs" or is_test(a) then return a end
end

function rules.gt(make, a, b) return make("lt", b, a) end
function rules.ge(make, a, b) return make("le", b, a) end
function rules.lt(make, a, b) if same(a, b) then return make(0) end end
function rules.le(make, a, b) if same(a, b) then return make(1) end end

function rules.eq(make, a, b)
  if same(a, b) then return make(1) end
  if is(a, 0) then a, b = b, a end
  if is(b, 0) and is_test(a) then return make("sub", make(1), a) end -- so that a test and its opposite share a value
end

function rules.ne(make, a, b)
  if same(a, b) then return make(0) end
  if is(a, 0) then a, b = b, a end
  if is(b, 0) and is_test(a) then return a end
end

function rules.where(_, condition, x, y)
  local value = constant(condition)
  if value then return number.functions.where(value, x, y) end
  if same(x, y) then return x end
end

function rules.maximum(_, a, b) if same(a, b) then return a end end
rules.minimum = rules.maximum

return rules
