-- pl.task.parity: sequences of random bits labelled with the parity of the bits so far. The same seed gives the same
-- batches on every device and in any order, whatever else draws random numbers.
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"

local Parity = {}
Parity.__index = Parity
Parity.__name = "task.parity"

-- The n-th of a stream's 64-bit words (Steele, Lea and Flood 2014, SplitMix64): any word without those before it.
local function word(stream, n)
  local z = stream + n * 0x9E3779B97F4A7C15
  z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
  z = (z ~ (z >> 27)) * 0x94D049BB133111EB
  return z ~ (z >> 31)
end

-- The stream of a seed, a use (training or evaluation) and a number within it.
local function stream_of(seed, use, number)
  return word(word(word(seed, 1), use), number)
end

local training <const> = 0 -- evaluation set n has use n

-- `count` bits as 0 and 1 in a table.
local function bits_of(stream, count)
  local bits, n = {}, 0
  for i = 1, (count + 63) // 64 do
    local w = word(stream, i)
    for _ = 1, math.min(64, count - n) do
      n = n + 1
      bits[n] = w & 1
      w = w >> 1
    end
  end
  return bits
end

-- An integer in [low, high] from one word of a stream; ranges are far below 2^31, so the remainder's bias is too small
-- to matter.
local function integer_of(stream, n, low, high)
  return low + (word(stream, n) >> 1) % (high - low + 1)
end

-- x [B,T,2] one-hot, y [B,T] or [B] in 1 (even) and 2 (odd), from bits [B*T]. Labels beyond a row's length are 0.
local function tensors_of(self, bits, batch, steps, lengths)
  local bit = pl.tensor(bits, { dtype = "int64" }):reshape { batch, steps }
  local parity = pl.remainder(bit:cumsum(2), 2) + 1
  local length = pl.tensor(lengths, { dtype = "int64" })
  local result = { lengths = length }
  result.x = pl.one_hot(bit + 1, 2):to(self.dtype)
  if self.labels == "last" then
    result.y = parity:gather(2, length:reshape { batch, 1 }):reshape { batch }
  elseif self.ragged then
    local t = pl.arange(1, steps, 1, { dtype = "int64" }):reshape { 1, steps }
    result.y = pl.where(pl.le(t, length:reshape { batch, 1 }), parity, 0)
  else
    result.y = parity
  end
  for _, name in ipairs { "x", "y" } do result[name] = result[name]:to(self.device) end
  return result
end

local function longest_at(self, step)
  local curriculum = self.curriculum
  if not curriculum then return self.max end
  return math.min(self.max, math.max(self.min, curriculum.start + step // curriculum.every))
end

--- The batch of a training step: { x = [B,T,2] one-hot bits, y = labels int64 (1 even, 2 odd), lengths = int64 [B] on
-- the CPU }. y is [B,T] with labels = "every" (0 beyond a row's length: give cross_entropy ignore_index = 0), and [B]
-- with labels = "last".
function Parity:batch(step)
  check.integer(self.__name, "step", step)
  local stream, longest = stream_of(self.seed, training, step), longest_at(self, step)
  local lengths, steps = {}, 0
  for i = 1, self.size do
    lengths[i] = (self.ragged or i == 1) and integer_of(stream, i, self.min, longest) or lengths[1]
    steps = math.max(steps, lengths[i])
  end
  return tensors_of(self, bits_of(word(stream, 0), self.size * steps), self.size, steps, lengths)
end

--- `count` sequences of one length that are not drawn for training; another `set` (default 1) gives others.
function Parity:sequences(length, count, set)
  check.integer(self.__name, "length", length)
  set = check.integer(self.__name, "set", set or 1)
  local lengths = {}
  for i = 1, check.integer(self.__name, "count", count) do lengths[i] = length end
  return tensors_of(self, bits_of(stream_of(self.seed, set, length), count * length), count, length, lengths)
end

-- Right answers of the model to rows first .. first + count - 1 of a batch: at the last position, at all positions, and
-- how many positions there are.
local function right_answers(self, model, batch, first, count)
  local _ <close> = pl.scope()
  local y = batch.y:narrow(1, first, count)
  local answer = model(batch.x:narrow(1, first, count), batch.lengths:narrow(1, first, count)):argmax(-1)
  local right = pl.eq(answer, y):to("float64")
  local last = self.labels == "last" and right or right:select(2, y.shape[2])
  return last:sum():item(), right:sum():item(), right:numel()
end

local rows_at_once <const> = 128 -- so that long sequences need little memory

--- Share of the `count` (default 128) sequences of a length and set whose parity model(x, lengths) gives right, and the
-- share of right answers over all positions (the same number with labels = "last"). The model's result is [B,T,2] or,
-- with labels = "last", [B,2].
function Parity:accuracy(model, length, count, set)
  count = count or 128
  local _ <close> = pl.scope()
  return pl.no_grad(function()
    local batch = self:sequences(length, count, set)
    local last, every, positions = 0, 0, 0
    for first = 1, count, rows_at_once do
      local l, e, n = right_answers(self, model, batch, first, math.min(rows_at_once, count - first + 1))
      last, every, positions = last + l, every + e, positions + n
    end
    return last / count, every / positions
  end)
end

local known <const> = {
  size = 64, min = 3, max = 40, labels = "every", ragged = false, curriculum = check.none, seed = 1,
  dtype = "float32", device = "cpu",
}

--- task.parity{ size = 64 (rows of a batch), min = 3, max = 40 (lengths), labels = "every" | "last", ragged = false
-- (one length per batch) or true (one per row), curriculum = { start =, every = } (greatest length
-- start + step // every, at most max), seed = 1, dtype = "float32", device = "cpu" }.
local function parity(options)
  local self = check.options("task.parity", options, known)
  check.integer("task.parity", "size", self.size)
  check.integer("task.parity", "min", self.min)
  check.integer("task.parity", "max", self.max, self.min)
  check.integer("task.parity", "seed", self.seed, math.mininteger)
  check.choice("task.parity", "labels", self.labels, { "every", "last" })
  if self.curriculum then
    check.kind("task.parity", "curriculum", self.curriculum, "table")
    check.integer("task.parity", "curriculum.start", self.curriculum.start)
    check.integer("task.parity", "curriculum.every", self.curriculum.every)
  end
  return setmetatable(self, Parity)
end
declared.options(parity, known)

return parity
