-- The folder of a sweep: sweep.json lists its runs, in an order that never changes; runs/NUMBER_OPTIONS/ holds one run
-- with its marks. What state a run is in is told by its marks and its lock alone, so that whoever looks, on whichever
-- machine, sees the same. Every file is complete or not there.
--
--   options.json   the run's options        DONE     it ended with status 0
--   started.json   when and where it began  FAILED   it ended otherwise: how, and its last words
--   log            what it printed          lock     held by whoever runs it, and by the run itself
local core = require "perilune.core"
local grid = require "perilune.sweep.grid"

local folder = {}

--- The value of a JSON file; nil where there is no whole one.
local function read(path)
  local file <close> = io.open(path, "rb")
  local text = file and file:read "a"
  local whole, value = pcall(core.json_decode, text or "")
  if whole then return value end
end
folder.read = read

local function write(path, value)
  core.write_file(path, core.json_encode(value) .. "\n")
end

function folder.now() return os.date "!%Y-%m-%dT%H:%M:%SZ" end

--- The machine, by Slurm's name for it where there is one.
function folder.host()
  local file <close> = io.open "/proc/sys/kernel/hostname"
  return os.getenv "SLURMD_NODENAME" or file and file:read "l" or "unknown"
end

-- ---------------------------------------------------------------------------------------------------------------------
-- One run

local Run = {}
Run.__index = Run

function Run:file(name) return self.path .. "/" .. name end

--- Writes one of the run's marks.
function Run:mark(name, value) write(self:file(name), value) end

--- What the run's folder tells, and the mark that says more: "done", "running", "failed", "interrupted" (it began, and
-- neither it nor its mark is there) or "missing". `mine`: the caller holds the lock.
function Run:state(mine)
  local running = not mine and core.locked(self:file "lock") -- first: the mark is written before the lock is given back
  local done, failed, started = read(self:file "DONE"), read(self:file "FAILED"), read(self:file "started.json")
  if done then return "done", done end
  if running then return "running", started or {} end
  if failed then return "failed", failed end
  if started then return "interrupted", started end
  return "missing", {}
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The sweep

local function absolute(path)
  return path:match "^/" and path or core.working_directory() .. "/" .. path
end

local function run_of(sweep, record)
  return setmetatable({ name = record.name, options = record.options,
                        path = ("%s/runs/%s"):format(sweep.path, record.name) }, Run)
end

-- The sweep of a folder, or nil where there is none yet.
local function load_sweep(path)
  local name = path .. "/sweep.json"
  local file <close> = io.open(name, "rb")
  if not file then return end
  local sweep = read(name)
  if type(sweep) ~= "table" or type(sweep.runs) ~= "table" then
    error(("'%s' is no whole description of a sweep"):format(name), 0)
  end
  sweep.path = absolute(path)
  for i, record in ipairs(sweep.runs) do sweep.runs[i] = run_of(sweep, record) end
  return sweep
end

--- The sweep of a folder: { path, experiment, directory = where it runs, arguments, names = of the options, id, runs,
-- asked = the numbers of those that were last asked for }.
function folder.open(path)
  return load_sweep(path) or error(("there is no sweep in '%s': it has no sweep.json"):format(path), 0)
end

local function key_of(options)
  local words = {}
  for name, value in pairs(options) do words[#words + 1] = name .. "=" .. value end
  table.sort(words)
  return table.concat(words, "\0")
end

-- A name that sorts by number and tells a person the options; a number makes it unique, so it may be cut.
local function name_of(number, options, names)
  local words = { ("%04d"):format(number) }
  for _, name in ipairs(names) do
    if options[name] then words[#words + 1] = name .. "=" .. options[name] end
  end
  return (table.concat(words, "_"):gsub("[^%w=._+-]", "-"):sub(1, 100))
end

local function random_id()
  local file <close> = assert(io.open("/dev/urandom", "rb"))
  return (file:read(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

--- Waits for the lock of the folder itself, under which runs are added and submitted.
function folder.hold(path)
  local patience_s <const>, look_s <const> = 30, 0.05
  for _ = 1, patience_s // look_s do
    local lock = core.lock(path .. "/lock")
    if lock then return lock end
    core.sleep(look_s)
  end
  error(("somebody else has held '%s/lock' for %d seconds"):format(path, patience_s), 0)
end

local function save(sweep)
  local copy = {}
  for name, value in pairs(sweep) do copy[name] = value end
  copy.path, copy.runs = nil, core.json_array {}
  for i, run in ipairs(sweep.runs) do copy.runs[i] = { name = run.name, options = run.options } end
  write(sweep.path .. "/sweep.json", copy)
end

local function same_list(a, b) return table.concat(a, "\0") == table.concat(b, "\0") end

-- A folder is of one experiment; only the grid may grow.
local function check_same(sweep, experiment, arguments)
  local function differs(what, old, new)
    error(("'%s' holds a sweep of the %s %s, not %s; --out names another folder"):format(sweep.path, what, old, new), 0)
  end
  local directory = core.working_directory()
  if sweep.experiment ~= experiment then differs("experiment", sweep.experiment, experiment) end
  if sweep.directory ~= directory then differs("folder", sweep.directory, directory) end
  if not same_list(sweep.arguments, arguments) then
    differs("arguments", "'" .. table.concat(sweep.arguments, " ") .. "'", "'" .. table.concat(arguments, " ") .. "'")
  end
end

--- Opens the folder, making it if need be, adds what is new of the grid `axes`, and returns the sweep.
function folder.add(path, experiment, axes, arguments)
  core.make_directory(path .. "/runs")
  local _ <close> = folder.hold(path)
  local sweep = load_sweep(path)
  if sweep then
    check_same(sweep, experiment, arguments)
  else
    sweep = { path = absolute(path), experiment = experiment, directory = core.working_directory(),
              arguments = core.json_array(arguments), names = core.json_array {}, id = random_id(), runs = {} }
  end
  local known, numbers = {}, {}
  sweep.asked = core.json_array {}
  for _, name in ipairs(sweep.names) do known[name] = true end
  for _, axis in ipairs(axes) do
    if not known[axis[1]] then table.insert(sweep.names, axis[1]) end
  end
  for i, run in ipairs(sweep.runs) do numbers[key_of(run.options)] = i end
  for _, options in ipairs(grid.product(axes)) do
    local number = numbers[key_of(options)]
    if not number then
      number = #sweep.runs + 1
      sweep.runs[number] = run_of(sweep, { name = name_of(number, options, sweep.names), options = options })
    end
    sweep.asked[#sweep.asked + 1] = number
  end
  save(sweep)
  return sweep
end

return folder
