-- plot.panels: several figures side by side, as one picture.
local check = require "perilune.nn.check"
local read = require "perilune.plot.read"
local style = require "perilune.plot.style"

local PANEL_WIDTH <const>, PANEL_HEIGHT <const>, TITLE_HEIGHT <const> = 380, 310, 40 -- pixels

local function read_figures(spec)
  if type(spec) ~= "table" then read.fail("expected a table of figures and options, got %s", check.shown(spec)) end
  local figures, count = {}, 0
  for i, figure in ipairs(spec) do
    local one = type(figure) == "table" and type(figure.script) == "function" and figure.kind ~= "panels"
    if figure ~= false and not one then
      read.fail("figure %d: expected what plot.line and its like return, or false, got %s", i, check.shown(figure))
    end
    figures[i], count = figure, one and count + 1 or count
  end
  if count == 0 then read.fail("no figures: expected at least one in the table") end
  return figures
end

-- A plot that fills its place and has nothing but the key of a figure: the last line of its script, without its values.
local function key_of(script)
  return {
    "unset border\nunset tics\nset margins 0, 0, 0, 0\nset xrange [0:1]\nset yrange [0:1]",
    ("set key at graph 0.08, 0.95 left top vertical reverse Left textcolor rgb '%s' font ',11' samplen 3")
      :format(style.ink),
    (script[#script]:gsub("%$data%d+ using [%d:]+", "NaN")),
  }
end

-- The places are filled row by row. In the first empty one stands the key of the first figure that has one, and then no
-- figure has its own.
local function script_of(figures, columns, title, quoted)
  local script = { ("set multiplot layout %d,%d%s"):format(math.ceil(#figures / columns), columns,
    title and (" title %s textcolor rgb '%s' font ',17'"):format(quoted(title), style.ink) or "") }
  local first, shared
  for _, figure in ipairs(figures) do
    first = first or figure and figure.kind ~= "heatmap" and figure
    shared = shared or not figure
  end
  local key = shared and first and key_of(first.script())
  for _, figure in ipairs(figures) do
    local body = { "set multiplot next" }
    if figure then
      body = figure.script()
      if shared then table.insert(body, #body, "unset key") end
    elseif key then
      body, key = key, nil
    end
    script[#script + 1] = "reset"
    table.move(body, 1, #body, #script + 1, script)
  end
  script[#script + 1] = "unset multiplot"
  return script
end

--- plot.panels{ figure, figure, .., columns =, title =, size = }: figures side by side, row by row, two in a row unless
-- `columns` says otherwise. Instead of a figure there may be false, an empty place: in the first one stands the key of
-- the first figure, for all of them.
return function(spec, known, quoted)
  local figures = read_figures(spec)
  local options = read.options(spec, known)
  local columns = math.min(options.columns or 2, #figures)
  options.size = options.size or { PANEL_WIDTH * columns, PANEL_HEIGHT * math.ceil(#figures / columns)
    + (options.title and TITLE_HEIGHT or 0) }
  return options, function() return script_of(figures, columns, options.title, quoted) end, figures
end
