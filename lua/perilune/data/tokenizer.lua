-- What tokenizers share: ids to text, and the token that ends a document.
local pl = require "perilune"
local check = require "perilune.nn.check"

local Tokenizer = {}
Tokenizer.__index = Tokenizer

--- The ids of a text: int64 [count], 1-based, on the CPU.
function Tokenizer:encode(text)
  return self.ids_of(check.kind("encode", "text", text, "string"))
end

--- The text of ids: a tensor [count] of integers, or a list. The token that ends documents is no text.
function Tokenizer:decode(ids)
  if pl.is_tensor(ids) then ids = ids:totable() end
  check.kind("decode", "ids", ids, "table")
  local parts = {}
  for i, id in ipairs(ids) do
    parts[i] = self.pieces[id]
    if not parts[i] then
      check.fail("decode: ids: %d: expected 1..%d, got %s", i, self.vocabulary, check.shown(id))
    end
  end
  return table.concat(parts)
end

--- Writes a tokenizer that was trained (data.train_bpe) as a tokenizer.json, which data.load_bpe and Hugging Face's
-- tokenizers read: save(path). The file is there whole or not at all.
function Tokenizer:save(path)
  check.kind("save", "path", path, "string")
  if not self.merges then check.fail "save: only tokenizers of data.train_bpe can be saved" end
  require "perilune.data.save_bpe"(self, path)
end

local tokenizer = {}

--- A tokenizer of pieces (id -> bytes) and ids_of(text) -> tensor. Fields: vocabulary, pieces, end_of_document (an id,
-- or nil).
function tokenizer.new(who, pieces, ids_of, options)
  local option = check.options(who, options, { end_of_document = false })
  local self = { pieces = pieces, ids_of = ids_of }
  if option.end_of_document then
    self.end_of_document = #pieces + 1
    pieces[#pieces + 1] = ""
  end
  self.vocabulary = #pieces
  return setmetatable(self, Tokenizer)
end

return tokenizer
