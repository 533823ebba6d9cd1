-- nn.sample: one symbol per row, drawn by the logits of a model, with a temperature, top-k and top-p.
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"

local sample = {}
local who <const> = "nn.sample"

local known <const> = { temperature = 1, top_k = check.none, top_p = check.none }

--- The options of a draw as fields of a table that may hold others, checked in the name of `whose`.
function sample.check(whose, option)
  check.number(whose, "temperature", option.temperature, 0)
  if option.top_k ~= nil then check.integer(whose, "top_k", option.top_k) end
  if option.top_p ~= nil then
    local p = check.number(whose, "top_p", option.top_p, 0, 1)
    if p == 0 then check.fail("%s: top_p: expected a number above 0; temperature = 0 takes the best", whose) end
  end
end

-- A symbol this far, in logits, below the best of its row is never drawn: the noise of float64 spans less than 41.
local reach <const> = 100
-- The limit is found by cutting its interval into as many parts as `parts`, `rounds` times: finer than float32 tells.
local parts <const>, rounds <const> = 16, 12

-- x [B,V], 0 the greatest of each row, with -infinity for all but the greatest whose weights reach `target`: as few as
-- do, and those equal to the least of them. It needs no sorting, and the same few operations on every device.
local function only_greatest(x, weight, target)
  local like = { dtype = "float64", device = x.device }
  local low, width = pl.full({ x.shape[1], 1 }, -reach, like), reach + 1
  local cuts = pl.ones({ parts - 1 }, like):cumsum(1) -- 1, 2, ..: made where it is, so that a GPU can record it
  for _ = 1, rounds do
    local _ <close> = pl.scope()
    width = width / parts
    local above = pl.ge(x:unsqueeze(3), (low + cuts * width):unsqueeze(2)):to "float64" -- [B,V,parts-1]
    local reached = pl.ge(weight:unsqueeze(2):matmul(above), target):select(2, 1):to "float64"
    low = (low + reached:sum(2, true) * width):keep()
  end
  return x:masked_fill(pl.lt(x, low), -math.huge)
end

--- sample.scores(logits, option) -> x [B,V]: what the draw is made from, and all of it that is not random.
function sample.scores(logits, option)
  if option.temperature == 0 then return logits end
  local x = logits:detach():to "float64" / option.temperature
  x = x - x:max(2, true)
  if option.top_k and option.top_k < x.shape[2] then x = only_greatest(x, pl.ones_like(x), option.top_k) end
  if option.top_p and option.top_p < 1 then x = only_greatest(x, x:softmax(2), option.top_p) end
  return x
end

--- sample.pick(x, option) -> ids [B,1], from such scores.
function sample.pick(x, option)
  if option.temperature == 0 then return x:argmax(2, true) end
  -- The greatest of x - log(e), e of exponential distribution, is each symbol with its probability (Gumbel).
  return (x - pl.log(-pl.log(pl.rand_like(x)))):argmax(2, true)
end

--- nn.sample(logits [, { temperature = 1, top_k =, top_p = }]) -> ids [B,1], 1-based, of logits [B,V]: each row's
-- symbol is drawn from softmax(logits / temperature); with temperature 0 it is the best one. Only the `top_k` most
-- probable symbols can come, and of these only the fewest most probable whose probabilities sum up to `top_p`; symbols
-- as probable as the last of them can, too. The random numbers are pl's, so that pl.seed repeats them.
function sample.sample(logits, options)
  check.tensor(who, "logits", logits, 2)
  local option = check.options(who, options, known)
  sample.check(who, option)
  local _ <close> = pl.scope()
  return sample.pick(sample.scores(logits, option), option):keep()
end
declared.options(sample.sample, known)

return sample
