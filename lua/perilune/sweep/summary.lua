-- What came out of a sweep: the results of its runs as a table with a row per setting, the option `seed` being what
-- runs of one setting differ in, as JSON lines, and as a plot.
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local plot = require "perilune.plot"

local summary = {}

local SEED <const> = "seed"

-- ---------------------------------------------------------------------------------------------------------------------
-- Results

-- The last record of kind "result" in the run's files of JSON lines; nil where there is none. A line that is not whole
-- is passed over: a process that was ended while it wrote leaves one behind.
local function result_of(run)
  local found
  local names = core.list_directory(run.path, math.maxinteger) or {}
  table.sort(names)
  for _, name in ipairs(names) do
    local file <close> = name:match "%.jsonl$" and io.open(run:file(name), "rb") or nil
    for line in (file and file:read "a" or ""):gmatch "[^\n]+" do
      local whole, record = pcall(core.json_decode, line)
      if whole and type(record) == "table" and record.kind == "result" then found = record end
    end
  end
  return found
end

--- Every run: { run =, state =, mark =, result = (of those that are done) }.
function summary.look(sweep)
  local rows = {}
  for i, run in ipairs(sweep.runs) do
    local state, mark = run:state()
    rows[i] = { run = run, state = state, mark = mark, result = state == "done" and result_of(run) or nil }
  end
  return rows
end

-- The options in which the runs differ, but for the seed.
local function varying(sweep, rows)
  local list = {}
  for _, name in ipairs(sweep.names) do
    local first, differ = rows[1].run.options[name], false
    for _, row in ipairs(rows) do differ = differ or row.run.options[name] ~= first end
    if differ and name ~= SEED then list[#list + 1] = name end
  end
  return list
end

-- The runs by setting, in their order: { { values = of the names, rows = }, .. }.
local function settings_of(names, rows)
  local list, by_key = {}, {}
  for _, row in ipairs(rows) do
    local values = {}
    for i, name in ipairs(names) do values[i] = row.run.options[name] or "" end
    local key = table.concat(values, "\0")
    if not by_key[key] then
      by_key[key] = { values = values, rows = {} }
      list[#list + 1] = by_key[key]
    end
    table.insert(by_key[key].rows, row)
  end
  return list
end

-- A field as a number: the last one of a list.
local function number_of(value)
  if type(value) == "table" then value = value[#value] end
  return type(value) == "number" and value or nil
end

-- Names of what the results tell in numbers: the one that they call their metric first. Lists count only there.
local function columns_of(rows)
  local metric, known, names = nil, {}, {}
  for _, row in ipairs(rows) do
    for name, value in pairs(row.result or {}) do
      if type(value) == "number" and not row.run.options[name] and name ~= SEED then known[name] = true end
    end
    metric = metric or row.result and row.result.metric
  end
  if metric then known[metric] = nil end
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  return metric, names
end

-- Least, median and greatest of what f finds in the rows; nothing where it finds nothing.
local function spread(rows, f)
  local list = {}
  for _, row in ipairs(rows) do list[#list + 1] = row.result and f(row.result) end
  if #list == 0 then return end
  local median = experiment.quantiles(list)
  return list[1], median, list[#list]
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The table

local function shown(number)
  if not number then return "" end
  return math.type(number) == "integer" and tostring(number) or ("%.4g"):format(number)
end

-- Words in columns: those of the first `left` columns begin together, those of the others end together.
local function aligned(table_rows, left)
  local widths, lines = {}, {}
  for _, words in ipairs(table_rows) do
    for i, word in ipairs(words) do widths[i] = math.max(widths[i] or 0, #word) end
  end
  for r, words in ipairs(table_rows) do
    local padded = {}
    for i, word in ipairs(words) do
      local space = (" "):rep(widths[i] - #word)
      padded[i] = i <= left and word .. space or space .. word
    end
    lines[r] = table.concat(padded, "  "):gsub(" +$", "")
  end
  return table.concat(lines, "\n")
end

--- The table as text: a row per setting with its options, how many of its runs are done, least, median and greatest of
-- the metric, and the medians of the other numbers.
function summary.table(sweep, rows)
  local names = varying(sweep, rows)
  local metric, others = columns_of(rows)
  local head = table.move(names, 1, #names, 1, {})
  head[#head + 1] = "done"
  if metric then table.move({ metric .. ": least", "median", "greatest" }, 1, 3, #head + 1, head) end
  table.move(others, 1, #others, #head + 1, head)
  local lines = { head }
  for _, setting in ipairs(settings_of(names, rows)) do
    local words = table.move(setting.values, 1, #names, 1, {})
    local done = 0
    for _, row in ipairs(setting.rows) do done = done + (row.state == "done" and 1 or 0) end
    words[#words + 1] = ("%d/%d"):format(done, #setting.rows)
    if metric then
      local least, median, greatest = spread(setting.rows, function(r) return number_of(r[metric]) end)
      table.move({ shown(least), shown(median), shown(greatest) }, 1, 3, #words + 1, words)
    end
    for _, name in ipairs(others) do
      local _, median = spread(setting.rows, function(r) return number_of(r[name]) end)
      words[#words + 1] = shown(median)
    end
    lines[#lines + 1] = words
  end
  return aligned(lines, #names)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Files

--- Writes summary.jsonl: a record of kind "run" for each.
function summary.write(sweep, rows)
  local lines = {}
  for i, row in ipairs(rows) do
    lines[i] = core.json_encode { kind = "run", name = row.run.name, options = row.run.options, state = row.state,
                                  reason = row.mark.reason, seconds = row.mark.seconds, result = row.result }
  end
  core.write_file(sweep.path .. "/summary.jsonl", table.concat(lines, "\n") .. "\n")
end

local function label_of(sweep, names, values)
  if #names == 0 then return sweep.experiment:match "[^/]*$" end
  if #names == 1 then return values[1] end
  local words = {}
  for i, name in ipairs(names) do words[i] = name .. " " .. values[i] end
  return table.concat(words, ", ")
end

-- Curves over the list that the results name as x: the median of a setting's runs between the least and the greatest.
local function curves(settings, metric, x)
  local series = { xlabel = x, ylabel = metric }
  for _, setting in ipairs(settings) do
    local one = { label = setting.label, x = nil, y = {}, low = {}, high = {} }
    for _, row in ipairs(setting.rows) do one.x = one.x or row.result and row.result[x] end
    for i = 1, #(one.x or {}) do
      one.low[i], one.y[i], one.high[i] = spread(setting.rows, function(r)
        local list = r[metric]
        return type(list) == "table" and number_of(list[i]) or nil
      end)
    end
    if #one.y > 0 and #one.y == #one.x then series[#series + 1] = one end
  end
  if #series == 0 then return end
  local longest = series[1].x
  if longest[1] > 0 and longest[#longest] >= 8 * longest[1] then series.logx = 2 end
  return plot.band(series)
end

-- Bars of the median per setting; of the least and the greatest, too, where a setting has several runs.
local function bars(settings, metric)
  local labels, least, median, greatest, several = {}, {}, {}, {}, false
  for _, setting in ipairs(settings) do
    local low, middle, high = spread(setting.rows, function(r) return number_of(r[metric]) end)
    if middle then
      local i = #labels + 1
      labels[i], least[i], median[i], greatest[i] = setting.label, low, middle, high
      several = several or #setting.rows > 1
    end
  end
  if #labels == 0 then return end
  local series = { ylabel = metric, { x = labels, y = median, label = "median" } }
  if several then
    table.insert(series, 1, { x = labels, y = least, label = "least" })
    table.insert(series, { x = labels, y = greatest, label = "greatest" })
  end
  return plot.bar(series)
end

--- Draws summary.svg. Returns its path, or nil and why there is none.
function summary.draw(sweep, rows)
  local metric, others = columns_of(rows)
  if not metric then return nil, #others > 0 and "no result names its metric" or "there is no result yet" end
  local names, x = varying(sweep, rows), nil
  local settings = settings_of(names, rows)
  for _, setting in ipairs(settings) do setting.label = label_of(sweep, names, setting.values) end
  for _, row in ipairs(rows) do x = x or row.result and row.result.x end
  local figure = x and curves(settings, metric, x) or not x and bars(settings, metric)
  if not figure then return nil, ("no result has the numbers of its metric '%s'"):format(metric) end
  local path = sweep.path .. "/summary.svg"
  local drawn, why_not = pcall(figure.save, figure, path)
  if not drawn then return nil, why_not end
  return path
end

return summary
