-- Token shards (the file format is in host/base/shard.h) and batches from them, for stateless and stateful training.
--
--   pl.data.write("notes.tokens", tokenizer, pl.data.read "notes")
--   local train, validation = pl.data.shard("notes.tokens"):split(0.1)
--   local batches = train:batches{ rows = 32, length = 64, seed = 1 }
--   local batch = batches:batch(step)                 -- { x =, y = } int64 [rows, length], 1-based
local core = require "perilune.core"
local pl = require "perilune"
local check = require "perilune.nn.check"

local Batches = {}
Batches.__index = Batches

--- The batch of a step: { x = ids, y = the ids after them }, int64 [rows / world, length], and first = true where
-- contiguous rows begin, so that a state carried so far is to be dropped. With separate_documents y is 0 behind the end
-- of a window's first document (cross_entropy's ignore_index = 0). The same step always has the same batch; the next
-- one is made meanwhile.
function Batches:batch(step)
  step = check.integer("batch", "step", step)
  local both = self.source:take(step)
  return { x = both:select(1, 1), y = both:select(1, 2), first = self.contiguous and (step - 1) % self.epoch == 0 }
end

--- Ends the thread that makes batches; collecting does so, too.
function Batches:close() self.source:close() end
Batches.__close = Batches.close

local Shard = {}
Shard.__index = Shard

--- The ids at `first` .. first + count - 1: int64 [count], by default all of them.
function Shard:ids(first, count)
  first = check.integer("ids", "first", first or 1)
  count = check.integer("ids", "count", count or self.count - first + 1, 0)
  if first + count - 1 > self.count then
    check.fail("ids: %d ids from %d on: the shard has %d", count, first, self.count)
  end
  return self.source:ids(self.first + first - 1, count)
end

local function part(self, first, count)
  local new = {}
  for name, value in pairs(self) do new[name] = value end
  new.first, new.count = self.first + first - 1, count
  return setmetatable(new, Shard)
end

--- The first part, and the last `share` (default 0.1) of the ids: two shards on the same file.
function Shard:split(share)
  local last = math.floor(self.count * check.number("split", "share", share or 0.1, 0, 1))
  return part(self, 1, self.count - last), part(self, self.count - last + 1, last)
end

local known <const> = {
  rows = 32, length = 64, rank = 0, world = 1, seed = 1, contiguous = false, separate_documents = false,
  device = "cpu",
}

--- Batches { rows = 32, length = 64, rank = 0, world = 1, seed = 1, contiguous = false, separate_documents = false,
-- device = "cpu" }. Windows do not overlap and come in another order each epoch; with contiguous, row b reads the b-th
-- part of the text on and on, for a state that is carried. Of several processes that train together each names its
-- rank, 0 .. world - 1, and has rows of its own of the same batch, rows / world of them. `epoch` is the number of steps
-- after which the text was seen once. An error says when the text is too short.
function Shard:batches(options)
  local option = check.options("batches", options, known)
  for _, name in ipairs { "rows", "length", "world" } do option[name] = check.integer("batches", name, option[name]) end
  option.rank = check.integer("batches", "rank", option.rank, 0)
  if option.rank >= option.world then
    check.fail("batches: rank: expected 0..%d, got %d", option.world - 1, option.rank)
  end
  if option.rows % option.world ~= 0 then
    check.fail("batches: rows: expected a multiple of world, %d, got %d", option.world, option.rows)
  end
  option.seed = check.integer("batches", "seed", option.seed, math.mininteger)
  if option.separate_documents and not self.end_of_document then
    check.fail "batches: separate_documents: the shard's tokenizer has no end of document"
  end
  local source, epoch = self.source:batches {
    first = self.first, count = self.count, rows = option.rows, length = option.length, rank = option.rank,
    world = option.world, seed = option.seed, contiguous = option.contiguous, separate = option.separate_documents,
    device = option.device,
  }
  return setmetatable({ source = source, epoch = epoch, contiguous = option.contiguous }, Batches)
end

local shard = {}

--- A shard that was written: count, vocabulary, end_of_document (an id or nil), type ("uint16" or "uint32").
function shard.open(path)
  check.kind("data.shard", "path", path, "string")
  local source, count, vocabulary, end_of_document, width = core.shard_open(path)
  return setmetatable({
    source = source, first = 1, count = count, vocabulary = vocabulary, end_of_document = end_of_document,
    type = width == 2 and "uint16" or "uint32",
  }, Shard)
end

--- Writes documents (a text, or what data.read returns) as a shard, each followed by the tokenizer's end of document
-- where it has one: write(path, tokenizer, documents) -> count of ids. The file is there whole or not at all.
function shard.write(path, tokenizer, documents)
  check.kind("data.write", "path", path, "string")
  if type(documents) == "string" then documents = { { text = documents } } end
  check.kind("data.write", "documents", documents, "table")
  local _ <close> = pl.scope()
  local parts, ending = { pl.zeros { 0, dtype = "int64" } }, tokenizer.end_of_document
  for _, document in ipairs(documents) do
    parts[#parts + 1] = tokenizer:encode(document.text)
    if ending then parts[#parts + 1] = pl.tensor({ ending }, { dtype = "int64" }) end
  end
  local ids = pl.cat(parts, 1):contiguous()
  core.shard_write(path, ids, tokenizer.vocabulary, ending or 0)
  return ids.shape[1]
end

return shard
