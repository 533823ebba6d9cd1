-- What experiments share: the folder of the results, their file of JSON lines, the line that says where they ran, and
-- how they sum up measurements (perilune.speed takes them).
local core = require "perilune.core"
local json_lines = require "perilune.json_lines"
local tune = require "perilune.rnn.tune"

local experiment = {}

--- Makes a folder and those above it.
experiment.make_folder = core.make_directory

local function same(a, b) return core.json_encode { a } == core.json_encode { b } end

local function told(name, value)
  local option = "--" .. name:gsub("_", "-")
  return value == nil and "no " .. option or ("%s %s"):format(option, value)
end

-- Removes what processes that were killed while they wrote a checkpoint left of it.
local function remove_leftovers(folder)
  for _, name in ipairs(core.list_directory(folder, math.maxinteger) or {}) do
    if name:match "^checkpoint%.safetensors%.%w%w%w%w%w%w$" then os.remove(folder .. "/" .. name) end
  end
end

--- Makes the folder of a run that goes on from what it finds there, and returns the folder's lock, to be kept until
-- the run ends. run.json there has the options: a run with others, but for those that `free` names, is an error, and so
-- is a second run at once.
function experiment.claim(folder, options, free)
  core.make_directory(folder)
  local lock = core.lock(folder .. "/run.lock")
  if not lock then error(("another run is at work in '%s'"):format(folder), 0) end
  remove_leftovers(folder)
  local path = folder .. "/run.json"
  local file <close> = io.open(path)
  if not file then
    core.write_file(path, core.json_encode(options) .. "\n")
    return lock
  end
  local whole, before = pcall(core.json_decode, file:read "a")
  if not whole or type(before) ~= "table" then
    error(("'%s' is damaged: it should hold the options of the run in this folder"):format(path), 0)
  end
  local names = {}
  for _, list in ipairs { before, options } do
    for name in pairs(list) do names[name] = not free[name] end
  end
  for name, counts in pairs(names) do
    if counts and not same(before[name], options[name]) then
      error(("'%s' holds a run with %s, not %s; take another folder"):format(folder, told(name, before[name]),
        told(name, options[name])), 0)
    end
  end
  return lock
end

local function processor()
  local file = io.open("/proc/cpuinfo")
  if not file then return "processor unknown" end
  local name = file:read("a"):match("model name%s*:%s*([^\n]+)")
  file:close()
  return name or "processor unknown"
end

--- The device in words: processor and number of threads, or what the device says of itself.
function experiment.device_line(device)
  if device and device ~= "cpu" then
    for _, found in ipairs(core.devices()) do
      if found.name == device or found.name == device .. ":0" then return found.description end
    end
  end
  return ("%s: %s, %d threads"):format(device or "cpu", processor(), core.threads())
end

--- What a device line calls the device: its name without place, threads or memory.
function experiment.device_name(line) return (line:gsub("^%S+: ", ""):match("^[^,]+")) end

-- What takes the place of a file that nobody asked for.
local Nowhere = {}
Nowhere.__index = Nowhere
function Nowhere.write() end
function Nowhere.close() end
Nowhere.__close = Nowhere.close

-- The command line as it was typed, without the program's folder.
local function command_line()
  local words = { "perilune", table.unpack(arg or {}, 0) }
  return table.concat(words, " ")
end

--- A file of JSON lines at `path`, begun anew with a line { kind = "run", command, date, device, options, tuning =
-- (pl.tuning) }. Without a path, something to write to that keeps nothing.
function experiment.results(path, options)
  if not path then return setmetatable({}, Nowhere) end
  local results = json_lines.open(path)
  results:write { kind = "run", command = command_line(), date = os.date("!%Y-%m-%dT%H:%M:%SZ"),
                  device = experiment.device_line(options.device), options = options, tuning = tune.tuning() }
  return results
end

--- The records of one kind in a file of JSON lines. That there is none is an error, unless they `may_lack`.
function experiment.read(path, kind, may_lack)
  local records = {}
  for _, record in ipairs(json_lines.read(path)) do
    if record.kind == kind then records[#records + 1] = record end
  end
  if #records == 0 and not may_lack then error(("%s holds no record of kind '%s'"):format(path, kind), 0) end
  return records
end

--- The records of a file of JSON lines that holds those of several runs one behind another: for each run a table of
-- lists by kind.
function experiment.runs(path)
  local runs = {}
  for _, record in ipairs(json_lines.read(path)) do
    if record.kind == "run" or #runs == 0 then runs[#runs + 1] = {} end
    local run = runs[#runs]
    run[record.kind] = run[record.kind] or {}
    table.insert(run[record.kind], record)
  end
  if #runs == 0 then error(("%s holds no record"):format(path), 0) end
  return runs
end

local function quantile(sorted, share)
  return sorted[math.max(1, math.min(#sorted, math.floor(share * (#sorted - 1) + 1.5)))]
end

--- Sorts a list of numbers and returns its median, 10 % and 90 % quantile.
function experiment.quantiles(list)
  table.sort(list)
  return quantile(list, 0.5), quantile(list, 0.1), quantile(list, 0.9)
end

return experiment
