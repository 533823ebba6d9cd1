-- The program's start, and on a GPU its first results with and without compiled kernels on disk: experiments/speed.lua
-- --what startup.
local experiment = require "perilune.experiment"
local process = require "perilune.speed.process"
local speed = require "perilune.speed"

-- What another perilune does first on the device: the time to the result in ms, and what was compiled on the way.
-- `before` is done before the clock starts.
local recurrence <const> = [[
    local wx = pl.randn { 16, 64, pl.cells[cell]:count "input", 1, units, dtype = dtype, device = device }
    local layer = pl.nn.RNN { input_size = units, hidden_size = units, cell = cell }:to(dtype):to(device).layer1
    wx:requires_grad()
    pl.rnn(wx, layer.recurrent, layer.bias, { cell = cell, backend = backend }):sum():backward()
    wx.grad:sum():item()
]]
local first_on_device <const> = {
  { "first operation", "pl.ones { 1000, device = device }:sum():item()" },
  { "first gradient of a recurrence", recurrence },
  { "gradient of a recurrence of 64 units after one of 32", recurrence,
    before = "do local units = 32\n" .. recurrence .. "end" },
}

local function first_on_device_ms(job, row, cache)
  return process.run(([[
    local pl = require "perilune"
    local device, dtype, cell, backend, units = %q, %q, %q, %q, 64
    %s
    local before, began_s = pl.compilations(device), pl.time()
    %s
    local now = pl.compilations(device)
    now.compiled, now.total_ms = now.compiled - before.compiled, now.total_ms - before.total_ms
    now.ms = 1000 * (pl.time() - began_s)
    print(pl.json_encode(now))]]):format(job.device, job.dtype, job.cell, job.backend, row.before or "",
    row[2]), cache)
end

-- A GPU's first results in a process of their own, without and with compiled kernels on disk.
local function cold_starts(job, results)
  local count <const> = math.min(job.repeats, 5) -- each of them is a process with a context on the GPU
  for _, row in ipairs(first_on_device) do
    local times, slowest_ms, total_ms, compiled = { cold = {}, warm = {} }, 0, 0, 0
    for i = 1, count do
      process.with_cache(function(cache)
        for _, state in ipairs { "cold", "warm" } do
          local seen = first_on_device_ms(job, row, cache)
          times[state][i] = seen.ms
          slowest_ms, total_ms = math.max(slowest_ms, seen.most_ms), total_ms + seen.total_ms
          compiled = compiled + seen.compiled
          assert(state == "cold" or seen.compiled == 0, "a kernel that was on disk was compiled again")
        end
      end)
    end
    for _, state in ipairs { "cold", "warm" } do
      local ms, low, high = experiment.quantiles(times[state])
      print(("%s, %s cache of kernels: %7.1f ms (p10 %.1f, p90 %.1f)"):format(row[1], state, ms, low, high))
      results:write { kind = "startup", script = row[1], cache = state, ms = ms, ms_p10 = low, ms_p90 = high }
    end
    print(("  compiled: %d kernels in each, %.1f ms per kernel, at most %.1f ms"):format(compiled // count,
      total_ms / compiled, slowest_ms))
    results:write { kind = "compile", script = row[1], kernels = compiled // count, ms = total_ms / compiled,
                    ms_max = slowest_ms }
  end
end

--- Measures job = { cell =, backend =, dtype =, device =, repeats = }, prints it, and writes records to `results`.
return function(job, results)
  for _, what in ipairs { { "nothing", "" }, { "perilune", 'require "perilune"' } } do
    -- Without the variable with which this process has begun again (host/main.c), as from a shell.
    local command = ("unset GOMP_SPINCOUNT; %s -e '%s'"):format(process.program(), what[2])
    local ms, low, high = experiment.quantiles(speed.times(function() assert(os.execute(command)) end, "cpu", job))
    print(("start, run %-28s and leave: %7.2f ms (p10 %.2f, p90 %.2f)"):format(what[1], ms, low, high))
    results:write { kind = "startup", script = what[2], ms = ms, ms_p10 = low, ms_p90 = high }
  end
  if job.device ~= "cpu" then cold_starts(job, results) end
end
