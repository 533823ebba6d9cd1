-- How long code takes, told as IPython's %time and %timeit tell it. Waits for the devices, so that their work counts.
local core = require "perilune.core"

-- Cells may give other values to these names.
local error, ipairs, pack, time, settle, clock = error, ipairs, table.pack, core.time, core.settle, os.clock
local format, gsub, reverse, floor, sqrt = string.format, string.gsub, string.reverse, math.floor, math.sqrt

local timing = {}

-- A run is as many loops as take run_s: the first of 1, 10, 100, .. that do.
local run_s <const>, loops_max <const>, runs <const> = 0.2, 1000000000, 7

local units <const> = { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "µs" } }

--- A time in words: three digits and their unit.
function timing.words(seconds)
  local whole = floor(seconds + 0.5)
  if whole >= 3600 then return format("%d h %d min %d s", whole // 3600, whole // 60 % 60, whole % 60) end
  if seconds >= 60 then return format("%d min %d s", whole // 60, whole % 60) end
  for _, unit in ipairs(units) do
    if seconds >= unit[1] then return format("%.3g %s", seconds / unit[1], unit[2]) end
  end
  return format("%.3g ns", seconds * 1e9)
end
local words = timing.words

--- Begins a measurement. Returns a function that ends it and returns as text how long it took.
function timing.start()
  settle()
  local cpu_s, began_s = clock(), time()
  return function()
    settle()
    local wall_s = time() - began_s
    return format("CPU time: %s, wall time: %s", words(clock() - cpu_s), words(wall_s))
  end
end

--- Runs f once. Returns how long it took as text, and the table of what it returned.
function timing.once(f)
  local told = timing.start()
  local results = pack(f())
  return told(), results
end

local done <const> = {}

-- Seconds that `loop` takes for `count` rounds.
local function measure(loop, count)
  local began_s = time()
  if loop(count, done) ~= done then error("%timeit: the code returns, which ends its loop", 0) end
  settle()
  return time() - began_s
end

local function loops_for(loop)
  local count = 1
  while count < loops_max and measure(loop, count) < run_s do count = count * 10 end
  return count
end

local function counted(n, word)
  local digits = gsub(reverse(gsub(reverse(format("%d", n)), "(%d%d%d)", "%1,")), "^,", "")
  return format("%s %s%s", digits, word, n == 1 and "" or "s")
end

--- Measures loop(count, done), which runs a piece of code `count` times and returns its second argument, in several
-- runs; `given` may say how many loops and runs. Returns text: mean and standard deviation of a loop over the runs.
function timing.repeated(loop, given)
  settle()
  local loops, times, sum, squares = given.loops or loops_for(loop), {}, 0, 0
  for i = 1, given.runs or runs do
    times[i] = measure(loop, loops) / loops
    sum = sum + times[i]
  end
  local mean = sum / #times
  for _, t in ipairs(times) do squares = squares + (t - mean) ^ 2 end
  return format("%s ± %s per loop (mean ± std. dev. of %s, %s each)", words(mean), words(sqrt(squares / #times)),
    counted(#times, "run"), counted(loops, "loop"))
end

return timing
