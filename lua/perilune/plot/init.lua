-- Pictures of data, drawn by gnuplot in a child process: line, scatter, bar, heatmap and band, and panels of these. A
-- figure shows itself in a notebook (SVG) and saves itself as SVG, PNG or PDF.
--
--   local plot = require "perilune.plot"
--   plot.line{ { x = lengths, y = accuracy, label = "lstm" }, title = "Parity", xlabel = "length", logx = true }
--
-- The array part holds the series; x and y are tables or tensors of equal length, x defaults to 1, 2, ... Points that
-- are NaN or infinite, or not above 0 on a logarithmic axis, are gaps. Series take their looks in turn; colour = 2 and,
-- of curves, dash = 2 (dashes and marker) give one those that the second would have. Options: title, xlabel, ylabel,
-- logx, logy (true, or the base), xrange and yrange ({low, high}), size ({width, height} in pixels), legend (false, or
-- a place such as "bottom right"), interactive (true: where the front end knows Vega-Lite, it shows the figure as one
-- in which people zoom and move). What is wrong with data or options is an error when the figure is made.
local core = require "perilune.core"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local display = require "perilune.display"
local divided = require "perilune.plot.divided"
local panels = require "perilune.plot.panels"
local read = require "perilune.plot.read"
local style = require "perilune.plot.style"
local vegalite = require "perilune.plot.vegalite"

local fail, finite = read.fail, read.finite
local cycle, placed, colour_of = style.cycle, style.placed, style.colour_of

local plot = {}

-- Dash and marker differ from series to series as the colour does, for print without colour.
local dashes <const> = { "1", "2", "4", "5", "3" }
local markers <const> = { 7, 5, 9, 13, 11, 6, 4 }

local ink <const> = style.ink
local terminals <const> = {
  svg = "svg size %d,%d noenhanced font 'DejaVu Sans,Helvetica,Arial,sans-serif,13' background '#ffffff'",
  png = "pngcairo size %d,%d noenhanced font 'DejaVu Sans,11' background '#ffffff'",
  pdf = "pdfcairo size %.3fin,%.3fin noenhanced font 'DejaVu Sans,11'",
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Writing gnuplot's language

-- A string as gnuplot reads it literally: single quotes shut off escapes, substitution and macros.
local function quoted(text)
  return "'" .. tostring(text):gsub("'", "''"):gsub("%z", ""):gsub("\r?\n", "'.\"\\n\".'") .. "'"
end

local function number(x)
  return ("%.10g"):format(x)
end

-- A data block; rows with a value that is not finite become blank lines, at which gnuplot interrupts a curve.
local function block(script, name, rows)
  script[#script + 1] = "$" .. name .. " << END_OF_DATA"
  for _, row in ipairs(rows) do
    local words = {}
    for i, value in ipairs(row) do
      if not finite(value) then
        words = {}
        break
      end
      words[i] = number(value)
    end
    script[#script + 1] = table.concat(words, " ")
  end
  script[#script + 1] = "END_OF_DATA"
end

local function columns_of(series, names, options)
  local rows = {}
  for i = 1, #series.y do
    local row = {}
    for c, name in ipairs(names) do
      row[c] = placed(series[name][i], options[name == "x" and "logx" or "logy"])
    end
    rows[i] = row
  end
  return rows
end

local function any_finite(rows)
  for _, row in ipairs(rows) do
    local good = true
    for _, value in ipairs(row) do good = good and finite(value) end
    if good then return true end
  end
  return false
end

local function title_of(series)
  return series.label and "title " .. quoted(series.label) or "notitle"
end

local function preamble(options)
  local script = {
    ("set border 3 linecolor rgb '%s' linewidth 1"):format(ink),
    ("set tics nomirror out textcolor rgb '%s'"):format(ink),
    "set grid linecolor rgb '#DDDDDD' linewidth 0.8 linetype 1",
    ("set key %s nobox textcolor rgb '%s' samplen 3 spacing 1.2 height 1")
      :format(options.legend or "outside right top reverse Left", ink),
    "set autoscale fix\nset offsets graph 0.02, graph 0.02, graph 0.05, graph 0.05",
    "set datafile missing '?'",
  }
  if options.legend == false then script[#script + 1] = "unset key" end
  for _, what in ipairs { "title", "xlabel", "ylabel" } do
    if options[what] then
      script[#script + 1] = ("set %s %s textcolor rgb '%s'%s"):format(what, quoted(options[what]), ink,
        what == "title" and " font ',15'" or "")
    end
  end
  for _, axis in ipairs { "x", "y" } do
    if options["log" .. axis] then
      local base = options["log" .. axis]
      script[#script + 1] = ("set logscale %s %g\nset format %s '%%g'"):format(axis,
        type(base) == "number" and base or 10, axis) -- gnuplot's own format gives every label the longest one's digits
    end
    local limits = options[axis .. "range"]
    if limits then
      script[#script + 1] = ("set %srange [%s:%s]"):format(axis, limits[1] and number(limits[1]) or "*",
        limits[2] and number(limits[2]) or "*")
    end
  end
  return script
end

local function add_plot(script, elements)
  script[#script + 1] = "plot " .. table.concat(elements, ", \\\n     ")
end

-- A figure whose every point is a gap draws an empty frame instead of gnuplot's complaint.
local function finish(script, elements)
  if #elements == 0 then
    script[#script + 1] = "set xrange [1:10]\nset yrange [1:10]"
    elements[1] = "NaN notitle"
  end
  add_plot(script, elements)
end

-- The script of a figure whose series are each rows of `columns` and the plot elements that draw(i, series, rows)
-- lists, after the lines `opening`.
local function script_of(options, series, columns, draw, opening)
  local script, elements, blocks = preamble(options), {}, {}
  script[#script + 1] = opening
  for i, one in ipairs(series) do
    local rows = columns_of(one, columns, options)
    if any_finite(rows) then
      block(script, "data" .. i, rows)
      blocks[#blocks + 1] = rows
      for _, element in ipairs(draw(i, one, rows)) do elements[#elements + 1] = element end
    end
  end
  script[#script + 1] = divided(options, columns, blocks)
  finish(script, elements)
  return script
end

local options_of <const> = {
  line = read.known {}, scatter = read.known {}, band = read.known {},
  bar = read.known { logx = true, xrange = true },
  heatmap = read.known { logx = true, logy = true, xrange = true, yrange = true, legend = true },
  panels = { title = true, size = true, columns = true },
}

-- Each kind reads a specification and returns its options, a function that writes the script, and the series or matrix.
local kinds = {}

-- The element of the i-th curve, through `count` points.
local function curve_element(i, one, count)
  local marked = count <= style.marked_max
  local with = marked and ("linespoints pointtype %d pointsize 0.7"):format(cycle(markers, one.dash or i)) or "lines"
  return ("$data%d using 1:2 with %s linewidth 2 linecolor rgb '%s' dashtype %s %s")
    :format(i, with, colour_of(one, i), cycle(dashes, one.dash or i), title_of(one))
end

--- plot.line{ { x =, y =, label = }, .., title =, .. }: curves through points; up to 40 points carry markers, so
-- that single measurements can be seen.
function kinds.line(spec)
  local series = read.series(spec, { "y" }, { "colour", "dash" }, read.numbers)
  local options = read.options(spec, options_of.line)
  read.require_visible(options, series)
  return options, function()
    return script_of(options, series, { "x", "y" }, function(i, one, rows)
      return { curve_element(i, one, #rows) }
    end)
  end, series
end

--- plot.scatter{ { x =, y =, label = }, .., title =, .. }: points.
function kinds.scatter(spec)
  local series = read.series(spec, { "y" }, { "colour" }, read.numbers)
  local options = read.options(spec, options_of.scatter)
  read.require_visible(options, series)
  return options, function()
    return script_of(options, series, { "x", "y" }, function(i, one)
      return { ("$data%d using 1:2 with points pointtype %d pointsize 0.7 linecolor rgb '%s' %s")
        :format(i, cycle(markers, i), colour_of(one, i), title_of(one)) }
    end)
  end, series
end

--- plot.band{ { x =, y =, low =, high =, label = }, .., title =, .. }: curves y, marked as those of plot.line, between
-- low and high.
function kinds.band(spec)
  local series = read.series(spec, { "y", "low", "high" }, { "colour", "dash" }, read.numbers)
  local options = read.options(spec, options_of.band)
  read.require_visible(options, series)
  return options, function()
    return script_of(options, series, { "x", "y", "low", "high" }, function(i, one, rows)
      return {
        ("$data%d using 1:3:4 with filledcurves linecolor rgb '%s' notitle"):format(i, colour_of(one, i)),
        curve_element(i, one, #rows),
      }
    end, "set style fill transparent solid 0.2 noborder")
  end, series
end

local function tics(script, axis, labels)
  local items = {}
  for _, i in ipairs(style.labelled(#labels)) do
    local label = labels[i]
    items[#items + 1] = ("%s %d"):format(quoted(type(label) == "number" and number(label) or label), i)
  end
  script[#script + 1] = ("set %stics (%s)"):format(axis, table.concat(items, ", "))
end

--- plot.bar{ { x =, y =, label = }, .., title =, .. }: groups of bars; the x of the first series (numbers or
-- words) names the groups; every series has a bar in each.
function kinds.bar(spec)
  local series = read.series(spec, { "y" }, { "colour" }, read.words)
  for i, one in ipairs(series) do
    if #one.y ~= #series[1].y then
      fail("series %d.y: expected %d values, one per group, got %d", i, #series[1].y, #one.y)
    end
  end
  local options = read.options(spec, options_of.bar)
  return options, function()
    local script, elements = preamble(options), {}
    script[#script + 1] = "set style fill solid 0.85 noborder\nset grid noxtics\nset xtics scale 0"
    if not options.logy then script[#script + 1] = "set offsets 0, 0, graph 0.05, 0" end
    local wide = 0.8 / #series
    for i, one in ipairs(series) do
      local rows = {}
      for group, height in ipairs(one.y) do
        rows[group] = { group + (i - (#series + 1) / 2) * wide, placed(height, options.logy), wide * 0.92 }
      end
      if any_finite(rows) then
        block(script, "data" .. i, rows)
        elements[#elements + 1] = ("$data%d using 1:2:3 with boxes linecolor rgb '%s' %s")
          :format(i, colour_of(one, i), title_of(one))
      end
    end
    tics(script, "x", series[1].x)
    script[#script + 1] = ("set xrange [0.4:%g]"):format(#series[1].y + 0.6)
    finish(script, elements)
    return script
  end, series
end

--- plot.heatmap(matrix): a matrix as colours, row 1 at the top: { { z = matrix, x = column labels, y = row
-- labels } }, or the matrix itself.
function kinds.heatmap(spec)
  local matrix = read.matrix(spec)
  local options = read.options(spec, options_of.heatmap)
  return options, function()
    local script, rows, z = preamble(options), {}, matrix.z
    for i, row in ipairs(z) do
      for j, value in ipairs(row) do
        rows[#rows + 1] = ("%d %d %s"):format(j, i, finite(value) and number(value) or "NaN")
      end
    end
    script[#script + 1] = "unset key\nunset grid\nset offsets 0, 0, 0, 0\nset border 15\nset tics scale 0"
    script[#script + 1] = "set palette defined (0 '#440154', 1 '#3B528B', 2 '#21918C', 3 '#5EC962', 4 '#FDE725')"
    script[#script + 1] = ("set xrange [0.5:%g]\nset yrange [%g:0.5]"):format(#z[1] + 0.5, #z + 0.5)
    tics(script, "x", matrix.x)
    tics(script, "y", matrix.y)
    if matrix.label then
      script[#script + 1] = ("set cblabel %s textcolor rgb '%s'"):format(quoted(matrix.label), ink)
    end
    script[#script + 1] = "$data1 << END_OF_DATA\n" .. table.concat(rows, "\n") .. "\nEND_OF_DATA"
    add_plot(script, { "$data1 using 1:2:3 with image pixels notitle" })
    return script
  end, matrix
end

function kinds.panels(spec) return panels(spec, options_of.panels, quoted) end

-- ---------------------------------------------------------------------------------------------------------------------
-- Running gnuplot

local missing <const> = "the program gnuplot was not found (on Debian: apt-get install gnuplot-nox)"

-- Runs gnuplot on the text of a script. Returns what it draws, or nil and gnuplot's own words, or nil and `missing`.
local function run_gnuplot(text)
  local drawn, said, _, how, status = core.filter("exec gnuplot", text)
  if how == "exit" and status == 0 then return drawn end
  if how == "exit" and status == 127 then return nil, missing end
  return nil, ("gnuplot failed (%s %d): %s"):format(how, status, said:gsub("^%s+", ""):gsub("%s+$", ""))
end

-- The bytes of the figure, or nil and a message.
local function render(figure, format)
  local width, height = figure.size[1], figure.size[2]
  if format == "pdf" then
    width, height = width / 96, height / 96
  end
  local script = { "set terminal " .. terminals[format]:format(width, height) }
  local body = figure.script()
  table.move(body, 1, #body, 2, script)
  script[#script + 1] = "unset output\n"
  local drawn, message = run_gnuplot(table.concat(script, "\n"))
  if drawn and format == "svg" then
    drawn = drawn:gsub("<g [^>]*>%s*</g>%s*", "") -- gnuplot's empty groups, a fifth of the text
  end
  return drawn, message
end

local Figure = {}
Figure.__index = Figure
Figure.__name = "plot.Figure"

--- Saves the figure; the ending (.svg, .png or .pdf) says the format. The file appears complete or not at all.
function Figure:save(path)
  local ending = type(path) == "string" and path:match("%.(%w+)$")
  local format = ending and ending:lower()
  if not terminals[format] then
    fail("save: path: expected a name that ends in .svg, .png or .pdf, got %s", check.shown(path))
  end
  local bytes, message = render(self, format)
  if not bytes then fail(message) end
  core.write_file(path, bytes)
  return self
end

--- The figure as the text of an SVG document.
function Figure:svg()
  local text, message = render(self, "svg")
  if not text then fail(message) end
  return text
end

--- The figure as a Vega-Lite specification: a table that holds the data, for pl.json_encode or display.vegalite.
-- Panels have none.
function Figure:vegalite()
  if self.kind == "panels" then fail("vegalite: expected a figure of one kind, got panels") end
  return vegalite(self.kind, self.options, self.data, self.size)
end

--- What a notebook shows: SVG, and PNG for where SVG is left out, as in notebooks of others that were not run here and
-- pages made of them. Where gnuplot is missing that is text which says so, for the cell itself did not fail.
function Figure:__mime()
  local bundle = { ["text/plain"] = tostring(self) }
  if self.options.interactive then bundle[display.VEGALITE] = self:vegalite() end
  local text, message = render(self, "svg")
  if message == missing then
    bundle["text/plain"] = ("%s\nnot drawn: %s"):format(self, missing)
  elseif not text then
    fail(message)
  end
  if text then
    bundle["image/svg+xml"], bundle["image/png"] = display.element(text), render(self, "png")
  end
  return bundle
end

function Figure:__tostring()
  return ("plot.%s: %s"):format(self.kind, self.options.title or "untitled")
end

for kind, make in pairs(kinds) do
  local function draw(spec)
    local options, script, data = make(spec)
    return setmetatable({
      kind = kind, script = script, options = options, data = data, size = options.size or { 720, 440 },
    }, Figure)
  end
  declared.options(draw, options_of[kind])
  plot[kind] = declared.document(draw, kind == "panels" and panels or make)
end

return plot
