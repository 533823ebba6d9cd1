-- What experiments/numerics.lua tells of its rows: a table, a summary and figures. Rows of several devices go into one
-- report. A row is { device =, cell =, forget_bias =, dtype =, backend =, size =, lengths = { T, .. },
-- steps = { t, .. }, states = { NAME = { median =, largest =, last = (lists by T), per_step = (at steps) } },
-- gradients = { Wx =, R =, b =, states = (lists by T), per_step = (of Wx, at steps) } }; all errors are relative.

local plot = require "perilune.plot"

local Report = {}
Report.__index = Report

local report = {}

--- An empty report.
function report.new() return setmetatable({ rows = {}, devices = {} }, Report) end

--- The names of the gradients, in the order of the table.
report.gradients = { "Wx", "R", "b", "states" }

local function median(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  return sorted[(#sorted + 1) // 2]
end
report.median = median

-- JSON has no infinity: what is there and no number was not finite.
local function number_of(value)
  if value == nil or type(value) == "number" then return value end
  return math.huge
end

local function shown(value)
  value = number_of(value)
  return value and ("%7.1e"):format(value) or "      -"
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The table

local titles <const> = "%-2s %-6s %-4s %-8s %-11s %-9s %5s  %7s %7s %7s  %7s %7s %7s  %7s %7s %7s %7s"

-- The number of a row's device, in the order in which they come.
function Report:device_of(row)
  for i, known in ipairs(self.devices) do
    if known == row.device then return i end
  end
  table.insert(self.devices, row.device)
  return #self.devices
end

--- Prints the titles of the table.
function Report:head() -- luacheck: no self
  print(titles:format("", "", "", "", "", "", "", "h", "", "", "c", "", "", "d of", "", "", ""))
  print(titles:format("", "cell", "bias", "type", "backend", "BxNxD", "T", "median", "largest", "last", "median",
    "largest", "last", "inputs", "R", "bias", "initial"))
end

--- Takes a row into the report, and returns the report.
function Report:add(row)
  self:device_of(row) -- which numbers the devices in the order of the rows
  self.rows[#self.rows + 1] = row
  return self
end

--- Prints a row's errors at its longest T.
function Report:print(row)
  local n, words = #row.lengths, {}
  for _, name in ipairs { "h", "c" } do
    local of = row.states[name] or { median = {}, largest = {}, last = {} }
    words[#words + 1] = ("%s %s %s"):format(shown(of.median[n]), shown(of.largest[n]), shown(of.last[n]))
  end
  for _, name in ipairs(report.gradients) do words[#words + 1] = shown(row.gradients[name][n]) end
  print(("%-2d %-6s %4d %-8s %-11s %-9s %5d  %s  %s  %s %s %s %s"):format(self:device_of(row), row.cell,
    row.forget_bias, row.dtype, row.backend, row.size, row.lengths[n], table.unpack(words)))
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The summary

-- Lists of rows for which words_of says the same, in the order of their first ones: { words =, row, .. }. Without words
-- a row is in none.
local function grouped(rows, words_of)
  local groups, by_words = {}, {}
  for _, row in ipairs(rows) do
    local words = words_of(row)
    if words and not by_words[words] then
      by_words[words] = { words = words }
      groups[#groups + 1] = by_words[words]
    end
    if words then table.insert(by_words[words], row) end
  end
  return groups
end

-- The largest of the four errors of gradients, at the i-th length.
local function gradient_at(row, i)
  local worst = 0
  for _, name in ipairs(report.gradients) do worst = math.max(worst, number_of(row.gradients[name][i])) end
  return worst
end

-- The median of a value over rows, and the largest and whose it is.
local function worst_of(rows, value_of)
  local values, where = {}, rows[1]
  for i, row in ipairs(rows) do
    values[i] = value_of(row)
    if values[i] > value_of(where) then where = row end
  end
  return ("%s %s %-9s"):format(shown(median(values)), shown(value_of(where)), ("%s %+d"):format(where.cell,
    where.forget_bias))
end

-- "median (least to largest)".
local function spread(values)
  table.sort(values)
  if #values == 0 then return "-" end
  return ("%.2f (%.2f to %.2f)"):format(median(values), values[1], values[#values])
end

function Report:type_and_backend(row)
  return ("%-2d %-8s %-11s"):format(self:device_of(row), row.dtype, row.backend)
end

function Report:summarize_errors()
  print "\nErrors at the longest T, over cells, forget biases and sizes: median, largest, and where that is"
  print(("%-23s %5s  %-25s  %-25s  %-25s"):format("", "T", "h, median of time steps", "h, largest of time steps",
    "worst of four gradients"))
  local function words_of(row) return ("%s %5d"):format(self:type_and_backend(row), row.lengths[#row.lengths]) end
  for _, group in ipairs(grouped(self.rows, words_of)) do
    print(("%s  %s  %s  %s"):format(group.words,
      worst_of(group, function(row) return number_of(row.states.h.median[#row.lengths]) end),
      worst_of(group, function(row) return number_of(row.states.h.largest[#row.lengths]) end),
      worst_of(group, function(row) return gradient_at(row, #row.lengths) end)))
  end
end

-- The places in two rows of the longest length of both, and that length.
local function common_length(a, b)
  for i = #a.lengths, 1, -1 do
    for j, length in ipairs(b.lengths) do
      if length == a.lengths[i] then return i, j, length end
    end
  end
end

-- Of two backends that ran the same numbers, the errors of the second over those of the first.
function Report:summarize_backends()
  local ratios = {}
  for _, same in ipairs(grouped(self.rows, function(row)
    return ("%s %s %d %s %s"):format(row.device, row.cell, row.forget_bias, row.dtype, row.size)
  end)) do
    local a, b = same[1], same[2]
    local i, j, length = nil, nil, nil
    if b then i, j, length = common_length(a, b) end
    if i then
      ratios[#ratios + 1] = {
        words = ("%-2d %-8s %s over %s, T = %d"):format(self:device_of(a), a.dtype, b.backend, a.backend, length),
        h = number_of(b.states.h.last[j]) / number_of(a.states.h.last[i]),
        gradients = gradient_at(b, j) / gradient_at(a, i),
      }
    end
  end
  if #ratios > 0 then print "\nErrors of one backend over those of another: median (least to largest)" end
  for _, group in ipairs(grouped(ratios, function(ratio) return ratio.words end)) do
    local h, gradients = {}, {}
    for i, ratio in ipairs(group) do h[i], gradients[i] = ratio.h, ratio.gradients end
    print(("%-48s last h %-22s  gradients %s"):format(group.words, spread(h), spread(gradients)))
  end
end

function Report:summarize_growth()
  print "\nErrors at the longest T over those at the shortest: median (least to largest)"
  local words <const>, line <const> = "%-23s %9s %4s", "%s  %-20s  %-20s  %s"
  print(line:format(words:format("", "T", "bias"), "h, median of steps", "last c", "gradients"))
  for _, group in ipairs(grouped(self.rows, function(row)
    return #row.lengths > 1 and words:format(self:type_and_backend(row),
      ("%d/%d"):format(row.lengths[#row.lengths], row.lengths[1]), row.forget_bias)
  end)) do
    local h, c, gradients = {}, {}, {}
    for _, row in ipairs(group) do
      local n = #row.lengths
      local function growth(of) return number_of(of[n]) / number_of(of[1]) end
      h[#h + 1] = growth(row.states.h.median)
      if row.states.c then c[#c + 1] = growth(row.states.c.last) end
      gradients[#gradients + 1] = gradient_at(row, n) / gradient_at(row, 1)
    end
    print(line:format(group.words, spread(h), spread(c), spread(gradients)))
  end
end

--- Prints which type and backend is how far off, how backends compare, and how errors grow with T.
function Report:summarize()
  print ""
  for i, name in ipairs(self.devices) do print(("device %d is %s"):format(i, name)) end
  self:summarize_errors()
  self:summarize_backends()
  self:summarize_growth()
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The figures

local colours <const> = { float32 = 1, tf32 = 3, float16 = 5, bfloat16 = 2 }
local is_slow <const> = { vanilla = true, alternating = true } -- the dashed one of a device's two backends

local function per_step(row, what)
  if what == "gradient" then return row.gradients.per_step end
  return row.states[what] and row.states[what].per_step
end

function Report:curve(row, what)
  local device, x, y = self:device_of(row), {}, {}
  for i, value in ipairs(per_step(row, what)) do x[i], y[i] = row.steps[i], number_of(value) end
  return {
    x = x, y = y, colour = colours[row.dtype], dash = 2 * device - (is_slow[row.backend] and 0 or 1),
    label = ("%s %s%s"):format(row.dtype, row.backend, #self.devices > 1 and (", device %d"):format(device) or ""),
  }
end

-- From a power of ten to a power of ten, the range of all errors per time step of rows; nil where no error has a
-- logarithm.
local function range_of(rows, what)
  local low, high = math.huge, 0
  for _, row in ipairs(rows) do
    for _, value in ipairs(per_step(row, what)) do
      local positive = type(value) == "number" and value > 0
      if positive then low, high = math.min(low, value), math.max(high, value) end
    end
  end
  return high > 0 and { 10 ^ math.floor(math.log(low, 10)), 10 ^ math.ceil(math.log(high, 10)) } or nil
end

-- The panel of a cell and a forget bias, or false where there are no rows.
function Report:panel(rows, cell, bias, what, range)
  local series = {}
  for _, row in ipairs(rows) do
    if row.cell == cell and row.forget_bias == bias then series[#series + 1] = self:curve(row, what) end
  end
  if #series == 0 then return false end
  series.title = ("%s, forget bias %d"):format(cell, bias)
  series.xlabel, series.ylabel, series.logx, series.logy, series.yrange = "time step", "relative error", 2, true, range
  return plot.line(series)
end

local function distinct(rows, field)
  local list, seen = {}, {}
  for _, row in ipairs(rows) do
    if not seen[row[field]] then list[#list + 1] = row[field] end
    seen[row[field]] = true
  end
  return list
end

--- The errors per time step of rows of one size, of the state `what` or of the "gradient" of the inputs: a line of
-- panels per cell, a column per forget bias; nil where no row has such a state.
function Report:figure(size, what)
  local rows = {}
  for _, row in ipairs(self.rows) do
    if row.size == size and per_step(row, what) then rows[#rows + 1] = row end
  end
  if #rows == 0 then return nil end
  local biases, range, places, full = distinct(rows, "forget_bias"), range_of(rows, what), {}, true
  for _, cell in ipairs(distinct(rows, "cell")) do
    places[#places + 1] = {}
    for i, bias in ipairs(biases) do
      places[#places][i] = self:panel(rows, cell, bias, what, range)
      full = full and places[#places][i]
    end
  end
  local figures = { columns = #biases + (full and 1 or 0), title = ("Error of %s, batch x heads x units = %s"):format(
    what == "gradient" and "the gradient of the inputs" or what, size) }
  for _, line in ipairs(places) do
    table.move(line, 1, #biases, #figures + 1, figures)
    if full then figures[#figures + 1] = false end -- for the key
  end
  return plot.panels(figures)
end

--- Saves all figures as BASE-WHAT-SIZE.svg, and returns their paths.
function Report:save(base)
  local paths = {}
  for _, size in ipairs(distinct(self.rows, "size")) do
    for _, what in ipairs { "h", "c", "gradient" } do
      local figure = self:figure(size, what)
      if figure then
        paths[#paths + 1] = ("%s-%s-%s.svg"):format(base, what, size)
        figure:save(paths[#paths])
      end
    end
  end
  return paths
end

return report
