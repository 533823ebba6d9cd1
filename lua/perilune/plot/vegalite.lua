-- A figure as a Vega-Lite 5 specification, in which notebooks zoom (wheel) and move (drag). It holds its data itself.
local core = require "perilune.core"
local style = require "perilune.plot.style"

local null <const> = core.null
local cycle, placed, colour_of = style.cycle, style.placed, style.colour_of

local dashes <const> = { { 1, 0 }, { 8, 3 }, { 2, 2 }, { 8, 3, 2, 3 }, { 5, 2 } }
local shapes <const> = { "circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right" }
local point_area <const> = 36 -- in square pixels

-- Rows of the columns of a series, for `data`. JSON writes NaN and infinity as null, which is a gap.
local function values_of(options, series, columns)
  local rows = {}
  for i = 1, #series.y do
    local row = {}
    for _, name in ipairs(columns) do row[name] = placed(series[name][i], options[name == "x" and "logx" or "logy"]) end
    rows[i] = row
  end
  return { values = rows }
end

-- The scale of an axis, "x" or "y".
local function scale_of(options, axis)
  local scale, base, limits = { zero = false }, options["log" .. axis], options[axis .. "range"]
  if base then
    scale.type = "log"
    if type(base) == "number" then scale.base = base end
  end
  if limits then
    local low, high = limits[1], limits[2]
    if low and high and low > high then
      low, high, scale.reverse = high, low, true
    end
    scale.domainMin, scale.domainMax = low, high
  else
    scale.padding, scale.nice = 10, false -- pixels round the data
  end
  return scale
end

local function channel(options, axis, field)
  return { field = field or axis, type = "quantitative", title = options[axis .. "label"] or null,
    scale = scale_of(options, axis) }
end

-- Where a legend stands, by the words that gnuplot knows.
local function legend_of(options)
  if options.legend == false then return null end
  local has = {}
  for word in (options.legend or "outside right"):gmatch("%S+") do has[word] = true end
  local vertical, horizontal = has.bottom and "bottom" or "top", has.left and "left" or "right"
  if not has.outside then return { title = null, orient = vertical .. "-" .. horizontal } end
  return { title = null, orient = (has.left or has.right or not has.bottom) and horizontal or vertical }
end

-- The colours of the series by their labels; those without a label are not in the legend.
local function colour_scale(series)
  local domain, range = {}, {}
  for i, one in ipairs(series) do
    if one.label then
      domain[#domain + 1], range[#range + 1] = one.label, colour_of(one, i)
    end
  end
  return { domain = domain, range = range }
end

local function layered(options, series, draw)
  local scale, layers = colour_scale(series), {}
  for i, one in ipairs(series) do
    for _, layer in ipairs(draw(i, one)) do
      layer.encoding.x = channel(options, "x")
      if one.label then
        layer.transform = { { calculate = core.json_encode(one.label), as = "series" } }
        layer.encoding.color = { field = "series", type = "nominal", scale = scale, legend = legend_of(options) }
      else
        layer.mark.color = colour_of(one, i)
        if layer.mark.point then layer.mark.point.color = layer.mark.color end
      end
      layer.mark.clip = true
      layers[#layers + 1] = layer
    end
  end
  layers[1].params = { { name = "zoom", select = "interval", bind = "scales" } } -- all layers share their scales
  return { layer = layers }
end

local function curve(options, i, one, columns)
  local marked = #one.y <= style.marked_max
  return { data = values_of(options, one, columns), encoding = { y = channel(options, "y") },
    mark = { type = "line", strokeWidth = 2, strokeDash = cycle(dashes, one.dash or i), tooltip = true,
             point = marked and { filled = true, size = point_area, shape = cycle(shapes, one.dash or i) } or nil } }
end

local level_max <const> = 90 -- letters that stand side by side below an axis

-- An axis of places 1, 2, .. that are labelled; of many only some are.
local function places(field, labels, title)
  local shown, letters = style.labelled(#labels), 0
  for _, i in ipairs(shown) do letters = letters + #tostring(labels[i]) + 1 end
  return { field = field, type = "ordinal", title = title or null, axis = {
    values = shown, labelExpr = core.json_encode(labels) .. "[datum.value - 1]",
    labelAngle = letters <= level_max and 0 or nil,
  } }
end

-- How each kind is drawn, from the figure's options and data as perilune.plot.read gives them.
local kinds = {}

function kinds.line(options, series)
  return layered(options, series, function(i, one) return { curve(options, i, one, { "x", "y" }) } end)
end

function kinds.scatter(options, series)
  return layered(options, series, function(i, one)
    return { { data = values_of(options, one, { "x", "y" }), encoding = { y = channel(options, "y") },
      mark = { type = "point", filled = true, size = point_area, shape = cycle(shapes, i), tooltip = true } } }
  end)
end

function kinds.band(options, series)
  return layered(options, series, function(i, one)
    local columns <const> = { "x", "y", "low", "high" }
    return {
      { data = values_of(options, one, columns), mark = { type = "area", opacity = 0.2 },
        encoding = { y = channel(options, "y", "low"), y2 = { field = "high" } } },
      curve(options, i, one, columns),
    }
  end)
end

function kinds.bar(options, series)
  local rows, names, range, labelled = {}, {}, {}, false
  for i, one in ipairs(series) do
    names[i], range[i] = one.label or tostring(i), colour_of(one, i)
    labelled = labelled or one.label ~= nil
    for group, height in ipairs(one.y) do
      rows[#rows + 1] = { group = group, y = placed(height, options.logy), place = i, series = names[i] }
    end
  end
  local y = channel(options, "y")
  y.stack, y.scale.zero, y.scale.padding, y.scale.nice = null, not options.logy, nil, nil
  return { data = { values = rows }, mark = { type = "bar", tooltip = true, clip = true }, encoding = {
    x = places("group", series[1].x, options.xlabel), y = y, xOffset = { field = "place", type = "ordinal" },
    color = { field = "series", type = "nominal", scale = { domain = names, range = range },
      legend = labelled and legend_of(options) or null },
  } }
end

function kinds.heatmap(options, matrix)
  local rows = {}
  for i, row in ipairs(matrix.z) do
    for j, value in ipairs(row) do rows[#rows + 1] = { x = j, y = i, z = value } end
  end
  return { data = { values = rows }, mark = { type = "rect", tooltip = true }, encoding = {
    x = places("x", matrix.x, options.xlabel), y = places("y", matrix.y, options.ylabel),
    color = { field = "z", type = "quantitative", title = matrix.label or null, scale = { scheme = "viridis" } },
  } }
end

--- The specification of a figure of that kind, as a table for JSON; `size` is { width, height } in pixels.
return function(kind, options, data, size)
  local specification = kinds[kind](options, data)
  specification["$schema"] = "https://vega.github.io/schema/vega-lite/v5.json"
  specification.title = options.title and tostring(options.title)
  specification.width, specification.height = size[1], size[2]
  specification.autosize = { type = "fit", contains = "padding" }
  specification.background = "#ffffff"
  return specification
end
