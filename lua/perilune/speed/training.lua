-- A training step on parity, and what ten thousand of them leave in memory: experiments/speed.lua --what training and
-- --what memory. A job is { cell =, backend =, dtype =, device =, repeats = }; 16-bit types are those of the products,
-- the parameters being float32.
local experiment = require "perilune.experiment"
local pl = require "perilune"
local speed = require "perilune.speed"

local training = {}

-- The parameters' type, and the type of the products where it is another.
local function types_of(job)
  local half = job.dtype == "bfloat16" or job.dtype == "float16"
  return half and "float32" or job.dtype, half and job.dtype or nil
end

-- The options of a training loop on parity: one recurrent layer, a linear layer, Adam, gradients clipped.
local function parity_training(job, shape)
  local dtype, autocast = types_of(job)
  local task = pl.task.parity { size = shape.batch, min = shape.min, max = shape.max, dtype = dtype,
                                device = job.device }
  local rnn = pl.nn.RNN { input_size = 2, hidden_size = shape.units, cell = job.cell, backend = job.backend }
  local model = pl.nn.Sequential(rnn, pl.nn.Linear(shape.units, 2)):to(dtype):to(job.device)
  return {
    model = model, optimizer = pl.optim.Adam(model:parameters(), { lr = 3e-3 }), clip = 1, autocast = autocast,
    batch = function(step) return task:batch(step) end,
    loss = function(m, batch) return pl.nn.cross_entropy(m(batch.x), batch.y) end,
  }
end

--- Measures a training step, from one's beginning to the next one's: what a user waits for, the batch and the host's
-- work included. Prints it, and writes a record to `results`.
function training.step(job, results)
  local batch <const>, steps <const>, units <const> = 64, 40, 64
  local warm_up <const>, began_s, times = 20, nil, {}
  local loop = parity_training(job, { batch = batch, min = steps, max = steps, units = units })
  local draw = loop.batch
  loop.steps, loop.progress = warm_up + 10 * job.repeats + 1, false
  loop.batch = function(step)
    local now_s = pl.time()
    if step > warm_up + 1 then times[#times + 1] = 1000 * (now_s - began_s) end
    began_s = now_s
    return draw(step)
  end
  pl.train.loop(loop)
  local count = #times
  local ms, low, high = experiment.quantiles(times)
  local draw_ms = experiment.quantiles(speed.times(function() draw(1) end, "cpu", job))
  print(("%s, %s %s, %s"):format(experiment.device_line(job.device), job.backend, job.cell, job.dtype))
  print(("parity training step, B=%d T=%d D=%d: %.3f ms (p10 %.3f, p90 %.3f; %d steps), of which %.3f ms are the batch")
    :format(batch, steps, units, ms, low, high, count, draw_ms))
  results:write { kind = "training", batch = batch, steps = steps, units = units, ms = ms, ms_p10 = low, ms_p90 = high,
                  batch_ms = draw_ms }
end

local function resident_bytes()
  local file <close> = assert(io.open("/proc/self/statm"))
  local pages = file:read("a"):match("^%d+ (%d+)")
  return tonumber(pages) * 4096
end

--- Trains for ten thousand steps and tells of memory every thousand.
function training.memory(job, results)
  local loop = parity_training(job, { batch = 64, units = 32 })
  local first, last
  print(("%6s %14s %10s %14s %14s %14s"):format("step", "resident bytes", "buffers", "live bytes", "cached bytes",
    "peak bytes"))
  loop.steps, loop.label, loop.evaluate_every = 10000, "memory", 1000
  loop.evaluate = function(_, step)
    local now = speed.memory(job.device)
    last = { kind = "memory", step = step, resident = resident_bytes(), buffers = now.buffers, live = now.live,
             cached = now.cached, peak = now.peak }
    first = first or last
    results:write(last)
    print(("%6d %14d %10d %14d %14d %14d"):format(step, last.resident, last.buffers, last.live, last.cached,
      last.peak))
    return now.buffers
  end
  pl.train.loop(loop)
  print(("from step %d to %d: %+d bytes resident, %+d buffers, %+d bytes live, %+d cached"):format(first.step,
    last.step, last.resident - first.resident, last.buffers - first.buffers, last.live - first.live,
    last.cached - first.cached))
end

return training
