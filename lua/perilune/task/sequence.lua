-- What tasks on sequences share: batches for training, sequences for evaluation and accuracy. A task's own file says
-- how one row is drawn.
--
--   local task = pl.task.s5{ inputs = "ids", max = 20 }
--   task.vocabulary, task.classes, task.chance     -- symbols, classes of labels, accuracy of the best constant answer
--   local batch = task:batch(step)                 -- { x =, y =, lengths = }
--   local last, every = task:accuracy(model, 256)  -- at the last position and over all
--   task:scaled(last)                              -- 0 at chance, 1 when faultless
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local random = require "perilune.task.random"

local Task = {}

local training <const> = 0 -- evaluation set n has use n
local padding <const>, unlabelled <const> = 1, 0

-- Draws the rows of a batch, one after another, from a stream: lists of tokens and labels [batch * steps].
local function rows_of(self, stream, steps, lengths)
  local tokens, labels, n = {}, {}, 0
  local function put(token, label)
    n = n + 1
    tokens[n], labels[n] = token, label
  end
  local source = random.source(stream)
  for i, length in ipairs(lengths) do
    self:row(source, length, put)
    for _ = n + 1, i * steps do put(padding, unlabelled) end
  end
  return tokens, labels
end

local function tensors_of(self, stream, steps, lengths)
  local integer, batch = { dtype = "int64" }, #lengths
  local tokens, labels = rows_of(self, stream, steps, lengths)
  local ids = pl.tensor(tokens, integer):reshape { batch, steps }
  local x = self.inputs == "ids" and ids or pl.one_hot(ids, self.vocabulary):to(self.dtype)
  local y
  if self.labels == "last" then
    local last = {}
    for i, length in ipairs(lengths) do last[i] = labels[(i - 1) * steps + length] end
    y = pl.tensor(last, integer)
  else
    y = pl.tensor(labels, integer):reshape { batch, steps }
  end
  return { x = x:to(self.device), y = y:to(self.device), lengths = pl.tensor(lengths, integer) }
end

local function longest_at(self, step)
  local curriculum = self.curriculum
  if not curriculum then return self.max end
  return math.min(self.max, math.max(self.min, curriculum.start + step // curriculum.every))
end

--- The batch of a training step: { x = one-hot symbols [B,T,vocabulary], or their numbers [B,T] with inputs = "ids",
-- y = labels int64 in 1..classes, lengths = int64 [B] on the CPU }. y is [B,T] with labels = "every" (0 beyond a row's
-- length: give cross_entropy ignore_index = 0), and [B] with labels = "last". Beyond a row's length x holds the first
-- symbol.
function Task:batch(step)
  check.integer(self.name, "step", step)
  local stream, longest = random.stream(self.seed, training, step), longest_at(self, step)
  local lengths, steps = {}, 0
  for i = 1, self.size do
    lengths[i] = (self.ragged or i == 1) and random.integer(stream, i, self.min, longest) or lengths[1]
    steps = math.max(steps, lengths[i])
  end
  return tensors_of(self, random.substream(stream, 0), steps, lengths)
end

--- `count` sequences of one length that are not drawn for training; another `set` (default 1) gives others.
function Task:sequences(length, count, set)
  check.integer(self.name, "length", length)
  set = check.integer(self.name, "set", set or 1)
  local lengths = {}
  for i = 1, check.integer(self.name, "count", count) do lengths[i] = length end
  return tensors_of(self, random.stream(self.seed, set, length), length, lengths)
end

-- Right answers of the model to rows first .. first + count - 1 of sequences of one length: at the last position, at
-- all positions, and how many positions there are.
local function right_answers(self, model, batch, first, count)
  local _ <close> = pl.scope()
  local y = batch.y:narrow(1, first, count)
  local answer = model(batch.x:narrow(1, first, count), batch.lengths:narrow(1, first, count)):argmax(-1)
  local right = pl.eq(answer, y):to("float64")
  local last = self.labels == "last" and right or right:select(2, y.shape[2])
  return last:sum():item(), right:sum():item(), right:numel()
end

-- How many sequences a model is given at once, so that long ones need little memory also where it grows with T^2.
local function rows_at_once(length) return math.max(1, math.min(128, 16384 // length)) end

--- Share of the `count` (default 128) sequences of a length and set to whose last position model(x, lengths) gives the
-- right label, and the share of right answers over all positions (the same number with labels = "last"). The model's
-- result is [B,T,classes] or, with labels = "last", [B,classes].
function Task:accuracy(model, length, count, set)
  count = count or 128
  local _ <close> = pl.scope()
  return pl.no_grad(function()
    local batch = self:sequences(length, count, set)
    local last, every, positions, rows = 0, 0, 0, rows_at_once(length)
    for first = 1, count, rows do
      local l, e, n = right_answers(self, model, batch, first, math.min(rows, count - first + 1))
      last, every, positions = last + l, every + e, positions + n
    end
    return last / count, every / positions
  end)
end

--- An accuracy on the scale on which chance is 0 and faultless is 1; what is worse than chance is negative.
function Task:scaled(accuracy) return (accuracy - self.chance) / (1 - self.chance) end

local known <const> = {
  size = 64, min = 3, max = 40, labels = "every", inputs = "one_hot", ragged = false, curriculum = check.none, seed = 1,
  dtype = "float32", device = "cpu",
}

local options_text <const> = [[
Options: size = 64 (rows of a batch), min = 3, max = 40 (lengths), labels = "every" | "last" (position), inputs =
"one_hot" | "ids", ragged = false (one length per batch) or true (one per row), curriculum = { start =, every = }
(greatest length start + step // every, at most max), seed = 1, dtype = "float32", device = "cpu"]]

local function check_options(who, self)
  check.integer(who, "size", self.size)
  check.integer(who, "min", self.min)
  check.integer(who, "max", self.max, self.min)
  check.integer(who, "seed", self.seed, math.mininteger)
  check.choice(who, "labels", self.labels, { "every", "last" })
  check.choice(who, "inputs", self.inputs, { "one_hot", "ids" })
  if self.curriculum then
    check.kind(who, "curriculum", self.curriculum, "table")
    check.integer(who, "curriculum.start", self.curriculum.start)
    check.integer(who, "curriculum.every", self.curriculum.every)
  end
end

local sequence = {}

--- A constructor of tasks. kind: name; about (what help says of it); row(task, source, length, put), which draws the
-- symbols of one row from a source (perilune.task.random) and calls put(symbol, label) for each, both numbers from 1;
--   symbols   the symbols as text
--   classes   how many labels there are
--   chance    share of the most frequent label among sequences of one length; 1 / classes unless given
--   options   further options with their defaults, which options_text describes
--   prepare   function(task): sets what of these depends on the options, and whatever row finds in the task
function sequence.define(kind)
  local who = "task." .. kind.name
  local all = {}
  for _, options in ipairs { known, kind.options or {} } do
    for name, default in pairs(options) do all[name] = default end
  end
  local class = { __index = setmetatable({ row = kind.row }, { __index = Task }), __name = who }
  local function new(options)
    local self = check.options(who, options, all)
    check_options(who, self)
    self.name, self.symbols, self.classes, self.chance = who, kind.symbols, kind.classes, kind.chance
    if kind.prepare then kind.prepare(self) end
    self.vocabulary, self.chance = #self.symbols, self.chance or 1 / self.classes
    return setmetatable(self, class)
  end
  declared.options(new, all)
  declared.makes(new, class)
  local described = kind.options_text and options_text .. ", " .. kind.options_text or options_text
  return declared.document(new, ("%s{ options } -> task: %s %s."):format(who, kind.about,
    (described:gsub("\n", " "))))
end

return sequence
