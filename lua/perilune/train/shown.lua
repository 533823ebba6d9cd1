-- What pl.train.loop, whose options these functions take, shows and writes of its steps: a bar, a monitor, logs.
local core = require "perilune.core"

local shown = {}

--- The numbers of a record but its step, under their names behind a prefix.
function shown.numbers_of(record, prefix)
  local numbers = {}
  for name, value in pairs(record) do
    if type(value) == "number" and name ~= "step" then numbers[prefix .. name] = value end
  end
  return numbers
end

--- Writes a record to the log and, under names behind a prefix, to TensorBoard's events, where there are these.
function shown.write(log, events, record, prefix)
  if log then log:write(record) end
  if not events then return end
  for name, value in pairs(shown.numbers_of(record, prefix)) do events:scalar(name, value, record.step) end
end

-- The numbers of a record but its step, as words "NAME VALUE" by name, NAME behind a prefix.
local function words_of(record, prefix)
  local numbers, names = shown.numbers_of(record, prefix), {}
  for name in pairs(numbers) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    names[i] = (math.abs(numbers[name]) < 1000 and "%s %.4g" or "%s %.0f"):format(name, numbers[name])
  end
  return names
end

--- The line beside the bar: the loss, with clip the gradient's norm, what was reported of the step, and what the last
-- evaluation gave.
function shown.summary(record, report, evaluation)
  local words = { ("loss %.4f"):format(record.loss) }
  if record.grad_norm then words[2] = ("grad_norm %.3g"):format(record.grad_norm) end
  for _, list in ipairs { words_of(report or {}, ""), words_of(evaluation or {}, "evaluation ") } do
    table.move(list, 1, #list, #words + 1, words)
  end
  return table.concat(words, ", ")
end

--- What a monitor is given of a step's record, with what was reported of it: no curve that stays flat.
function shown.curves_of(option, record, report)
  local curves = report and shown.numbers_of(report, "") or {}
  curves.loss, curves.grad_norm, curves.lr = record.loss, record.grad_norm, option.schedule and record.lr or nil
  return curves
end

--- The function that gives a step's values to the monitor, if there is one. Outside a notebook a monitor draws a line,
-- whose place the progress bar has taken.
function shown.watcher_of(option)
  if not option.monitor then return function() end end
  local quiet = option.progress and core.frontend() ~= "kernel"
  local take = quiet and option.monitor.add or option.monitor.log
  return function(step, values) take(option.monitor, step, values) end
end

--- An iterator of the steps behind `resumed`, with the bar that shows them, if there is one.
function shown.steps_of(option, resumed)
  if option.progress then return require "perilune.progress"(resumed + 1, option.steps, option.label) end
  return function(last, i)
    if i < last then return i + 1 end
  end, option.steps, resumed
end

return shown
