-- What operators and relations say of the numbers they join: each function here returns a rule of a model. Where all
-- operands have one value, so has the result: a rule of bounds must not leave more. Rules of divisors may know less.
--
-- A rule must not assume that what it narrowed is narrow: where that failed, bounds stay as they were.

local model = require "perilune.constrint.model"

local gcd <const> = model.gcd

local rules = {}

local function fits(reach) return reach < 0x1p60 end -- a float

-- ---- operators ------------------------------------------------------------------------------------------------------

--- z = constant + the sum of factors[k] * terms[k]
function rules.sum(m, z, constant, factors, terms)
  local lo, hi, bound, count = m.lo, m.hi, m.bound, #terms
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
    if least > lo[z] or most < hi[z] then bound(z, least, most) end
    -- How far each factor * x may rise above its least, and stay below its most, for z to stay within its bounds.
    local above, below, settled = hi[z] - least, most - lo[z], true
    for k = 1, count do
      local factor, x = factors[k], terms[k]
      local size = factor > 0 and factor or -factor
      local span = size * (hi[x] - lo[x])
      if span > above or span > below then
        local up, down = above // size, below // size
        if factor < 0 then up, down = down, up end
        bound(x, hi[x] - down, lo[x] + up)
        settled = false
      end
    end
    return settled
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

-- x * y = z, where y is not 0, says of x that it lies between z's bounds divided by y's.
local function divide(m, x, y, z)
  local a, b, c, d = m.lo[z], m.hi[z], m.lo[y], m.hi[y]
  m.raise(x, math.min(-(-a // c), -(-a // d), -(-b // c), -(-b // d)))
  m.lower(x, math.max(a // c, a // d, b // c, b // d))
end

--- z = x * y, where either may be negative
function rules.signed_product(m, z, x, y)
  local lo, hi = m.lo, m.hi
  return function()
    local a, b, c, d = lo[x], hi[x], lo[y], hi[y]
    m.bound(z, math.min(a * c, a * d, b * c, b * d), math.max(a * c, a * d, b * c, b * d))
    if lo[z] > 0 or hi[z] < 0 then
      m.remove(x, 0)
      m.remove(y, 0)
    end
    if lo[y] > 0 or hi[y] < 0 then divide(m, x, y, z) end
    if lo[x] > 0 or hi[x] < 0 then divide(m, y, x, z) end
  end
end

--- z = the product of terms, none of which can be negative
function rules.product(m, z, terms)
  local lo, hi, raise, lower, bound, count = m.lo, m.hi, m.raise, m.lower, m.bound, #terms
  return function()
    local rest, most, zeros = 1, 1, 0 -- rest: the least product of what cannot be 0
    for k = 1, count do
      local x = terms[k]
      local least_x = lo[x]
      if least_x == 0 then zeros = zeros + 1 else rest = rest * least_x end
      most = most * hi[x]
    end
    local least = zeros == 0 and rest or 0
    if least > lo[z] or most < hi[z] then bound(z, least, most) end
    local low, high, settled = lo[z], hi[z], true
    if least < low and most > 0 then
      for k = 1, count do
        local x = terms[k]
        local others = most // hi[x]
        if others * lo[x] < low then
          raise(x, -(-low // others))
          settled = false
        end
      end
      if not settled then return false end
    end
    if most > high and zeros <= 1 then
      for k = 1, count do
        local x = terms[k]
        local least_x = lo[x]
        if least_x == 0 or zeros == 0 then
          local others = least_x == 0 and rest or rest // least_x
          if others * hi[x] > high then
            lower(x, high // others)
            settled = false
          end
        end
      end
    end
    return settled
  end
end

--- z = the product of terms
function rules.product_divisors(m, z, terms)
  local step_of, whole_of, multiple, divisor, count = m.step_of, m.whole_of, m.multiple, m.divisor, #terms
  local steps, wholes = {}, {}
  return function()
    local step, whole, unknown = 1, 1, 0 -- whole: the product of the wholes that are known
    for k = 1, count do
      local step_x, whole_x = step_of(terms[k]), whole_of(terms[k])
      steps[k], wholes[k], step = step_x, whole_x, step * step_x
      if whole_x ~= 0 and fits(1.0 * whole * whole_x) then whole = whole * whole_x else unknown = unknown + 1 end
    end
    if step ~= 1 then multiple(z, step) end
    if unknown == 0 then divisor(z, whole) end
    local step_z, whole_z = step_of(z), whole_of(z)
    if step_z > 1 then -- what the others cannot hold of z's step, a term must
      for k = 1, count do
        local others
        if unknown == 0 then others = whole // wholes[k] elseif unknown == 1 and wholes[k] == 0 then others = whole end
        if others then multiple(terms[k], step_z // gcd(step_z, others)) end
      end
    end
    if whole_z ~= 0 then
      if step == 0 or whole_z % step ~= 0 then return m.fail() end
      for k = 1, count do divisor(terms[k], whole_z // (step // steps[k])) end
    end
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

--- t: x >= least
function rules.order(m, t, x, least)
  local lo, hi = m.lo, m.hi
  return function()
    if lo[t] == 1 then return m.raise(x, least) end
    if hi[t] == 0 then return m.lower(x, least - 1) end
    if lo[x] >= least then return m.raise(t, 1) end
    if hi[x] < least then return m.lower(t, 0) end
  end
end

--- constant + the sum of factors[k] * terms[k] is at least 0: no number stands for the sum
function rules.sum_at_least(m, constant, factors, terms)
  local lo, hi, raise, lower, count = m.lo, m.hi, m.raise, m.lower, #terms
  return function()
    local most = constant
    for k = 1, count do
      local factor, x = factors[k], terms[k]
      most = most + factor * (factor > 0 and hi[x] or lo[x])
    end
    if most < 0 then return m.fail() end
    for k = 1, count do
      local factor, x = factors[k], terms[k]
      if factor > 0 then
        if factor * (hi[x] - lo[x]) > most then raise(x, hi[x] - most // factor) end
      elseif factor * (lo[x] - hi[x]) > most then
        lower(x, lo[x] + most // -factor)
      end
    end
    return true
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
