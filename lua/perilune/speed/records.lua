-- Measured recurrences read back: rows of experiments/speed.lua's JSON lines, those of older files, too, and the table
-- of other systems' times.
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local json_lines = require "perilune.json_lines"
local sweeps = require "perilune.speed.sweeps"

local records = {}

local function lines_of(path)
  local file, message = io.open(path)
  if not file then error(message, 0) end
  return file:lines()
end

-- Older rows say in `size` what newer ones say in fields, and leave cell, type and backend to the line of their run.
local function complete(row, run)
  for name, value in pairs(not row.batch and sweeps.parse(row.size) or {}) do row[name] = value end
  for _, name in ipairs { "cell", "backend", "dtype" } do row[name] = row[name] or run.options[name] end
  row.device_line, row.device = run.device, experiment.device_name(run.device)
  return row
end

--- The rows of kind "rnn" of a file, or of several that were put one behind the other, as perilune.speed.measure
-- returns them, and device_line. Where a setting was measured again on the same device, the last
-- counts. A file without rows is an error.
function records.read(path)
  local rows, places, run = {}, {}, nil
  for _, record in ipairs(json_lines.read(path)) do
    if record.kind == "run" then run = record end
    if record.kind == "rnn" then
      if not run then error(path .. ": the line of the run, with its options, is missing", 0) end
      if not record.batch and not sweeps.parse(tostring(record.size)) then
        error(("%s: a row has no size: %.60s"):format(path, core.json_encode(record)), 0)
      end
      local row = complete(record, run)
      local key = records.key(row) .. row.device
      places[key] = places[key] or #rows + 1
      rows[places[key]] = row
    end
  end
  if #rows == 0 then error(path .. " holds no measured recurrence", 0) end
  return rows
end

--- What two rows of the same setting have in common, as a text.
function records.key(row)
  return ("%s %s %s %s %s %s"):format(row.cell, row.backend, row.dtype, sweeps.text(row),
    row.with_input and "with input" or "recurrence", row.pass)
end

local columns <const> = { "system", "machine", "date", "cell", "dtype", "batch", "steps", "heads", "head_dim", "work",
                          "pass", "ms" }

local works <const> = { recurrence = false, ["with input"] = true }

-- One row of the table; nil for a time that there is none of.
local function peer(path, number, line)
  local row, place = {}, 0
  for word in (line .. ","):gmatch("([^,]*),") do
    place = place + 1
    row[columns[place] or "more"] = word
  end
  for _, name in ipairs { "batch", "steps", "heads", "head_dim" } do row[name] = math.tointeger(tonumber(row[name])) end
  row.with_input = works[row.work]
  local ms = tonumber(row.ms)
  if place ~= #columns or not (row.batch and row.steps and row.heads and row.head_dim) or row.with_input == nil
    or not ms and row.ms ~= "OOM" then
    error(("%s:%d: expected %s, got '%.60s'"):format(path, number, table.concat(columns, ","), line), 0)
  end
  row.ms = ms
  return ms and row
end

--- The rows of a CSV file of other systems' times, such as experiments/peers.csv: system, machine, date, cell, dtype,
-- batch, steps, heads, head_dim, with_input, pass, ms. Lines that begin with # are comments, the first other line names
-- the columns. What ran out of memory (OOM) is left out.
function records.peers(path)
  local rows, number, header = {}, 0, nil
  for line in lines_of(path) do
    number = number + 1
    if not line:match("^#") and line ~= "" then
      if header then
        rows[#rows + 1] = peer(path, number, line)
      else
        header = line
        local expected = table.concat(columns, ",")
        if header ~= expected then
          error(("%s:%d: expected the columns %s, got '%.60s'"):format(path, number, expected, header), 0)
        end
      end
    end
  end
  return rows
end

return records
