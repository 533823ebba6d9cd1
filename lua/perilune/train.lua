-- pl.train: the training loop, with a scope per step, progress, evaluation and logs.
local pl = require "perilune"
local core = require "perilune.core"
local checkpoint = require "perilune.checkpoint"
local declared = require "perilune.code.declared"
local json_lines = require "perilune.json_lines"
local check = require "perilune.nn.check"
local module = require "perilune.nn.module"
local optim = require "perilune.optim"
local parallel = require "perilune.distributed.parallel"

local train = {}

local known <const> = {
  model = check.none, optimizer = check.none, steps = check.none, batch = check.none, loss = check.none,
  autocast = check.none, scaler = check.none, clip = check.none, schedule = check.none, evaluate = check.none,
  evaluate_every = check.none, log = check.none, tensorboard = check.none, checkpoint = check.none,
  checkpoint_every = check.none, state = check.none, monitor = check.none, report = check.none, accumulate = 1,
  log_every = 1, progress = true, label = "train", distributed = false,
}

local function read_options(given)
  local who, option = "train.loop", check.options("train.loop", given, known)
  if not module.is_module(option.model) then
    check.fail("%s: model: expected a module, got a %s", who, type(option.model))
  end
  if type(option.optimizer) ~= "table" or not option.optimizer.step then
    check.fail("%s: optimizer: expected an optimiser of pl.optim, got a %s", who, type(option.optimizer))
  end
  check.integer(who, "steps", option.steps)
  check.callable(who, "batch", option.batch)
  check.callable(who, "loss", option.loss)
  check.integer(who, "log_every", option.log_every)
  check.integer(who, "accumulate", option.accumulate)
  if option.report then check.callable(who, "report", option.report) end
  if option.autocast and option.autocast ~= "bfloat16" and option.autocast ~= "float16" then
    check.fail('%s: autocast: expected "bfloat16" or "float16", got %s', who, tostring(option.autocast))
  end
  if option.scaler and (type(option.scaler) ~= "table" or not option.scaler.unscale_) then
    check.fail("%s: scaler: expected an optim.GradScaler, got a %s", who, type(option.scaler))
  end
  if option.autocast == "float16" then option.scaler = option.scaler or optim.GradScaler() end
  if option.clip then check.number(who, "clip", option.clip, 0) end
  if option.schedule then check.callable(who, "schedule", option.schedule) end
  if option.evaluate then
    check.callable(who, "evaluate", option.evaluate)
    option.evaluate_every = check.integer(who, "evaluate_every", option.evaluate_every or option.steps)
  end
  for _, name in ipairs { "log", "tensorboard" } do
    if option[name] then check.kind(who, name, option[name], "string") end
  end
  if option.checkpoint then
    check.kind(who, "checkpoint", option.checkpoint, "string")
    local every = option.checkpoint_every or option.evaluate and option.evaluate_every or option.steps
    option.checkpoint_every = check.integer(who, "checkpoint_every", every)
  end
  option.state = check.kind(who, "state", option.state or {}, "table")
  option.ranks = parallel.new(option.distributed)
  if not option.ranks.main then
    for _, name in ipairs { "log", "tensorboard", "monitor", "progress" } do option[name] = nil end
  end
  if option.monitor == true then
    option.monitor = pl.monitor { title = tostring(option.label) }
  elseif option.monitor and (type(option.monitor) ~= "table" or not option.monitor.add) then
    check.fail("%s: monitor: expected true or a pl.monitor, got %s", who, check.shown(option.monitor))
  end
  return option
end

-- The log. With a checkpoint it is cut back to where the training goes on, which is its start where there was no
-- checkpoint yet; otherwise it is appended to.
local function open_log(option, resumed)
  if not option.log then return nil end
  if option.checkpoint then
    json_lines.cut(option.log, function(record) return record.step and record.step <= resumed end)
  end
  return json_lines.open(option.log, "a")
end

local function not_finite(x)
  return x ~= x or x == math.huge or x == -math.huge
end

local function forward(option, batch)
  if option.autocast then return pl.autocast(option.autocast, option.loss, option.model, batch) end
  return option.loss(option.model, batch)
end

-- Ends an error of a training that must not go on: where to go back to.
local function last_good(option)
  if not option.checkpoint then return "" end
  if option.saved == 0 then return "; there is no checkpoint yet" end
  return ("; the last good checkpoint is '%s', of step %d"):format(option.checkpoint, option.saved)
end

-- Moves the gradients of parameters of 16 bits to `sums`, where they add up in float32 (those of others do so anyway).
local function add_up(parameters, sums)
  for i, p in ipairs(parameters) do
    local gradient = p.grad
    if gradient and (p.dtype == "bfloat16" or p.dtype == "float16") then
      if sums[i] then
        sums[i]:add_(gradient)
      else
        sums[i] = gradient:float():keep()
      end
      p.grad = nil
    end
  end
end

-- Forward and backward over a step's micro-batches, each in a scope of its own, which leave the gradients of the mean
-- of their losses. Returns that mean, a tensor; nil when the batches have ended.
local function run_batches(option, parameters, step)
  local count, sums, total = option.accumulate, {}, nil
  for i = 1, count do
    local _ <close> = pl.scope()
    local batch = option.batch(step, i)
    if batch == nil then return nil end
    if i == 1 then option.optimizer:zero_grad() end
    local loss = forward(option, batch)
    if count > 1 then loss = loss / count end
    option.ranks:backward(option.scaler and option.scaler:scale(loss) or loss, i < count)
    if count > 1 then add_up(parameters, sums) end
    total = (total and total + loss:detach() or loss:detach()):keep()
  end
  for i, sum in pairs(sums) do parameters[i].grad = sum:to(parameters[i].dtype) end
  return total
end

local smallest_scale <const> = 2 ^ -14

-- Clips the gradients and changes the parameters, unless a scaler found a gradient that is not finite.
local function update(option, parameters, record)
  local scaler = option.scaler
  local good = not scaler or scaler:unscale_(option.optimizer)
  if scaler then record.scale, record.skipped = scaler:get_scale(), not good end
  if scaler and not good and record.scale < smallest_scale then
    check.fail("train.loop: the gradient of step %d is not finite at any scale of the loss (now %g)%s", record.step,
      record.scale, last_good(option))
  end
  if good and option.clip then
    record.grad_norm = optim.clip_grad_norm(parameters, option.clip)
    if not_finite(record.grad_norm) then
      check.fail("train.loop: the gradient of step %d is %s (loss %g); the parameters are those before this step%s",
        record.step, tostring(record.grad_norm), record.loss, last_good(option))
    end
  end
  if not scaler then return option.optimizer:step() end
  scaler:step(option.optimizer)
  scaler:update()
end

-- Adds what the user reports of a step to its record. Returns it.
local function reported(option, record)
  if not option.report then return nil end
  local numbers = option.report(record)
  if type(numbers) ~= "table" then
    check.fail("train.loop: report: expected it to return a table of numbers, got a %s", type(numbers))
  end
  for name, value in pairs(numbers) do
    if type(name) ~= "string" or type(value) ~= "number" or record[name] ~= nil then
      check.fail("train.loop: report: expected numbers under new names, got %s = %s", tostring(name), tostring(value))
    end
    record[name] = value
  end
  return numbers
end

-- One step inside its own scope. Returns its record, and the part of it that the user reported; nil when the batches
-- have ended.
local function take_step(option, parameters, step)
  local _ <close> = pl.scope()
  local began_s = pl.time()
  local loss = run_batches(option, parameters, step)
  if loss == nil then return nil end
  local lr = option.schedule and option.schedule(step)
  if lr then option.optimizer:set_lr(lr) end
  -- Waiting for the loss comes after all that can be asked of a GPU before.
  local record = { step = step, loss = option.ranks:mean(loss), lr = option.optimizer:lr() }
  if not_finite(record.loss) then
    check.fail("train.loop: the loss of step %d is %s; the parameters are those before this step%s", step,
      tostring(record.loss), last_good(option))
  end
  update(option, parameters, record)
  record.ms = (pl.time() - began_s) * 1000
  return record, reported(option, record)
end

-- Runs the user's evaluation without gradients and with dropout off. Returns its table of numbers, and whether to stop.
local function evaluate(option, step)
  local _ <close> = pl.scope()
  option.model:eval()
  local result, stop
  pl.no_grad(function() result, stop = option.evaluate(option.model, step) end)
  option.model:train()
  if type(result) == "number" then result = { value = result } end
  if type(result) ~= "table" then
    check.fail("train.loop: evaluate: expected it to return a number or a table of numbers, got a %s", type(result))
  end
  return result, option.ranks:agree(stop)
end

-- The numbers of a record but its step, under their names behind a prefix.
local function numbers_of(record, prefix)
  local numbers = {}
  for name, value in pairs(record) do
    if type(value) == "number" and name ~= "step" then numbers[prefix .. name] = value end
  end
  return numbers
end

-- Writes a record to the log and, under names behind a prefix, to TensorBoard's events, where there are these.
local function write(log, events, record, prefix)
  if log then log:write(record) end
  if not events then return end
  for name, value in pairs(numbers_of(record, prefix)) do events:scalar(name, value, record.step) end
end

-- The numbers of a record but its step, as words "NAME VALUE" by name, NAME behind a prefix.
local function words_of(record, prefix)
  local numbers, names = numbers_of(record, prefix), {}
  for name in pairs(numbers) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    names[i] = (math.abs(numbers[name]) < 1000 and "%s %.4g" or "%s %.0f"):format(name, numbers[name])
  end
  return names
end

-- The line beside the bar: the loss, with clip the gradient's norm, what was reported of the step, and what the last
-- evaluation gave.
local function summary(record, report, evaluation)
  local words = { ("loss %.4f"):format(record.loss) }
  if record.grad_norm then words[2] = ("grad_norm %.3g"):format(record.grad_norm) end
  for _, list in ipairs { words_of(report or {}, ""), words_of(evaluation or {}, "evaluation ") } do
    table.move(list, 1, #list, #words + 1, words)
  end
  return table.concat(words, ", ")
end

-- What a monitor is given of a step's record: no curve that stays flat.
local function curves_of(option, record)
  return { loss = record.loss, grad_norm = record.grad_norm, lr = option.schedule and record.lr or nil }
end

-- The function that gives a step's values to the monitor, if there is one. Outside a notebook a monitor draws a line,
-- whose place the progress bar has taken.
local function watcher_of(option)
  if not option.monitor then return function() end end
  local quiet = option.progress and core.frontend() ~= "kernel"
  local take = quiet and option.monitor.add or option.monitor.log
  return function(step, values) take(option.monitor, step, values) end
end

local function steps_of(option, resumed)
  if option.progress then return require "perilune.progress"(resumed + 1, option.steps, option.label) end
  return function(last, i)
    if i < last then return i + 1 end
  end, option.steps, resumed
end

-- What a checkpoint holds: objects with tensors of their own.
local function parts_of(option)
  return { model = option.model, optimizer = option.optimizer, scaler = option.scaler, ranks = option.ranks }
end

-- Goes back to the last checkpoint, if there is one. Returns the step it was made after, else 0.
local function resume(option, history)
  local found = option.checkpoint and checkpoint.load(option.checkpoint, parts_of(option))
  if not found then return 0 end
  history.evaluations, history.stopped, history.resumed = found.evaluations, found.stopped, found.step
  for name in pairs(option.state) do option.state[name] = nil end
  for name, value in pairs(found.state) do option.state[name] = value end
  return found.step
end

-- A checkpoint is a good one: a training whose parameters are not finite must not write over the last.
local function save(option, history, step)
  local norm = optim.get_total_norm(option.model:parameters())
  if not_finite(norm) then
    check.fail("train.loop: the norm of the parameters is %s after step %d%s", tostring(norm), step, last_good(option))
  end
  option.ranks:save(function()
    checkpoint.save(option.checkpoint, parts_of(option), {
      step = step, state = option.state, evaluations = core.json_array(history.evaluations),
      stopped = history.stopped,
    })
  end)
  option.saved = step
end

--- Trains and returns the history: steps, a list of { step =, loss =, lr =, grad_norm =, ms = }, with a scaler also
-- scale and skipped; evaluations, a list of what evaluate returned, with step; stopped = true when an evaluation ended
-- it early.
--   model, optimizer, steps
--   batch(step, i)      the step's batch, anything but nil; nil ends the training (so an iterator fits, too)
--   loss(model, batch)  a tensor of one element
--   accumulate          micro-batches per step, 1 by default: batch is called for i = 1 .. accumulate, and the step
--                       follows the mean of their losses, as it would that of one batch of them all if they are equally
--                       large. Gradients of parameters of 16 bits add up in float32. A step whose micro-batches end
--                       early is not taken
--   autocast            "bfloat16" or "float16": the type of the products of float32 tensors, as in pl.autocast; the
--                       parameters stay float32. With "float16" the loss is scaled, and steps with gradients beyond
--                       its range are skipped, by `scaler`
--   scaler              an optim.GradScaler; with autocast = "float16" a new one unless given
--   clip                greatest common norm of the gradients; math.huge only measures it
--   schedule(step)      the learning rate
--   evaluate(model, step), evaluate_every   returns a number or a table of numbers, and true to stop; runs without
--                       gradients, in evaluation mode, also at the last step
--   log, log_every      file to which each record is appended as a line of JSON; with a checkpoint it is cut back
--   tensorboard         folder of event files (pl.tensorboard): the numbers of the same records, an evaluation's as
--                       "evaluation/NAME". A training that goes on does so in a new file there
--   checkpoint, checkpoint_every   file (pl.checkpoint) that is written every so many steps (by default with each
--                       evaluation) and at the end. When it is there at the start, training goes on from it as if it
--                       had not stopped: with its parameters, optimiser, scaler, random numbers, state and evaluations.
--                       The log is cut back to it, or to nothing where there is none. history.resumed is its step
--   state               a table of plain values that the functions keep, which the checkpoint has, too
--   monitor             true, or a pl.monitor: curves that grow while the loop runs, of the loss, with clip of the
--                       gradient's norm, with a schedule of the learning rate, and of what evaluate returns
--   report(record)      returns a table of numbers that join the step's record and stand beside the bar, such as
--                       tokens per second from record.ms
--   progress, label     whether to show progress, and under which name
--   distributed         true: the ranks of the job (pl.distributed) train this model together, as one process would
--                       with a batch of all their rows. Each gives its own rows as its batch; parameters are rank 0's
--                       at the start, gradients and the recorded loss are means over the ranks. Rank 0 alone writes
--                       and shows things, and its evaluation decides; state is to be the same on all
-- Every micro-batch, step and evaluation has a scope of its own: what they make is gone afterwards. A loss, a
-- gradient (with clip) or, before a checkpoint, parameters that are not finite are an error that names the step and the
-- last good checkpoint.
function train.loop(options)
  local option = read_options(options)
  local parameters = option.model:parameters()
  local history, evaluation = { steps = {}, evaluations = {} }, nil
  local resumed = resume(option, history)
  option.ranks:begin(option.model, option.optimizer, resumed)
  if history.stopped or resumed >= option.steps then return history end
  local log <close> = open_log(option, resumed)
  local events <close> = option.tensorboard and pl.tensorboard(option.tensorboard, resumed + 1)
  local watch, _ <close> = watcher_of(option), option.monitor
  option.model:train()
  local done = resumed
  option.saved = resumed
  for step, bar in steps_of(option, resumed) do
    local record, report = take_step(option, parameters, step)
    if not record then break end
    history.steps[#history.steps + 1] = record
    if step % option.log_every == 0 then write(log, events, record, "") end
    watch(step, curves_of(option, record))
    local stop
    if option.evaluate and (step % option.evaluate_every == 0 or step == option.steps) then
      evaluation, stop = evaluate(option, step)
      evaluation.step = step
      history.evaluations[#history.evaluations + 1] = evaluation
      write(log, events, evaluation, "evaluation/")
      watch(step, numbers_of(evaluation, "evaluation "))
    end
    if bar then bar:message("%s", summary(record, report, evaluation)) end
    done, history.stopped = step, stop or nil
    if option.checkpoint and step % option.checkpoint_every == 0 then
      save(option, history, step)
    end
    if stop then break end
  end
  if option.checkpoint and done > option.saved then save(option, history, done) end
  return history
end
declared.options(train.loop, known)

return train
