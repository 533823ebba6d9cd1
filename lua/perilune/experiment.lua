-- What experiments share: the folder of the results, their file of JSON lines, the line that says where they ran, and
-- how they sum up measurements (perilune.speed takes them).
local core = require "perilune.core"
local tune = require "perilune.rnn.tune"

local experiment = {}

--- Makes a folder and those above it.
experiment.make_folder = core.make_directory

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

local Results = {}
Results.__index = Results

-- The command line as it was typed, without the program's folder.
local function command_line()
  local words = { "perilune", table.unpack(arg or {}, 0) }
  return table.concat(words, " ")
end

--- A file of JSON lines at `path`, begun anew with a line { kind = "run", command, date, device, options, tuning =
-- (pl.tuning) }. Without a path, something to write to that keeps nothing.
function experiment.results(path, options)
  if not path then return setmetatable({}, Results) end
  local file, message = io.open(path, "w")
  if not file then error("cannot write the results: " .. message, 0) end
  local results = setmetatable({ file = file, path = path }, Results)
  results:write { kind = "run", command = command_line(), date = os.date("!%Y-%m-%dT%H:%M:%SZ"),
                  device = experiment.device_line(options.device), options = options, tuning = tune.tuning() }
  return results
end

--- Writes one record; it is on disk afterwards.
function Results:write(record)
  if not self.file then return end
  assert(self.file:write(core.json_encode(record), "\n"))
  assert(self.file:flush())
end

function Results:close()
  if io.type(self.file) == "file" then self.file:close() end
end
Results.__close = Results.close

--- The records of one kind in a file of JSON lines. That there is none is an error, unless they `may_lack`.
function experiment.read(path, kind, may_lack)
  local records = {}
  local file, message = io.open(path)
  if not file then error(message, 0) end
  for line in file:lines() do
    local record = core.json_decode(line)
    if record.kind == kind then records[#records + 1] = record end
  end
  file:close()
  if #records == 0 and not may_lack then error(("%s holds no record of kind '%s'"):format(path, kind), 0) end
  return records
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
