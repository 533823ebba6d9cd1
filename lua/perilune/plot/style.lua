-- What figures look like, however they are drawn: colours, which points are marked and which labels are written.
local style = {}

-- Okabe and Ito's palette, distinct for the colour-blind, with a grey for its yellow, which white paper swallows. One
-- more than there are markers, so that a curve with the colour of an earlier one has another marker.
style.colours = { "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#888888" }

-- Text and axes.
style.ink = "#333333"

-- Curves of so many points at most carry markers, so that single measurements can be seen.
style.marked_max = 40

--- The i-th item of a list that begins again at its end.
function style.cycle(list, i)
  return list[(i - 1) % #list + 1]
end

--- The colour of the i-th series.
function style.colour_of(series, i) return style.cycle(style.colours, series.colour or i) end

--- A value of an axis, NaN where a logarithmic axis has no place for it.
function style.placed(value, logarithm)
  return logarithm and value <= 0 and 0 / 0 or value
end

--- The places among 1 .. count whose labels are written, 24 at most.
function style.labelled(count)
  local places = {}
  for i = 1, count, math.max(1, (count + 23) // 24) do places[#places + 1] = i end
  return places
end

-- The multiple of 1, 2 or 5 by which an axis of this length has three to eight labels.
local function step_of(length)
  local power = 10 ^ math.floor(math.log(length / 3, 10))
  local count = length / 3 / power
  return power * (count < 2 and 1 or count < 5 and 2 or 5)
end

--- Where an axis of logarithms to the base 10 from low to high has its labels, or nil where two powers of ten or more
-- lie on it, which are enough. The first and the last may lie just outside.
function style.log_labels(low, high)
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

return style
