-- plot.panels: several figures side by side, as one picture.
local check = require "perilune.nn.check"
local read = require "perilune.plot.read"

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

-- The places are filled row by row. A key stands in the first empty one, and every figure has its own where none is.
local function script_of(figures, columns, title, quoted)
  local rows = math.ceil(#figures / columns)
  local script = { ("set multiplot layout %d,%d%s"):format(rows, columns,
    title and (" title %s font ',17'"):format(quoted(title)) or "") }
  local key
  for i, figure in ipairs(figures) do
    if not figure and not key then
      local row, column = (i - 1) // columns, (i - 1) % columns
      key = ("set key at screen %.4f, %.4f left top vertical"):format((column + 0.15) / columns,
        0.95 - (row + 0.1) / rows)
    end
  end
  local keyed = false
  for _, figure in ipairs(figures) do
    local body = figure and figure.script() or { "set multiplot next" }
    script[#script + 1] = "reset"
    local last = #body
    table.move(body, 1, last - 1, #script + 1, script)
    if figure and key then
      script[#script + 1] = keyed and "unset key" or key
      keyed = true
    end
    script[#script + 1] = body[last]
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
