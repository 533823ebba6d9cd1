-- How logarithmic axes to the base 10 are divided. gnuplot labels the powers of ten and marks what lies between: too
-- little where the axis is so short that one power is on it or none, and a black bar where there are many.
local read = require "perilune.plot.read"

-- The multiple of 1, 2 or 5 by which an axis of this length has three to eight labels.
local function step_of(length)
  local power = 10 ^ math.floor(math.log(length / 3, 10))
  local count = length / 3 / power
  return power * (count < 2 and 1 or count < 5 and 2 or 5)
end

-- Where an axis of logarithms to the base 10 from low to high has its labels, or nil where two powers of ten or more
-- lie on it, which are enough. The first and the last may lie just outside.
local function labels_between(low, high)
  local first, last = math.log(low, 10), math.log(high, 10)
  if math.floor(last) > math.ceil(first) then return nil end
  local places = {}
  if high < 8 * low then
    local step = step_of(math.max(high - low, low / 10))
    for k = math.floor(low / step), math.ceil(high / step) do places[#places + 1] = k * step end
  else
    for power = math.floor(first), math.floor(last) do
      for _, digit in ipairs { 1, 2, 5 } do places[#places + 1] = digit * 10.0 ^ power end
    end
  end
  return places
end

-- The lowest and the highest value of an axis: of its range where one is given, else of the data.
local function extent(axis, options, columns, blocks)
  local low, high = math.huge, -math.huge
  for _, rows in ipairs(blocks) do
    for _, row in ipairs(rows) do
      for c, name in ipairs(columns) do
        local here = read.finite(row[c]) and (name == "x") == (axis == "x")
        if here then low, high = math.min(low, row[c]), math.max(high, row[c]) end
      end
    end
  end
  local limits = options[axis .. "range"] or {}
  return limits[1] or low, limits[2] or high
end

--- What gnuplot is told of the axes of a figure with these options, whose blocks of rows have these columns ("x", and
-- others along the other axis).
return function(options, columns, blocks)
  local lines = {}
  for _, axis in ipairs { "x", "y" } do
    local base = options["log" .. axis]
    local low, high = extent(axis, options, columns, blocks)
    if (base == true or base == 10) and low <= high then
      local places = labels_between(low, high)
      for i, place in ipairs(places or {}) do places[i] = ("%.10g"):format(place) end
      lines[#lines + 1] = places and ("set %stics (%s)"):format(axis, table.concat(places, ", "))
        or high > 1e4 * low and ("unset m%stics"):format(axis) or nil
    end
  end
  return table.concat(lines, "\n")
end
