-- What operators and relations say of the numbers they join: each function here returns a rule of a model. Where all
-- operands have one value, so has the result: a rule of bounds must not leave more. Rules of divisors may know less.
--
-- A rule must not assume that what it narrowed is narrow: where that failed, bounds stay as they were.

local model = require "perilune.constrint.model"

local gcd <const> = model.gcd

local rules = {}

-- ---- operators ------------------------------------------------------------------------------------------------------

--- z = constant + the sum of factors[k] * terms[k]
function rules.sum(m, z, constant, factors, terms)
  local lo, hi, raise, lower, count = m.lo, m.hi, m.raise, m.lower, #terms
  return function()
    local least, most = constant, constant
    for k = 1, count do
      local factor, x = factors[k], terms[k]
      if factor > 0 then
        least, most = least + factor * lo[x], most + factor * hi[x]
      else
        least, most = least + factor * hi[x], most + factor * lo[x]
      end
    end
    raise(z, least)
    lower(z, most)
    -- How far each factor * x may rise above its least, and stay below its most, for z to stay within its bounds.
    local above, below = hi[z] - least, most - lo[z]
    for k = 1, count do
      local factor, x = factors[k], terms[k]
      local size = factor > 0 and factor or -factor
      local span = size * (hi[x] - lo[x])
      if span > above or span > below then
        local up, down = above // size, below // size
        if factor < 0 then up, down = down, up end
        local least_x, most_x = lo[x], hi[x]
        lower(x, least_x + up)
        raise(x, most_x - down)
      end
    end
  end
end

function rules.sum_divisors(m, z, constant, factors, terms)
  local count, step_of, whole_of = #terms, m.step_of, m.whole_of
  -- What divides the constant, `start`, and every term but the one left out.
  local function common(start, left_out)
    local divisor = gcd(constant, start)
    for k = 1, count do
      if divisor == 1 then return 1 end
      if k ~= left_out then divisor = gcd(factors[k] * step_of(terms[k]), divisor) end
    end
    return divisor
  end
  return function()
    local divisor = common(0, 0)
    if divisor > 1 then m.multiple(z, divisor) end
    local step = step_of(z)
    for k = 1, count do
      divisor = common(step, k)
      if divisor > 1 then m.multiple(terms[k], divisor // gcd(divisor, factors[k])) end
    end
    if count == 1 and constant == 0 then
      local factor, whole, part = math.abs(factors[1]), whole_of(z), whole_of(terms[1])
      if whole ~= 0 then
        if whole % factor ~= 0 then return m.fail() end
        m.divisor(terms[1], whole // factor)
      end
      if part ~= 0 then m.divisor(z, part * factor) end
    end
  end
end

local function least_and_most(a, b, c, d) return math.min(a, b, c, d), math.max(a, b, c, d) end

-- x * y = z, where y is not 0, says of x that it lies between z's bounds divided by y's.
local function divide(m, x, y, z)
  local a, b, c, d = m.lo[z], m.hi[z], m.lo[y], m.hi[y]
  m.raise(x, math.min(-(-a // c), -(-a // d), -(-b // c), -(-b // d)))
  m.lower(x, math.max(a // c, a // d, b // c, b // d))
end

-- z = x * y where an operand may be negative.
local function signed_product(m, z, x, y)
  local lo, hi = m.lo, m.hi
  local a, b, c, d = lo[x], hi[x], lo[y], hi[y]
  local least, most = least_and_most(a * c, a * d, b * c, b * d)
  m.raise(z, least)
  m.lower(z, most)
  if lo[z] > 0 or hi[z] < 0 then
    m.remove(x, 0)
    m.remove(y, 0)
  end
  if lo[y] > 0 or hi[y] < 0 then divide(m, x, y, z) end
  if lo[x] > 0 or hi[x] < 0 then divide(m, y, x, z) end
end

--- z = x * y
function rules.product(m, z, x, y)
  local lo, hi, raise, lower = m.lo, m.hi, m.raise, m.lower
  return function()
    local a, b, c, d = lo[x], hi[x], lo[y], hi[y]
    if a < 0 or c < 0 then return signed_product(m, z, x, y) end
    local least, most = a * c, b * d
    if least > lo[z] then raise(z, least) end
    if most < hi[z] then lower(z, most) end
    local low, high = lo[z], hi[z]
    if least < low and b > 0 and d > 0 then
      if a * d < low then raise(x, -(-low // d)) end
      if c * b < low then raise(y, -(-low // b)) end
    end
    if most > high then
      if c > 0 and b * c > high then lower(x, high // c) end
      if a > 0 and d * a > high then lower(y, high // a) end
    end
  end
end

function rules.product_divisors(m, z, x, y)
  local step_of, whole_of, multiple, divisor = m.step_of, m.whole_of, m.multiple, m.divisor
  return function()
    local step_x, step_y = step_of(x), step_of(y)
    if step_x ~= 1 or step_y ~= 1 then multiple(z, step_x * step_y) end
    -- What x cannot hold of z's step, y must: x holds at most what its whole holds.
    local step, whole_x, whole_y = step_of(z), whole_of(x), whole_of(y)
    if step > 1 then
      if whole_x ~= 0 then multiple(y, step // gcd(step, whole_x)) end
      if whole_y ~= 0 then multiple(x, step // gcd(step, whole_y)) end
    end
    local whole = whole_of(z)
    if whole ~= 0 then -- so neither x nor y is 0
      if step_x == 0 or step_y == 0 or whole % step_x ~= 0 or whole % step_y ~= 0 then return m.fail() end
      divisor(x, whole // step_y)
      divisor(y, whole // step_x)
    end
    if whole_x ~= 0 and whole_y ~= 0 and 1.0 * whole_x * whole_y < 0x1p60 then divisor(z, whole_x * whole_y) end
  end
end

-- The least x of least..most with f(x) >= bound, where f grows and f(most) >= bound.
local function least_with(f, least, most, bound)
  while least < most do
    local middle = least + (most - least) // 2
    if f(middle) >= bound then most = middle else least = middle + 1 end
  end
  return least
end

--- z = f(x), where f grows with x.
function rules.growing(m, z, x, f)
  local lo, hi = m.lo, m.hi
  return function()
    local least, most = f(lo[x]), f(hi[x])
    m.raise(z, least)
    m.lower(z, most)
    if lo[z] > least and lo[z] <= most then m.raise(x, least_with(f, lo[x], hi[x], lo[z])) end
    if hi[z] < most and hi[z] >= least then m.lower(x, least_with(f, lo[x], hi[x], hi[z] + 1) - 1) end
  end
end

local function fits(reach) return reach < 0x1p60 end -- a float

local function power(base, exponent)
  local result = 1
  for _ = 1, exponent do result = result * base end
  return result
end

--- z = x^exponent
function rules.power_divisors(m, z, x, exponent)
  return function()
    local step, whole, part = m.step_of(x), m.whole_of(z), m.whole_of(x)
    if step > 1 and fits(1.0 * step ^ exponent) then m.multiple(z, power(step, exponent)) end
    if whole ~= 0 then m.divisor(x, whole) end
    if part > 1 and fits(1.0 * part ^ exponent) then m.divisor(z, power(part, exponent)) end
  end
end

--- z = base^x
function rules.exponential_divisors(m, z, x, base)
  return function()
    m.multiple(z, power(base, m.lo[x]))
    m.divisor(z, power(base, m.hi[x]))
  end
end

--- z = x // y, rounded down; y > 0
function rules.quotient(m, z, x, y)
  local lo, hi, raise, lower = m.lo, m.hi, m.raise, m.lower
  return function()
    local a, b, c, d = lo[x], hi[x], lo[y], hi[y]
    raise(z, a // (a < 0 and c or d))
    lower(z, b // (b < 0 and d or c))
    -- z * y <= x < (z + 1) * y
    local low, above = lo[z], hi[z] + 1
    raise(x, low * (low < 0 and d or c))
    lower(x, above * (above < 0 and c or d) - 1)
    if low > 0 then lower(y, hi[x] // low) end
    if above > 0 and lo[x] > 0 then raise(y, lo[x] // above + 1) end
  end
end

function rules.quotient_divisors(m, z, x, y)
  return function()
    local divisor = m.lo[y]
    if divisor == m.hi[y] and m.step_of(x) % divisor == 0 then m.multiple(z, m.step_of(x) // divisor) end
  end
end

--- z = x % y; y > 0
function rules.modulo(m, z, x, y)
  local lo, hi, raise, lower = m.lo, m.hi, m.raise, m.lower
  return function()
    local a, b, c, d = lo[x], hi[x], lo[y], hi[y]
    raise(z, 0)
    lower(z, d - 1)
    if a >= 0 then lower(z, b) end
    raise(y, lo[z] + 1)
    if c ~= d then
      if a >= 0 and b < c then raise(z, a) end
      return
    end
    if a // c == b // c then
      raise(z, a % c)
      lower(z, b % c)
    end
    if lo[z] == hi[z] then
      raise(x, a + (lo[z] - a) % c)
      lower(x, b - (b - lo[z]) % c)
    end
  end
end

function rules.modulo_divisors(m, z, x, y)
  return function()
    local divisor = gcd(m.step_of(x), m.step_of(y))
    if divisor > 1 then m.multiple(z, divisor) end
    if m.hi[z] == 0 then m.multiple(x, m.step_of(y)) end
    local common = gcd(m.step_of(z), m.step_of(y))
    if common > 1 then m.multiple(x, common) end
  end
end

--- z = the larger of x and y
function rules.max(m, z, x, y)
  local lo, hi, raise, lower = m.lo, m.hi, m.raise, m.lower
  return function()
    raise(z, math.max(lo[x], lo[y]))
    lower(z, math.max(hi[x], hi[y]))
    lower(x, hi[z])
    lower(y, hi[z])
    if hi[x] < lo[z] then raise(y, lo[z]) end
    if hi[y] < lo[z] then raise(x, lo[z]) end
  end
end

-- Makes two numbers equal.
local function unite(m, x, y)
  local lo, hi = m.lo, m.hi
  m.raise(x, lo[y])
  m.raise(y, lo[x])
  m.lower(x, hi[y])
  m.lower(y, hi[x])
end

local function unite_divisors(m, x, y)
  local step_x, step_y, whole_x, whole_y = m.step_of(x), m.step_of(y), m.whole_of(x), m.whole_of(y)
  if step_y ~= 1 then m.multiple(x, step_y) end
  if step_x ~= 1 then m.multiple(y, step_x) end
  if whole_y ~= 0 then m.divisor(x, whole_y) end
  if whole_x ~= 0 then m.divisor(y, whole_x) end
end

local function apart(m, x, y) return m.hi[x] < m.lo[y] or m.hi[y] < m.lo[x] end

--- z = x where t is 1, y where t is 0
function rules.when(m, z, t, x, y)
  local lo, hi = m.lo, m.hi
  return function()
    if lo[t] == 1 then return unite(m, z, x) end
    if hi[t] == 0 then return unite(m, z, y) end
    m.raise(z, math.min(lo[x], lo[y]))
    m.lower(z, math.max(hi[x], hi[y]))
    if apart(m, z, x) then m.lower(t, 0) end
    if apart(m, z, y) then m.raise(t, 1) end
  end
end

function rules.when_divisors(m, z, t, x, y)
  return function()
    if m.lo[t] == 1 then return unite_divisors(m, z, x) end
    if m.hi[t] == 0 then return unite_divisors(m, z, y) end
    local divisor = gcd(m.step_of(x), m.step_of(y))
    if divisor > 1 then m.multiple(z, divisor) end
  end
end

-- ---- relations: t is 1 where they hold and 0 where they do not ------------------------------------------------------

--- t: x + offset <= y
function rules.order(m, t, x, y, offset)
  local lo, hi, raise, lower = m.lo, m.hi, m.raise, m.lower
  return function()
    if lo[t] == 1 then
      if lo[x] + offset > lo[y] then raise(y, lo[x] + offset) end
      if hi[y] - offset < hi[x] then lower(x, hi[y] - offset) end
    elseif hi[t] == 0 then
      raise(x, lo[y] + 1 - offset)
      lower(y, hi[x] - 1 + offset)
    elseif hi[x] + offset <= lo[y] then
      raise(t, 1)
    elseif lo[x] + offset > hi[y] then
      lower(t, 0)
    end
  end
end

-- What is known of t as a relation that may be meant to hold (sense 1) or not (sense 0): true, false, or nil.
local function known(m, t, sense)
  local truth = m.lo[t]
  if truth ~= m.hi[t] then return nil end
  return truth == sense
end

--- t: x is y (sense 1), or is not (sense 0)
function rules.equal(m, t, x, y, sense)
  local lo, hi = m.lo, m.hi
  return function()
    local same = known(m, t, sense)
    if same then return unite(m, x, y) end
    if same == false then
      if lo[x] == hi[x] then m.remove(y, lo[x]) end
      if lo[y] == hi[y] then m.remove(x, lo[y]) end
    elseif apart(m, x, y) then
      m.fix(t, 1 - sense)
    elseif lo[x] == hi[x] and lo[y] == hi[y] then
      m.fix(t, sense)
    end
  end
end

function rules.equal_divisors(m, t, x, y, sense)
  return function()
    if known(m, t, sense) then unite_divisors(m, x, y) end
  end
end

-- Whether x divides y, as far as known.
local function divided(m, x, y)
  local lo, hi = m.lo, m.hi
  if lo[y] == hi[y] and lo[y] == 0 then return true end
  if lo[x] ~= hi[x] then return nil end
  local divisor = lo[x]
  if divisor == 0 then
    if lo[y] > 0 or hi[y] < 0 then return false end
    return nil
  end
  if m.step_of(y) % divisor == 0 then return true end
  if lo[y] + -lo[y] % math.abs(divisor) > hi[y] then return false end
  return nil
end

--- t: x divides y (sense 1), or does not (sense 0)
function rules.divides(m, t, x, y, sense)
  local lo, hi = m.lo, m.hi
  return function()
    local divides = known(m, t, sense)
    if divides then
      if lo[y] > 0 or hi[y] < 0 then
        local most = math.max(-lo[y], hi[y])
        m.raise(x, -most)
        m.lower(x, most)
        m.remove(x, 0)
        if m.whole_of(y) ~= 0 then m.divisor(x, m.whole_of(y)) end
      end
      if m.step_of(x) ~= 1 then m.multiple(y, m.step_of(x)) end
      return
    end
    local is = divided(m, x, y)
    if divides == false then
      if is then return m.fail() end
      m.remove(y, 0) -- which everything divides
    elseif is ~= nil then
      m.fix(t, is and sense or 1 - sense)
    end
  end
end

--- t: as `sense` as soon as one of `parts` is
function rules.join(m, t, parts, sense)
  local lo, hi, count = m.lo, m.hi, #parts
  return function()
    local open, number = nil, 0
    for k = 1, count do
      local part = parts[k]
      if lo[part] ~= hi[part] then
        open, number = part, number + 1
      elseif lo[part] == sense then
        return m.fix(t, sense)
      end
    end
    if number == 0 then return m.fix(t, 1 - sense) end
    if lo[t] ~= hi[t] then return end
    if lo[t] ~= sense then
      for k = 1, count do m.fix(parts[k], 1 - sense) end
    elseif number == 1 then
      m.fix(open, sense)
    end
  end
end

return rules
