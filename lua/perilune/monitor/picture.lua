-- Draws a monitor's curves as SVG, each in a panel of its own. Without a child process, for it happens while the
-- training runs.
local markup = require "perilune.markup"
local style = require "perilune.plot.style"

local escaped = markup.escaped

local ink <const>, grid <const> = "#333333", "#DDDDDD"
local letter_px <const> = 11

-- Pixels of one panel, with the margins round its frame.
local panel <const> = { width = 360, height = 200, left = 58, right = 24, top = 26, bottom = 24 }

local function number(x) return ("%.6g"):format(x) end -- steps stay whole, round numbers are short anyway

-- Round numbers from low to high, about `count` of them.
local function round_numbers(low, high, count)
  local rough = (high - low) / count
  local power = 10 ^ math.floor(math.log(rough, 10))
  local step = power
  for _, factor in ipairs { 2, 5, 10 } do
    if step < rough then step = power * factor end
  end
  local numbers = {}
  for i = math.ceil(low / step), math.floor(high / step) do numbers[#numbers + 1] = i * step end
  return numbers
end

-- Powers of ten from low to high, or round numbers where there are not two of them.
local function powers(low, high, count)
  local first, last = math.ceil(math.log(low, 10) - 1e-9), math.floor(math.log(high, 10) + 1e-9)
  if last <= first then return round_numbers(low, high, count) end
  local numbers = {}
  for exponent = first, last, math.max(1, (last - first) // count) do numbers[#numbers + 1] = 10.0 ^ exponent end
  return numbers
end

local smallest <const> = 1e-300 -- value on a logarithmic axis, and length of an axis: a tenth of it is a number as well

-- An axis from low to high over the pixels from .. to: its numbers, and a function from values to pixels.
local function new_axis(low, high, from, to, logarithmic, count)
  if high - low < smallest then
    if logarithmic then
      low, high = low / 2, high * 2
    else
      local room = math.abs(low) > smallest and math.abs(low) / 10 or 1
      low, high = low - room, high + room
    end
  end
  local place = logarithmic and math.log or function(value) return value end
  local bottom, scale = place(low), (to - from) / (place(high) - place(low))
  return {
    numbers = (logarithmic and powers or round_numbers)(low, high, count),
    at = function(value) return from + (place(value) - bottom) * scale end,
  }
end

-- The pieces between gaps, lists of points that can be drawn.
local function pieces_of(curve, logarithmic)
  local pieces, piece = {}, nil
  curve:each(function(point)
    if not point or logarithmic and point.low < smallest then
      piece = nil
    else
      if not piece then
        piece = {}
        pieces[#pieces + 1] = piece
      end
      piece[#piece + 1] = point
    end
  end)
  return pieces
end

-- Least and greatest of the points' fields `low` and `high`; nil when there are no points.
local function range_of(pieces, low, high)
  local least, greatest = math.huge, -math.huge
  for _, piece in ipairs(pieces) do
    for _, point in ipairs(piece) do
      least, greatest = math.min(least, point[low]), math.max(greatest, point[high])
    end
  end
  if least <= greatest then return least, greatest end
end

local function path_of(points, x, y, field)
  local words = {}
  for i, point in ipairs(points) do words[i] = ("%.1f,%.1f"):format(x.at(point.x), y.at(point[field])) end
  return words
end

local function add_text(out, x, y, anchor, text, extra)
  out[#out + 1] = ('<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>'):format(x, y, anchor, extra or "",
    escaped(text))
end

local function add_axes(out, x, y, left, top, right, bottom)
  for _, value in ipairs(y.numbers) do
    local at = y.at(value)
    out[#out + 1] = ('<path d="M%.1f,%.1fH%.1f" stroke="%s"/>'):format(left, at, right, grid)
    add_text(out, left - 5, at + 4, "end", number(value))
  end
  for _, value in ipairs(x.numbers) do add_text(out, x.at(value), bottom + 15, "middle", number(value)) end
  out[#out + 1] = ('<path d="M%.1f,%.1fV%.1fH%.1f" fill="none" stroke="%s"/>'):format(left, top, bottom, right, ink)
end

local function add_curve(out, pieces, x, y, colour, joined)
  for _, piece in ipairs(pieces) do
    local line = path_of(piece, x, y, "y")
    if joined then
      local band, low = path_of(piece, x, y, "high"), path_of(piece, x, y, "low")
      for i = #low, 1, -1 do band[#band + 1] = low[i] end
      out[#out + 1] = ('<polygon points="%s" fill="%s" fill-opacity="0.2"/>'):format(table.concat(band, " "), colour)
    end
    if #line == 1 then
      local cx, cy = line[1]:match "(.*),(.*)"
      out[#out + 1] = ('<circle cx="%s" cy="%s" r="2" fill="%s"/>'):format(cx, cy, colour)
    else
      out[#out + 1] = ('<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>')
        :format(table.concat(line, " "), colour)
    end
  end
end

-- The curve with its name and last value; first and last are the ends of the x axis.
local function add_panel(out, name, curve, pieces, colour, column, row, first, last, logarithmic)
  local left, top = column * panel.width + panel.left, row * panel.height + panel.top
  local right, bottom = (column + 1) * panel.width - panel.right, (row + 1) * panel.height - panel.bottom
  add_text(out, left, top - 9, "start", name, (' font-weight="bold" fill="%s"'):format(colour))
  add_text(out, right, top - 9, "end", curve:last_text())
  local low, high = range_of(pieces, "low", "high")
  if not low then return add_text(out, (left + right) / 2, (top + bottom) / 2, "middle", "nothing to draw") end
  local x, y = new_axis(first, last, left, right, false, 5), new_axis(low, high, bottom, top, logarithmic, 5)
  add_axes(out, x, y, left, top, right, bottom)
  add_curve(out, pieces, x, y, colour, curve.stride > 1)
end

--- The curves as the text of an SVG document: `names` in their order, `curves` by name, and whether their y axes are
-- logarithmic, where points that are not above 0 are gaps.
return function(names, curves, logarithmic)
  local columns, rows = math.min(#names, 2), (#names + 1) // 2
  local width, height = columns * panel.width, rows * panel.height
  local out = { ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
    .. 'font-family="DejaVu Sans,Helvetica,Arial,sans-serif" font-size="%d" fill="%s">')
    :format(width, height, width, height, letter_px, ink),
    ('<rect width="%d" height="%d" fill="#ffffff"/>'):format(width, height) }
  local pieces, all = {}, {}
  for i, name in ipairs(names) do
    pieces[i] = pieces_of(curves[name], logarithmic)
    table.move(pieces[i], 1, #pieces[i], #all + 1, all)
  end
  local first, last = range_of(all, "x", "x")
  for i, name in ipairs(names) do
    add_panel(out, name, curves[name], pieces[i], style.cycle(style.colours, i), (i - 1) % 2, (i - 1) // 2, first, last,
      logarithmic)
  end
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end
