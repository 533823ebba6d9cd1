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

return style
