-- The training of experiments/lm.lua: a run that goes on from its checkpoint, and what it reports.
local experiment = require "perilune.experiment"
local floor = require "perilune.speed.floor"
local json_lines = require "perilune.json_lines"
local pl = require "perilune"
local Language = require "perilune.lm.model"

local training = {}

--- Where a run keeps its parameters.
function training.checkpoint_of(folder) return folder .. "/checkpoint.safetensors" end

-- batch(step, i) for pl.train.loop: the i-th of `count` parts of each batch, of as many rows each.
local function parts_of(batches, count)
  local whole
  return function(step, i)
    if i == 1 then
      whole = batches:batch(step)
      whole.x:keep() -- from the part's scope to the step's
      whole.y:keep()
    end
    local rows = whole.x.shape[1] // count
    local function part(ids) return ids:narrow(1, (i - 1) * rows + 1, rows) end
    return { x = part(whole.x), y = part(whole.y), first = whole.first, part = i }
  end
end

-- The learning rate of a step: a line up, half a cosine down to a tenth. With a budget of seconds the way is that of
-- the time, where it is ahead of the steps.
local function schedule_of(option, state)
  local cosine = pl.optim.cosine { warmup = option.warmup, total = option.steps, peak = option.lr,
                                   floor = option.lr / 10 }
  return function(step)
    if not option.seconds then return cosine(step) end
    return cosine(math.max(step, math.min(state.seconds / option.seconds, 1) * option.steps))
  end
end

-- Measures the seconds of training, without those of evaluation, into state.seconds, which a checkpoint holds.
local function stopwatch(state)
  local since
  return {
    go = function()
      local now = pl.time()
      if since then state.seconds = state.seconds + now - since end
      since = now
    end,
    halt = function()
      if since then state.seconds = state.seconds + pl.time() - since end
      since = nil
    end,
  }
end

-- A loss in nats per token in three forms.
local function scores(text, loss)
  return { loss = loss, perplexity = math.exp(loss), bits_per_byte = loss / math.log(2) / text.bytes_per_token }
end

-- evaluate(model) for pl.train.loop, if there is text for it.
local function evaluation_of(option, text, state, watch)
  if not text.validation then return nil end
  return function(model)
    watch.halt()
    local ids = text.validation:ids():to(option.device)
    local rows = option.batch // option.accumulate -- however many processes train: the loss depends on it
    local record = scores(text, model:loss_of(ids, rows, option.length))
    record.seconds = state.seconds
    return record
  end
end

-- Operations per second that products in the type of training reached on the GPU, when they were measured; nil for a
-- CPU, on which that takes longer than some trainings.
local function peak_of(option)
  return option.device ~= "cpu" and floor.peaks(option.device, option.dtype).gflops * 1e9 or nil
end

--- The batches of a run, to be closed. An error says when the text is too short for them.
function training.batches(option, text, job)
  return text.train:batches {
    rows = option.batch, length = option.length, seed = option.seed, contiguous = option.stateful, rank = job.rank,
    world = job.world, device = option.device,
  }
end

-- Trains `model` and returns the history. peak: operations per second of the device, or nil.
local function train(option, batches, model, job, state, watch, evaluate, peak)
  local part, per_token = parts_of(batches, job.parts), 6 * model:product_parameters() / job.world
  local history = pl.train.loop {
    model = model, steps = option.steps, clip = option.clip, schedule = schedule_of(option, state),
    optimizer = pl.optim.AdamW(model:groups(), { lr = option.lr, betas = { 0.9, 0.95 }, weight_decay = option.decay }),
    accumulate = job.parts,
    batch = function(step, i)
      watch.go()
      if i == 1 and option.seconds and state.seconds >= option.seconds then return nil end
      return part(step, i)
    end,
    loss = function(m, batch) return m:loss(batch) end,
    report = function(record)
      local rate = option.batch * option.length / record.ms * 1000
      return { tokens_per_s = rate, of_peak = peak and rate * per_token / peak }
    end,
    evaluate = evaluate, evaluate_every = option.eval_every, distributed = true,
    log = option.out .. "/steps.jsonl", log_every = option.log_every, tensorboard = option.out .. "/events",
    checkpoint = training.checkpoint_of(option.out), checkpoint_every = option.eval_every, state = state,
    label = option.model,
  }
  watch.halt()
  return history
end

-- The curve of the training loss from a run's log: means over at most `points` pieces.
local function curve(path, points)
  local losses = {}
  for _, record in ipairs(json_lines.read(path)) do
    if record.lr then losses[#losses + 1] = record end -- a step, not an evaluation
  end
  local each, list = math.ceil(#losses / points), {}
  for first = 1, #losses, math.max(each, 1) do
    local last, sum = math.min(first + each - 1, #losses), 0
    for i = first, last do sum = sum + losses[i].loss end
    list[#list + 1] = { kind = "train", step = losses[last].step, loss = sum / (last - first + 1) }
  end
  return list
end

-- The median of a number of the steps, without those in which kernels are compiled and memory is found.
local function median_of(steps, name)
  local values, skipped = {}, math.min(10, #steps // 2)
  for i = skipped + 1, #steps do values[#values + 1] = steps[i][name] end
  return (experiment.quantiles(values))
end

--- Trains by the options of experiments/lm.lua on what perilune.lm.text gave, and the batches of it. job: { rank =,
-- world = (of the processes that train together), parts = (of this one's batches), rows = (of each part) }. Returns the
-- model, evaluating, the record of the result, and the records of its curves.
function training.run(option, text, batches, job)
  local peak = peak_of(option)
  pl.reset_peak_memory(option.device) -- what measuring that took does not count
  pl.seed(option.seed + job.rank) -- for dropout of its own: parameters will be those of rank 0
  local model = Language(option, math.max(option.vocabulary or 0, text.vocabulary))
  if option.stateful then model:carry(job.rows) end
  local state = { seconds = 0 } -- of training, earlier sessions included: the checkpoint has it
  local watch = stopwatch(state)
  local evaluate = evaluation_of(option, text, state, watch)
  local history = train(option, batches, model, job, state, watch, evaluate, peak)
  model:eval()
  local steps, evaluations = history.steps, history.evaluations
  local last, done = evaluations[#evaluations], #steps > 0 and steps[#steps].step or history.resumed or 0
  if evaluate and (not last or last.step < done) then -- the budget of seconds ended the training
    last = pl.no_grad(evaluate, model)
    last.step = done
    evaluations[#evaluations + 1] = last
  end
  local row = { kind = "result", metric = "loss", parameters = model.net:parameter_count(), steps = done,
                seconds = state.seconds, peak_bytes = pl.memory()[option.device].peak }
  for _, name in ipairs { "preset", "model", "heads", "width", "layers", "backend", "seed" } do
    row[name] = option[name]
  end
  for _, name in ipairs { "loss", "perplexity", "bits_per_byte" } do row[name] = last and last[name] end
  for _, name in ipairs { "ms", "tokens_per_s", "of_peak" } do row[name] = median_of(steps, name) end
  if job.rank > 0 then return model, row, {} end -- the log is rank 0's
  local curves = curve(option.out .. "/steps.jsonl", 100)
  for _, record in ipairs(evaluations) do
    record.kind = "validation"
    curves[#curves + 1] = record
  end
  return model, row, curves
end

return training
