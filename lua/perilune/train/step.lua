-- One step of pl.train.loop, whose options these functions take: micro-batches, forward, backward, and the optimiser.
local pl = require "perilune"
local check = require "perilune.nn.check"
local optim = require "perilune.optim"

local step = {}

--- Whether a number is infinite or none.
function step.not_finite(x)
  return x ~= x or x == math.huge or x == -math.huge
end

local function forward(option, batch)
  if option.autocast then return pl.autocast(option.autocast, option.loss, option.model, batch) end
  return option.loss(option.model, batch)
end

--- The end of an error of a training that must not go on: where to go back to.
function step.last_good(option)
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
local function run_batches(option, parameters, number)
  local count, sums, total = option.accumulate, {}, nil
  for i = 1, count do
    local _ <close> = pl.scope()
    local batch = option.batch(number, i)
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
      record.scale, step.last_good(option))
  end
  if good and option.clip then
    record.grad_norm = optim.clip_grad_norm(parameters, option.clip)
    if step.not_finite(record.grad_norm) then
      check.fail("train.loop: the gradient of step %d is %s (loss %g); the parameters are those before this step%s",
        record.step, tostring(record.grad_norm), record.loss, step.last_good(option))
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

--- One step inside its own scope. Returns its record, and the part of it that the user reported; nil when the batches
-- have ended.
function step.take(option, parameters, number)
  local _ <close> = pl.scope()
  local began_s = pl.time()
  local loss = run_batches(option, parameters, number)
  if loss == nil then return nil end
  local lr = option.schedule and option.schedule(number)
  if lr then option.optimizer:set_lr(lr) end
  -- Waiting for the loss comes after all that can be asked of a GPU before.
  local record = { step = number, loss = option.ranks:mean(loss), lr = option.optimizer:lr() }
  if step.not_finite(record.loss) then
    check.fail("train.loop: the loss of step %d is %s; the parameters are those before this step%s", number,
      tostring(record.loss), step.last_good(option))
  end
  update(option, parameters, record)
  record.ms = (pl.time() - began_s) * 1000
  return record, reported(option, record)
end

return step
