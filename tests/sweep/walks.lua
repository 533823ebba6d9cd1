-- What tests of sweeps share: sweeps of walk.lua in a folder of their own, and what the traces tell.
local core = require "perilune.core"
local program = require "bind.program"

local walks = {}

local here = core.working_directory()
walks.experiment = here .. "/tests/sweep/walk.lua"

--- Runs `perilune sweep WORDS`; returns its output, its errors and its status.
function walks.command(words, environment)
  return program.run { before = environment, args = "sweep " .. words }
end

--- Starts it in the background; returns the process's number, and a function that waits for it to end.
function walks.start(words, out)
  local pipe = assert(io.popen(("echo $$; exec %s sweep %s >%s 2>&1"):format(program.path, words, out)))
  return pipe:read "n", function() pipe:close() end
end

--- The lines of every run's trace, by the run's name without its number.
function walks.traces(folder)
  local traces = {}
  for _, name in ipairs(core.list_directory(folder .. "/runs", math.maxinteger) or {}) do
    local lines = {}
    local file <close> = io.open(folder .. "/runs/" .. name .. "trace")
    for line in (file and file:read "a" or ""):gmatch "[^\n]+" do lines[#lines + 1] = line end
    traces[name:match "^%d+_(.*)/$" or name] = lines
  end
  return traces
end

--- Holds a trace to what is true of every sweep: no two processes walked at once, each went on behind the last whole
-- step, all steps were taken, and the walk ended once. Returns how many processes it took.
function walks.check(lines, steps)
  local known, last, done, ended, count = {}, nil, 0, 0, 0
  local text = table.concat(lines, "\n")
  for _, line in ipairs(lines) do
    local what, number, process = line:match "^(%l+) ?(%d*) (%d+)$"
    if what == "begin" then
      assert(not known[process], text)
      known[process], last, count = true, process, count + 1
      -- It was ended between a step's trace and its checkpoint, or there is none between.
      assert(tonumber(number) == done + 1 or tonumber(number) == done, text)
      done = tonumber(number) - 1
    elseif what == "step" then
      assert(process == last and tonumber(number) == done + 1, text)
      done = done + 1
    else
      assert(what == "end" and process == last, text)
      ended = ended + 1
    end
  end
  assert(done == steps and ended == 1, text)
  return count
end

--- Waits until f() is true.
function walks.wait(f, what)
  local until_s = core.time() + 60
  while not f() do
    assert(core.time() < until_s, "waited in vain for " .. what)
    core.sleep(0.1)
  end
end

--- Whether a process is there and not just waiting to be buried.
function walks.alive(process)
  local file <close> = io.open("/proc/" .. process .. "/stat")
  local text = file and file:read "a" or ""
  return text ~= "" and not text:match "%) Z "
end

return walks
