-- Byte-pair tokenizers: trained on a text.
local core = require "perilune.core"
local check = require "perilune.nn.check"
local tokenizer = require "perilune.data.tokenizer"

local bpe = {}

--- A tokenizer whose merges are trained on a text: train(text, vocabulary [, { end_of_document = false }]). Its first
-- 256 tokens are the bytes; vocabulary (an end of document not counted) is smaller than asked where no pair comes
-- twice. Text is cut into words as GPT-2 does it. tokenizer:save(path) keeps it.
function bpe.train(text, vocabulary, options)
  check.kind("data.train_bpe", "text", text, "string")
  check.integer("data.train_bpe", "vocabulary", vocabulary, 256)
  local merges, pieces, byte_ids = core.bpe_train(text, vocabulary - 256), {}, {}
  for b = 0, 255 do pieces[b + 1], byte_ids[b + 1] = string.char(b), b end
  for i = 1, #merges, 3 do pieces[#pieces + 1] = pieces[merges[i] + 1] .. pieces[merges[i + 1] + 1] end
  local encoder = core.bpe(byte_ids, merges)
  local made = tokenizer.new("data.train_bpe", pieces, function(given) return encoder:encode(given) end, options)
  made.merges = merges
  return made
end

return bpe
