-- Cross-entropy as scripts call it: options by name, labels as a tensor or a table, losses reduced.
local core = require "perilune.core"
local declared = require "perilune.code.declared"

local entropy = {}

local losses_of_rows, sum_of_losses = core.cross_entropy, core.linear_cross_entropy

-- The options checked, with `ignored`, `smoothing` and `labels` as the operations take them. `known` lists the names,
-- `reductions` what reduction may be; the first is the default.
local function read(who, x, labels, options, known, reductions)
  options = options == nil and {} or options
  if type(options) ~= "table" then
    error(("%s: options: expected a table, got %s"):format(who, type(options)), 3)
  end
  for name in pairs(options) do
    if not known[name] then error(("%s: unknown option '%s'"):format(who, tostring(name)), 3) end
  end
  local reduction, allowed = options.reduction or reductions[1], false
  for _, name in ipairs(reductions) do allowed = allowed or name == reduction end
  if not allowed then
    local list = '"' .. table.concat(reductions, '", "', 1, #reductions - 1) .. '" or "' .. reductions[#reductions]
    error(('%s: reduction: expected %s", got %s'):format(who, list, tostring(reduction)), 3)
  end
  if type(labels) == "table" then labels = core.tensor(labels, { dtype = "int64", device = x.device }) end
  return { reduction = reduction, labels = labels, ignored = options.ignore_index,
           smoothing = options.label_smoothing or 0.0 }
end

-- The average of the losses whose sum this is, over the rows that count.
local function average(sum, read_options)
  if read_options.ignored == nil then return sum / read_options.labels:numel() end
  return sum / core.ne(read_options.labels, read_options.ignored):sum()
end

local known <const> = { ignore_index = true, reduction = true, label_smoothing = true }

--- cross_entropy(logits, labels [, options]) -> tensor: of logits [.., C] against labels [..] in 1..C (an integer
-- tensor, or a table of integers).
-- options: ignore_index (rows with that label count for nothing), label_smoothing in [0, 1), reduction "mean" (over the
-- rows that count), "sum" or "none".
function entropy.cross_entropy(logits, labels, options)
  if not core.is_tensor(logits) then
    error(("cross_entropy: logits: expected a tensor, got %s"):format(type(logits)), 2)
  end
  local option = read("cross_entropy", logits, labels, options, known, { "mean", "sum", "none" })
  local ignored = option.ignored
  local losses = losses_of_rows(logits, option.labels, ignored or 0, ignored ~= nil, option.smoothing)
  if option.reduction == "none" then return losses end
  if option.reduction == "mean" and ignored == nil then return losses:mean() end
  return option.reduction == "sum" and losses:sum() or average(losses:sum(), option)
end
declared.options(entropy.cross_entropy, known)

local linear_known <const> = {
  ignore_index = true, reduction = true, label_smoothing = true, bias = true, chunk = true,
}

--- linear_cross_entropy(x, weight, labels [, options]) -> tensor of one element: cross_entropy of the logits
-- x weight^T [+ bias], of which only a chunk is ever there, forward and backward. x [.., W], weight [C, W] as nn.Linear
-- has it, labels [..] in 1..C (an integer tensor, or a table of integers).
-- options: bias [C]; ignore_index, label_smoothing and reduction "mean" or "sum" as in cross_entropy; chunk, the rows
-- of x taken at once, by default as many as have 256 MiB of logits.
-- Where gradients are wanted they are computed along with the losses, so call it under pl.no_grad where not.
function entropy.linear_cross_entropy(x, weight, labels, options)
  if not core.is_tensor(x) then
    error(("linear_cross_entropy: x: expected a tensor, got %s"):format(type(x)), 2)
  end
  local option = read("linear_cross_entropy", x, labels, options, linear_known, { "mean", "sum" })
  local bias, chunk, ignored = nil, nil, option.ignored
  if options then bias, chunk = options.bias, options.chunk end
  if chunk ~= nil and (math.type(chunk) ~= "integer" or chunk < 1) then
    error(("linear_cross_entropy: chunk: expected an integer of at least 1, got %s"):format(tostring(chunk)), 2)
  end
  local sum = sum_of_losses(x, weight, option.labels, bias, ignored or 0, ignored ~= nil, option.smoothing,
    chunk or 0)
  return option.reduction == "sum" and sum or average(sum, option)
end
declared.options(entropy.linear_cross_entropy, linear_known)

for name, f in pairs(entropy) do core[name], core.methods[name] = f, f end

return entropy
