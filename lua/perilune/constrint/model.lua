-- What a solver knows of numbers while it works. A number is an index; of each the model holds least and most values, a
-- step that divides it, a whole that it divides, and of small ones the list of the values that are left. Rules narrow
-- numbers, and wake the rules that watch what they narrowed; a trail takes everything back.

local expression = require "perilune.constrint.expression"

local limit <const> = expression.limit

local model = {}

local function gcd(a, b)
  while b ~= 0 do a, b = b, a % b end
  return a < 0 and -a or a
end
model.gcd = gcd

--- An empty model. Its arrays may be read by everyone, and are written here only.
function model.new()
  local lo, hi = {}, {}       -- bounds, never crossed: what would cross them is a failure instead
  local step, whole = {}, {}  -- at least 1; 0 where nothing is known to be divided
  -- Lists, ascending; never changed but replaced. Of one, first[i]..last[i] are left, unless i is settled.
  local values, first, last = {}, {}, {}
  local on_bounds, on_divisors = {}, {}  -- the rules to wake
  local rules, awake, queue, head, tail = {}, {}, {}, 1, 0
  local trail, top = {}, 0
  local failed = false
  local m = { lo = lo, hi = hi, values = values, first = first, last = last, count = 0, unfinished = false }

  local function save(array, i)
    trail[top + 1], trail[top + 2], trail[top + 3] = array, i, array[i]
    top = top + 3
  end

  local function wake(list)
    for k = 1, #list do
      local rule = list[k]
      if not awake[rule] then
        awake[rule] = true
        tail = tail + 1
        queue[tail] = rule
      end
    end
  end

  local function fail() failed = true end
  m.fail = fail

  -- A new number between two bounds, or among ascending values.
  function m.new(least, most, list)
    local i = m.count + 1
    m.count = i
    lo[i], hi[i], step[i], whole[i], on_bounds[i], on_divisors[i] = least, most, 1, 0, {}, {}
    if list then
      values[i], first[i], last[i] = list, 1, #list
    else
      values[i], first[i], last[i] = false, 0, 0
    end
    return i
  end

  --- Adds a rule, a function that narrows numbers as others have been narrowed, and runs it once. It runs again when
  -- one of `numbers` has been narrowed; with `divisors`, when a step or whole of theirs has. A rule that narrowed
  -- something runs again, too, unless it returned true.
  function m.rule(run, numbers, divisors)
    local rule, watchers = #rules + 1, divisors and on_divisors or on_bounds
    rules[rule] = run
    for _, i in ipairs(numbers) do
      local list = watchers[i]
      if list[#list] ~= rule then list[#list + 1] = rule end
    end
    awake[rule] = true
    tail = tail + 1
    queue[tail] = rule
    run()
  end

  -- ---- narrowing ----------------------------------------------------------------------------------------------------

  --- i is at least `bound`.
  local function raise(i, bound)
    if bound <= lo[i] then return end
    if bound > hi[i] then return fail() end
    local list = values[i]
    if list then
      local k = first[i] + 1
      while list[k] < bound do k = k + 1 end
      save(first, i)
      first[i], bound = k, list[k]
    else
      bound = bound + -bound % step[i]
      if bound > hi[i] then return fail() end
    end
    save(lo, i)
    lo[i] = bound
    wake(on_bounds[i])
    if bound == hi[i] then wake(on_divisors[i]) end
  end
  m.raise = raise

  --- i is at most `bound`.
  local function lower(i, bound)
    if bound >= hi[i] then return end
    if bound < lo[i] then return fail() end
    local list = values[i]
    if list then
      local k = last[i] - 1
      while list[k] > bound do k = k - 1 end
      save(last, i)
      last[i], bound = k, list[k]
    else
      bound = bound - bound % step[i]
      if bound < lo[i] then return fail() end
    end
    save(hi, i)
    hi[i] = bound
    wake(on_bounds[i])
    if bound == lo[i] then wake(on_divisors[i]) end
  end
  m.lower = lower

  --- i is at least `least` and at most `most`.
  local function bound(i, least, most)
    if values[i] or step[i] ~= 1 or least <= lo[i] or most >= hi[i] then
      raise(i, least)
      return lower(i, most)
    end
    if least > most or least > hi[i] or most < lo[i] then return fail() end
    local at = top
    trail[at + 1], trail[at + 2], trail[at + 3] = lo, i, lo[i]
    trail[at + 4], trail[at + 5], trail[at + 6] = hi, i, hi[i]
    top = at + 6
    lo[i], hi[i] = least, most
    wake(on_bounds[i])
    if least == most then wake(on_divisors[i]) end
  end
  m.bound = bound

  --- Of the list of i, only values with test(value) are left.
  local function keep(i, test)
    if lo[i] == hi[i] then
      if not test(lo[i]) then fail() end
      return
    end
    local list, kept = values[i], {}
    for k = first[i], last[i] do
      local value = list[k]
      if test(value) then kept[#kept + 1] = value end
    end
    local count = #kept
    if count == 0 then return fail() end
    if count > last[i] - first[i] then return end
    save(values, i)
    save(first, i)
    save(last, i)
    save(lo, i)
    save(hi, i)
    values[i], first[i], last[i], lo[i], hi[i] = kept, 1, count, kept[1], kept[count]
    wake(on_bounds[i])
    if count == 1 then wake(on_divisors[i]) end
  end
  m.keep = keep

  --- i is not `value`.
  function m.remove(i, value)
    if value == lo[i] then
      raise(i, value + 1)
    elseif value == hi[i] then
      lower(i, value - 1)
    elseif values[i] and value > lo[i] and value < hi[i] then
      keep(i, function(x) return x ~= value end)
    end
  end

  --- i is `value`, one of those that are left.
  function m.settle(i, value)
    if lo[i] == hi[i] then return end
    save(lo, i)
    save(hi, i)
    lo[i], hi[i] = value, value
    wake(on_bounds[i])
    wake(on_divisors[i])
  end

  --- The list of the values that are left.
  function m.left(i)
    if lo[i] == hi[i] then return { lo[i] } end
    return table.move(values[i], first[i], last[i], 1, {})
  end

  function m.contains(i, value)
    if value < lo[i] or value > hi[i] then return false end
    local list = values[i]
    if not list or lo[i] == hi[i] then return value % step[i] == 0 end
    local from, to = first[i], last[i]
    while from < to do
      local k = (from + to) // 2
      if list[k] < value then from = k + 1 else to = k end
    end
    return list[from] == value
  end

  function m.fix(i, value)
    if m.contains(i, value) then m.settle(i, value) else fail() end
  end

  --- The largest number known to divide i; 0 when i is 0.
  function m.step_of(i)
    local value = lo[i]
    if value ~= hi[i] then return step[i] end
    return value < 0 and -value or value
  end

  --- A number that i is known to divide; 0 when none is.
  function m.whole_of(i)
    local value = lo[i]
    if value ~= hi[i] then return whole[i] end
    return value < 0 and -value or value
  end

  -- Brings bounds or the list of i in line with its step and whole.
  local function sift(i)
    local s, w = step[i], whole[i]
    if values[i] then
      return keep(i, function(x) return x % s == 0 and (w == 0 or x ~= 0 and w % x == 0) end)
    end
    local least, most = lo[i], hi[i]
    if w ~= 0 then
      if w % s ~= 0 then return fail() end
      if least < -w then least = -w elseif least == 0 then least = 1 end
      if most > w then most = w elseif most == 0 then most = -1 end
    end
    raise(i, least + -least % s)
    lower(i, most - most % s)
  end

  --- i is a multiple of s.
  function m.multiple(i, s)
    if s == 0 then
      raise(i, 0)
      return lower(i, 0)
    end
    local value = lo[i]
    if value == hi[i] then
      if value % s ~= 0 then fail() end
      return
    end
    local old = step[i]
    local factor = s // gcd(old, s)
    if factor == 1 then return end
    if factor > limit // old then -- only 0 is a multiple of both
      raise(i, 0)
      return lower(i, 0)
    end
    save(step, i)
    step[i] = old * factor
    sift(i)
    wake(on_divisors[i])
  end

  --- i divides w, which is not 0.
  function m.divisor(i, w)
    local value = lo[i]
    if value == hi[i] then
      if value == 0 or w % value ~= 0 then fail() end
      return
    end
    local old = whole[i]
    w = gcd(old, w)
    if w == old then return end
    save(whole, i)
    whole[i] = w
    sift(i)
    wake(on_divisors[i])
  end

  --- visit(), where i is `value` and test() is true; no rule takes notice of the value. Otherwise false.
  function m.peek(i, value, test, visit)
    local least, most = lo[i], hi[i]
    lo[i], hi[i] = value, value
    local result = test() and visit()
    lo[i], hi[i] = least, most
    return result
  end

  -- ---- working ------------------------------------------------------------------------------------------------------

  --- Runs rules until none has more to say; false when a number is left without values, or was before. Where two rules
  -- take turns for too long (x < y and y < x do, a step each time) they are stopped, and m.unfinished is true from then
  -- on: what they would have found is for others to find.
  function m.propagate()
    local most = 1000 + 20 * #rules
    while head <= tail and not failed do
      if head > most then
        m.unfinished = true
        break
      end
      local rule, before = queue[head], top
      local settled = rules[rule]()
      if top == before or settled then
        awake[rule] = false
      else
        tail = tail + 1
        queue[tail] = rule
      end
      head = head + 1
    end
    for k = head, tail do awake[queue[k]] = false end
    head, tail = 1, 0
    local ok = not failed
    failed = false
    return ok
  end

  --- A mark to undo to: everything that is narrowed from here on.
  function m.mark() return top end

  function m.undo(mark)
    for k = top - 2, mark + 1, -3 do trail[k][trail[k + 1]] = trail[k + 2] end
    top = mark
  end

  return m
end

return model
