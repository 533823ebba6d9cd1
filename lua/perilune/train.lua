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
local shown = require "perilune.train.shown"
local steps = require "perilune.train.step"

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
  if steps.not_finite(norm) then
    check.fail("train.loop: the norm of the parameters is %s after step %d%s", tostring(norm), step,
      steps.last_good(option))
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
--                       gradient's norm, with a schedule of the learning rate, and of what report and evaluate return
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
  local watch, _ <close> = shown.watcher_of(option), option.monitor
  option.model:train()
  local done = resumed
  option.saved = resumed
  for step, bar in shown.steps_of(option, resumed) do
    local record, report = steps.take(option, parameters, step)
    if not record then break end
    history.steps[#history.steps + 1] = record
    if step % option.log_every == 0 then shown.write(log, events, record, "") end
    watch(step, shown.curves_of(option, record, report))
    local stop
    if option.evaluate and (step % option.evaluate_every == 0 or step == option.steps) then
      evaluation, stop = evaluate(option, step)
      evaluation.step = step
      history.evaluations[#history.evaluations + 1] = evaluation
      shown.write(log, events, evaluation, "evaluation/")
      watch(step, shown.numbers_of(evaluation, "evaluation "))
    end
    if bar then bar:message("%s", shown.summary(record, report, evaluation)) end
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
