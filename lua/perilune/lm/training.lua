-- The training of experiments/lm.lua: a run that goes on from its checkpoint, and what it reports.
local experiment = require "perilune.experiment"
local floor = require "perilune.speed.floor"
local json_lines = require "perilune.json_lines"
local pl = require "perilune"
local Language = require "perilune.lm.model"

local training = {}

--- Where a run keeps its parameters.
function training.checkpoint_of(folder) return folder .. "/checkpoint.safetensors" end

-- The batch of a step as a list of its parts, each of as many rows.
local function parts_of(batch, count)
  local parts, rows = {}, batch.x.shape[1] // count
  for i = 1, count do
    local first = (i - 1) * rows + 1
    parts[i] = { x = batch.x:narrow(1, first, rows), y = batch.y:narrow(1, first, rows), first = batch.first, part = i }
  end
  return parts
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

local function evaluation_of(option, text, state, watch)
  if not text.validation then return nil end
  return function(model)
    watch.halt()
    local ids = text.validation:ids():to(option.device)
    local record = scores(text, model:loss_of(ids, option.batch // option.accumulate, option.length))
    record.seconds = state.seconds
    return record
  end
end

--- Operations per second of products that the device reached in a measurement, in the type of training.
local function peak_of(option)
  return floor.peaks(option.device, option.dtype).gflops * 1e9
end

-- Trains `model` and returns the history; state.seconds is what it took, earlier sessions included.
local function train(option, text, model, state, watch)
  local batches <close> = text.train:batches {
    rows = option.batch, length = option.length, seed = option.seed, contiguous = option.stateful, rank = 0, world = 1,
    device = option.device,
  }
  local history = pl.train.loop {
    model = model, steps = option.steps, clip = option.clip, schedule = schedule_of(option, state),
    optimizer = pl.optim.AdamW(model:groups(), { lr = option.lr, betas = { 0.9, 0.95 }, weight_decay = option.decay }),
    batch = function(step)
      watch.go()
      if option.seconds and state.seconds >= option.seconds then return nil end
      return parts_of(batches:batch(step), option.accumulate)
    end,
    loss = function(m, parts)
      local sum = m:loss(parts[1])
      for i = 2, #parts do sum = sum + m:loss(parts[i]) end
      return sum / #parts
    end,
    evaluate = evaluation_of(option, text, state, watch), evaluate_every = option.eval_every,
    log = option.out .. "/steps.jsonl", log_every = option.log_every, tensorboard = option.out .. "/events",
    checkpoint = training.checkpoint_of(option.out), checkpoint_every = option.eval_every, state = state,
    monitor = option.monitor, label = option.model,
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

-- The median ms of the steps, without those in which kernels are compiled and memory is found.
local function median_ms(steps)
  local values, skipped = {}, math.min(10, #steps // 2)
  for i = skipped + 1, #steps do values[#values + 1] = steps[i].ms end
  return (experiment.quantiles(values))
end

--- Trains by the options of experiments/lm.lua on what perilune.lm.text gave. Returns the model, evaluating, the record
-- of the result, and the records of its curves.
function training.run(option, text)
  pl.seed(option.seed)
  pl.reset_peak_memory(option.device)
  local model = Language(option, math.max(option.vocabulary or 0, text.vocabulary))
  if option.stateful then model:carry(option.batch // option.accumulate) end
  local state = { seconds = 0 } -- in the checkpoint
  local watch = stopwatch(state)
  local history = train(option, text, model, state, watch)
  model:eval()
  local steps, evaluations = history.steps, history.evaluations
  local last, done = evaluations[#evaluations], #steps > 0 and steps[#steps].step or history.resumed
  if text.validation and (not last or last.step < done) then -- the budget of seconds ended the training
    last = pl.no_grad(evaluation_of(option, text, state, watch), model)
    last.step = done
    evaluations[#evaluations + 1] = last
  end
  local row = { kind = "result", metric = "loss", parameters = model.net:parameter_count(), steps = done,
                seconds = state.seconds, step_ms = median_ms(steps), peak_bytes = pl.memory()[option.device].peak }
  for _, name in ipairs { "preset", "model", "heads", "width", "layers", "backend", "seed" } do
    row[name] = option[name]
  end
  for _, name in ipairs { "loss", "perplexity", "bits_per_byte" } do row[name] = last and last[name] end
  if row.step_ms then
    row.tokens_per_s = option.batch * option.length / row.step_ms * 1000
    row.of_peak = 6 * model:product_parameters() * row.tokens_per_s / peak_of(option)
  end
  local curves = curve(option.out .. "/steps.jsonl", 100)
  for _, record in ipairs(evaluations) do
    record.kind = "validation"
    curves[#curves + 1] = record
  end
  return model, row, curves
end

return training
