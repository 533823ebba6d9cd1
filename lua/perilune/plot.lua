-- Pictures of data, drawn by gnuplot in a child process: line, scatter, bar, heatmap and band. A figure shows itself
-- in a notebook (SVG) and saves itself as SVG, PNG or PDF.
--
--   local plot = require "perilune.plot"
--   plot.line{ { x = lengths, y = accuracy, label = "lstm" }, title = "Parity", xlabel = "length", logx = true }
--
-- The array part holds the series; x and y are tables or tensors, x defaults to 1, 2, ... Points that are NaN
-- or infinite are gaps. Options: title, xlabel, ylabel, logx, logy (true, or the base), xrange and yrange
-- ({low, high}), size ({width, height} in pixels), legend (false, or a place such as "bottom right").
local plot = {}

-- Okabe and Ito's palette, distinct for the colour-blind; dash and marker differ as well, for print without colour.
local colours <const> = { "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000" }
local dashes <const> = { "1", "2", "4", "5", "3" }
local markers <const> = { 7, 5, 9, 13, 11, 6, 4 }

local ink <const> = "#333333"
local terminals <const> = {
  svg = "svg size %d,%d noenhanced font 'DejaVu Sans,Helvetica,Arial,sans-serif,13' background '#ffffff'",
  png = "pngcairo size %d,%d noenhanced font 'DejaVu Sans,11' background '#ffffff'",
  pdf = "pdfcairo size %.3fin,%.3fin noenhanced font 'DejaVu Sans,11'",
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Reading what the caller gave

local function fail(what, level)
  error("plot: " .. what, (level or 1) + 1)
end

-- A plain Lua table from a table or tensor; nil stays nil.
local function plain(value, name, level)
  if value == nil then return nil end
  if type(value) == "userdata" then value = value:totable() end
  if type(value) ~= "table" then
    fail(("%s: got a %s, expected a table or a tensor"):format(name, type(value)), level + 1)
  end
  return value
end

local function vector(value, name, level)
  local items = plain(value, name, level + 1)
  for i, item in ipairs(items or {}) do
    if type(item) ~= "number" then
      fail(("%s[%d]: got a %s, expected a number"):format(name, i, type(item)), level + 1)
    end
  end
  return items
end

local function count(n)
  local xs = {}
  for i = 1, n do xs[i] = i end
  return xs
end

local function require_length(items, n, name, level)
  if #items ~= n then fail(("%s has %d values, expected %d"):format(name, #items, n), level + 1) end
end

-- The series of a figure with the columns that its kind needs, as plain tables of equal length.
local function read_series(spec, columns, level)
  if type(spec) ~= "table" then
    fail("got a " .. type(spec) .. ", expected a table of series and options", level + 1)
  end
  if #spec == 0 then fail("no series: expected at least one { x =, y = } in the table", level + 1) end
  local series = {}
  for i, given in ipairs(spec) do
    local name = "series " .. i
    if type(given) ~= "table" then fail(name .. ": got a " .. type(given) .. ", expected a table", level + 1) end
    local one = { label = given.label and tostring(given.label) }
    local n
    for _, column in ipairs(columns) do
      one[column] = vector(given[column], name .. "." .. column, level + 1)
      if not one[column] then fail(("%s.%s is missing"):format(name, column), level + 1) end
      n = n or #one[column]
      require_length(one[column], n, name .. "." .. column, level + 1)
    end
    one.x = plain(given.x, name .. ".x", level + 1) or count(n)
    require_length(one.x, n, name .. ".x", level + 1)
    series[i] = one
  end
  return series
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Writing gnuplot's language

-- A string as gnuplot reads it literally: single quotes shut off escapes, substitution and macros.
local function quoted(text)
  return "'" .. tostring(text):gsub("'", "''"):gsub("%z", ""):gsub("\r?\n", "'.\"\\n\".'") .. "'"
end

local function finite(x)
  return x == x and x ~= math.huge and x ~= -math.huge
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

local function columns_of(series, names)
  local rows = {}
  for i = 1, #series.y do
    local row = {}
    for c, name in ipairs(names) do row[c] = series[name][i] end
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

local function cycle(list, i)
  return list[(i - 1) % #list + 1]
end

local function preamble(options)
  local script = {
    ("set border 3 linecolor rgb '%s' linewidth 1"):format(ink),
    ("set tics nomirror out textcolor rgb '%s'"):format(ink),
    "set grid linecolor rgb '#DDDDDD' linewidth 0.8 linetype 1",
    ("set key %s nobox textcolor rgb '%s' samplen 3 spacing 1.2")
      :format(options.legend and tostring(options.legend):gsub("[^%a ]", "") or "outside right top reverse Left", ink),
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
      script[#script + 1] = ("set logscale %s %g"):format(axis, type(base) == "number" and base or 10)
    end
    local range = options[axis .. "range"]
    if range then
      script[#script + 1] = ("set %srange [%s:%s]"):format(axis, range[1] and number(range[1]) or "*",
        range[2] and number(range[2]) or "*")
    end
  end
  return script
end

local function add_plot(script, elements)
  script[#script + 1] = "plot " .. table.concat(elements, ", \\\n     ")
end

-- A curve whose every point is a gap draws an empty frame instead of gnuplot's complaint.
local function finish(script, elements)
  if #elements == 0 then
    script[#script + 1] = "set xrange [0:1]\nset yrange [0:1]"
    elements[1] = "NaN notitle"
  end
  add_plot(script, elements)
end

local kinds = {}

-- Curves through points; up to 40 points carry markers, so that single measurements can be seen.
function kinds.line(spec, level)
  local series = read_series(spec, { "y" }, level + 1)
  return function()
    local script, elements = preamble(spec), {}
    for i, one in ipairs(series) do
      local rows = columns_of(one, { "x", "y" })
      if any_finite(rows) then
        block(script, "data" .. i, rows)
        local style = #rows <= 40 and ("linespoints pointtype %d pointsize 0.7"):format(cycle(markers, i)) or "lines"
        elements[#elements + 1] = ("$data%d using 1:2 with %s linewidth 2 linecolor rgb '%s' dashtype %s %s")
          :format(i, style, cycle(colours, i), cycle(dashes, i), title_of(one))
      end
    end
    finish(script, elements)
    return script
  end
end

function kinds.scatter(spec, level)
  local series = read_series(spec, { "y" }, level + 1)
  return function()
    local script, elements = preamble(spec), {}
    for i, one in ipairs(series) do
      local rows = columns_of(one, { "x", "y" })
      if any_finite(rows) then
        block(script, "data" .. i, rows)
        elements[#elements + 1] = ("$data%d using 1:2 with points pointtype %d pointsize 0.7 linecolor rgb '%s' %s")
          :format(i, cycle(markers, i), cycle(colours, i), title_of(one))
      end
    end
    finish(script, elements)
    return script
  end
end

-- A curve y between low and high, each series { x =, y =, low =, high = }.
function kinds.band(spec, level)
  local series = read_series(spec, { "y", "low", "high" }, level + 1)
  return function()
    local script, elements = preamble(spec), {}
    script[#script + 1] = "set style fill transparent solid 0.2 noborder"
    for i, one in ipairs(series) do
      local rows = columns_of(one, { "x", "y", "low", "high" })
      if any_finite(rows) then
        local colour = cycle(colours, i)
        block(script, "data" .. i, rows)
        elements[#elements + 1] = ("$data%d using 1:3:4 with filledcurves linecolor rgb '%s' notitle"):format(i, colour)
        elements[#elements + 1] = ("$data%d using 1:2 with lines linewidth 2 linecolor rgb '%s' dashtype %s %s")
          :format(i, colour, cycle(dashes, i), title_of(one))
      end
    end
    finish(script, elements)
    return script
  end
end

local function tics(script, axis, labels)
  local every, items = math.max(1, (#labels + 23) // 24), {}
  for i = 1, #labels, every do
    local label = labels[i]
    items[#items + 1] = ("%s %d"):format(quoted(type(label) == "number" and number(label) or label), i)
  end
  script[#script + 1] = ("set %stics (%s)"):format(axis, table.concat(items, ", "))
end

-- Groups of bars: the x of the first series (numbers or words) names the groups.
function kinds.bar(spec, level)
  local series = read_series(spec, { "y" }, level + 1)
  return function()
    local script, elements = preamble(spec), {}
    script[#script + 1] = "set style fill solid 0.85 noborder\nset grid noxtics\nset xtics scale 0"
    if not spec.logy then script[#script + 1] = "set offsets 0, 0, graph 0.05, 0" end
    local wide = 0.8 / #series
    for i, one in ipairs(series) do
      local rows = {}
      for group, height in ipairs(one.y) do
        rows[group] = { group + (i - (#series + 1) / 2) * wide, height, wide * 0.92 }
      end
      if any_finite(rows) then
        block(script, "data" .. i, rows)
        elements[#elements + 1] = ("$data%d using 1:2:3 with boxes linecolor rgb '%s' %s")
          :format(i, cycle(colours, i), title_of(one))
      end
    end
    tics(script, "x", series[1].x)
    script[#script + 1] = ("set xrange [0.4:%g]"):format(#series[1].y + 0.6)
    finish(script, elements)
    return script
  end
end

-- A matrix as colours, row 1 at the top: { { z = matrix, x = column labels, y = row labels } }, or the matrix itself.
function kinds.heatmap(spec, level)
  local given = type(spec) == "table" and spec[1]
  if given == nil then fail("no matrix: expected { z = matrix } in the table", level + 1) end
  local z = plain(type(given) == "table" and given.z or given, "series 1.z", level + 1)
  if type(z[1]) ~= "table" then fail("series 1.z: expected a matrix (a table of rows or a 2-d tensor)", level + 1) end
  for i, row in ipairs(z) do require_length(vector(row, ("series 1.z[%d]"):format(i), level + 1), #z[1],
    ("series 1.z[%d]"):format(i), level + 1) end
  local named = type(given) == "table" and given or {}
  local x, y = plain(named.x, "series 1.x", level + 1), plain(named.y, "series 1.y", level + 1)
  if x then require_length(x, #z[1], "series 1.x", level + 1) end
  if y then require_length(y, #z, "series 1.y", level + 1) end
  return function()
    local script, rows = preamble(spec), {}
    for i, row in ipairs(z) do
      for j, value in ipairs(row) do
        rows[#rows + 1] = ("%d %d %s"):format(j, i, finite(value) and number(value) or "NaN")
      end
    end
    script[#script + 1] = "unset key\nunset grid\nset offsets 0, 0, 0, 0\nset border 15\nset tics scale 0"
    script[#script + 1] = "set palette defined (0 '#440154', 1 '#3B528B', 2 '#21918C', 3 '#5EC962', 4 '#FDE725')"
    script[#script + 1] = ("set xrange [0.5:%g]\nset yrange [%g:0.5]"):format(#z[1] + 0.5, #z + 0.5)
    tics(script, "x", x or count(#z[1]))
    tics(script, "y", y or count(#z))
    if named.label then script[#script + 1] = ("set cblabel %s textcolor rgb '%s'"):format(quoted(named.label), ink) end
    script[#script + 1] = "$data1 << END_OF_DATA\n" .. table.concat(rows, "\n") .. "\nEND_OF_DATA"
    add_plot(script, { "$data1 using 1:2:3 with image pixels notitle" })
    return script
  end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Running gnuplot

local function shell_word(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function read_all(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

local function write_all(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

-- Runs gnuplot on the text of a script. Returns true, or nil and gnuplot's own words.
local function run_gnuplot(text)
  local script, messages = os.tmpname(), os.tmpname()
  write_all(script, text)
  local _, how, status = os.execute(("gnuplot %s </dev/null >%s 2>&1"):format(shell_word(script), shell_word(messages)))
  local said = read_all(messages)
  os.remove(script)
  os.remove(messages)
  if how == "exit" and status == 0 then return true end
  if how == "exit" and status == 127 then
    return nil, "the program gnuplot was not found (on Debian: apt-get install gnuplot-nox)"
  end
  return nil, ("gnuplot failed (%s %d): %s"):format(how, status, said:gsub("^%s+", ""):gsub("%s+$", ""))
end

-- Draws the figure into a new file at `path`. Returns true, or nil and a message; then there is no such file.
local function render(figure, format, path)
  local width, height = figure.size[1], figure.size[2]
  if format == "pdf" then
    width, height = width / 96, height / 96
  end
  local script = { "set terminal " .. terminals[format]:format(width, height), "set output " .. quoted(path) }
  local body = figure.script()
  table.move(body, 1, #body, 3, script)
  script[#script + 1] = "unset output\n"
  local ok, message = run_gnuplot(table.concat(script, "\n"))
  if not ok then
    os.remove(path)
    return nil, message
  end
  return true
end

local Figure = {}
Figure.__index = Figure
Figure.__name = "plot.Figure"

--- Saves the figure; the ending (.svg, .png or .pdf) says the format. The file appears complete or not at all.
function Figure:save(path)
  local ending = type(path) == "string" and path:match("%.(%w+)$")
  local format = ending and ending:lower()
  if not terminals[format] then
    fail(("save: argument 'path': got %s, expected a name that ends in .svg, .png or .pdf"):format(tostring(path)), 2)
  end
  local partial = ("%s.%s.part"):format(path, tostring({}):match("%x+$"))
  local ok, message = render(self, format, partial)
  if not ok then fail(message, 2) end
  local renamed, why = os.rename(partial, path)
  if not renamed then
    os.remove(partial)
    fail(("cannot write %s: %s"):format(path, why), 2)
  end
  return self
end

--- The figure as the text of an SVG document.
function Figure:svg()
  local path = os.tmpname()
  local ok, message = render(self, "svg", path)
  if not ok then fail(message, 2) end
  local text = read_all(path)
  os.remove(path)
  return text
end

function Figure:__mime()
  return { ["image/svg+xml"] = self:svg(), ["text/plain"] = tostring(self) }
end

function Figure:__tostring()
  return ("plot.%s: %s"):format(self.kind, self.title or "untitled")
end

for kind, read in pairs(kinds) do
  plot[kind] = function(spec)
    local script = read(spec, 2)
    local size = spec.size or { 720, 440 }
    if type(size) ~= "table" or not (tonumber(size[1]) and tonumber(size[2])) then
      fail("size: expected { width, height } in pixels", 2)
    end
    return setmetatable({ kind = kind, script = script, size = size, title = spec.title }, Figure)
  end
end

return plot
