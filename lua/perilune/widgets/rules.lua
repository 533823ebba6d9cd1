-- What the traits of one widget owe each other. A rule looks at the state that is to be, and at the set of names that
-- somebody gave; it puts right what follows from them, and returns what is wrong with them, if anything is.
local rules = {}

local function clamp(value, low, high) return math.max(low, math.min(value, high)) end

local function check_bounds(s)
  if s.min > s.max then
    return "min", ("a number of at most max, which is %s"):format(s.max), s.min
  end
end

--- A number stays between its bounds, as ipywidgets keeps it.
function rules.bounded(s)
  local name, expected, got = check_bounds(s)
  if name then return name, expected, got end
  s.value = clamp(s.value, s.min, s.max)
end

--- The bounds of a logarithmic slider are exponents.
function rules.logarithmic(s)
  local name, expected, got = check_bounds(s)
  if name then return name, expected, got end
  if s.base <= 1 then return "base", "a number above 1", s.base end
  s.value = clamp(s.value, s.base ^ s.min, s.base ^ s.max)
end

--- A range lies between its bounds; without one it is their middle half.
function rules.range(s)
  local name, expected, got = check_bounds(s)
  if name then return name, expected, got end
  local quarter = (s.max - s.min) / 4
  if math.type(s.min) == "integer" then quarter = (s.max - s.min) // 4 end
  local low, high = table.unpack(s.value or { s.min + quarter, s.max - quarter })
  if low > high then return "value", "a list of two numbers, the smaller one first", s.value end
  s.value = { clamp(low, s.min, s.max), clamp(high, s.min, s.max) }
end

-- Which option has the value (field 2) or label (field 1).
local function find(options, field, wanted)
  for i, option in ipairs(options) do
    if option[field] == wanted then return i end
  end
end

local function labels(options)
  local list = {}
  for i, option in ipairs(options) do list[i] = option[1] end
  return list
end

local function one_of_labels(options)
  return #options > 0 and "one of the options " .. table.concat(labels(options), ", ") or "nil, as there are no options"
end

--- Index, value and label of a selection tell the same; with new options it is the first of them.
function rules.selection(s, given)
  s._options_labels = labels(s.options)
  if given.value or given.label then
    local name = given.value and "value" or "label"
    s.index = find(s.options, given.value and 2 or 1, s[name])
    if s[name] ~= nil and not s.index then return name, one_of_labels(s.options), s[name] end
  elseif given.index then
    if s.index and not s.options[s.index] then
      return "index", ("a number from 1 to %d"):format(#s.options), s.index
    end
  elseif given.options then
    s.index = #s.options > 0 and 1 or nil
  end
  local option = s.options[s.index] or {}
  s.label, s.value = option[1], option[2]
end

--- The same for several: lists.
function rules.selections(s, given)
  s._options_labels = labels(s.options)
  if given.value or given.label then
    local name = given.value and "value" or "label"
    s.index = {}
    for i, wanted in ipairs(s[name]) do
      s.index[i] = find(s.options, given.value and 2 or 1, wanted)
      if not s.index[i] then return name, "a list of " .. one_of_labels(s.options):gsub("^one ", "some "), wanted end
    end
  elseif given.options and not given.index then
    s.index = {}
  end
  s.label, s.value = {}, {}
  for i, at in ipairs(s.index) do
    local option = s.options[at]
    if not option then return "index", ("numbers from 1 to %d"):format(#s.options), at end
    s.label[i], s.value[i] = option[1], option[2]
  end
end

return rules
