-- Figures of measured recurrences in the manner of FlashRNN's: milliseconds over head dimension, batch or sequence
-- length, both axes logarithmic, a curve with a band from p10 to p90 for each backend, and other systems beside it.
local plot = require "perilune.plot"

local figures = {}

local POINTS_MIN <const> = 3 -- of a curve that is worth a figure

-- What each figure has on its x axis, and what all rows in it share.
local axes <const> = {
  { name = "heads", field = "head_dim", label = "units of a head", shared = { "batch", "steps" },
    words = function(row) return ("batch %d, %d steps"):format(row.batch, row.steps) end },
  { name = "batch", field = "batch", label = "batch rows", shared = { "heads", "head_dim", "steps" },
    words = function(row) return ("%d x %d units, %d steps"):format(row.heads, row.head_dim, row.steps) end },
  { name = "length", field = "steps", label = "time steps", shared = { "heads", "head_dim", "batch" },
    words = function(row) return ("%d x %d units, batch %d"):format(row.heads, row.head_dim, row.batch) end },
}

local passes <const> = { inf = "inference", fwd = "forward, of training", ["f+b"] = "forward and backward" }

local function word_of(row, fields)
  local words = {}
  for i, field in ipairs(fields) do words[i] = tostring(row[field]) end
  return table.concat(words, "x")
end

-- The name of the figure of an axis that a row belongs to.
local function figure_of(axis, row)
  return ("%s-%s-%s-%s%s"):format(axis.name, row.cell, word_of(row, axis.shared), row.pass,
    row.with_input and "-input" or "")
end

-- How many values a field has in a list of rows.
local function variety(rows, field)
  local seen, count = {}, 0
  for _, row in ipairs(rows) do
    if not seen[row[field]] then seen[row[field]], count = true, count + 1 end
  end
  return count
end

-- Rows in groups by label, in the order in which labels first come.
local function grouped(rows, label_of)
  local groups = {}
  for _, row in ipairs(rows) do
    local label = label_of(row)
    if not groups[label] then
      groups[label] = { label = label }
      groups[#groups + 1] = groups[label]
    end
    table.insert(groups[label], row)
  end
  return groups
end

-- A series from rows with ms, ms_p10 and ms_p90.
local function curve(axis, group)
  local series = { x = {}, y = {}, low = {}, high = {}, label = group.label }
  table.sort(group, function(a, b) return a[axis.field] < b[axis.field] end)
  for i, row in ipairs(group) do
    series.x[i], series.y[i] = row[axis.field], row.ms
    series.low[i], series.high[i] = row.ms_p10 or row.ms, row.ms_p90 or row.ms
  end
  return series
end

-- The least possible times, as a group of rows. They are the same for every backend; of several types and devices
-- the first one's are shown.
local function floors(axis, rows)
  local first, group = rows[1], { label = "least possible" }
  if variety(rows, "dtype") > 1 then group.label = group.label .. ", " .. first.dtype end
  for _, row in ipairs(rows) do
    if row.floor_ms and row.backend == first.backend and row.dtype == first.dtype and row.device == first.device then
      group[#group + 1] = { [axis.field] = row[axis.field], ms = row.floor_ms }
    end
  end
  return group
end

-- What tells a curve from the others of its figure: the backend, and the type and the device where they differ.
local function labels(rows)
  local fields = { "backend" }
  for _, field in ipairs { "dtype", "device" } do
    if variety(rows, field) > 1 then fields[#fields + 1] = field end
  end
  return function(row)
    local words = {}
    for i, field in ipairs(fields) do words[i] = row[field] end
    return table.concat(words, ", ")
  end
end

-- The figure of some rows, or nil when no curve has points enough.
local function drawn(axis, rows, others)
  local spec, first = { logx = 2, logy = true, xlabel = axis.label, ylabel = "ms" }, rows[1]
  local enough = false
  for _, group in ipairs(grouped(rows, labels(rows))) do
    spec[#spec + 1] = curve(axis, group)
    enough = enough or variety(group, axis.field) >= POINTS_MIN
  end
  if not enough then return nil end
  local least = floors(axis, rows)
  if #least > 0 then spec[#spec + 1] = curve(axis, least) end
  local function system(row)
    local other = row.dtype ~= "" and row.dtype ~= first.dtype
    return ("%s%s, %s"):format(row.system, other and " " .. row.dtype or "", row.machine)
  end
  for _, group in ipairs(grouped(others, system)) do spec[#spec + 1] = curve(axis, group) end
  local types = variety(rows, "dtype") > 1 and "" or ", " .. first.dtype
  spec.title = ("%s%s: %s%s\n%s, %s"):format(first.cell, types, passes[first.pass],
    first.with_input and ", with input" or "", axis.words(first), first.device)
  spec.legend, spec.size = "outside bottom center", { 640, 400 + 24 * #spec }
  return plot.band(spec)
end

--- The figures that rows (of perilune.speed.records or perilune.speed.measure) have points enough for: a list of
-- { name = "heads-lstm-16x1024-inf", figure = }. `peers` (of records.peers, or nil) appear where cell, sizes, work and
-- pass are those of a figure.
function figures.of(rows, peers)
  local list = {}
  for _, axis in ipairs(axes) do
    local function name_of(row) return figure_of(axis, row) end
    local others = grouped(peers or {}, name_of)
    for _, group in ipairs(grouped(rows, name_of)) do
      local figure = drawn(axis, group, others[group.label] or {})
      if figure then list[#list + 1] = { name = group.label, figure = figure } end
    end
  end
  return list
end

return figures
