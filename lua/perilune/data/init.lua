-- pl.data: text for language models, read from files and turned into token ids.
--
--   local documents = pl.data.read "notes"                    -- a file, or a folder of them
--   local tokenizer = pl.data.bytes()
--   local ids = tokenizer:encode(documents[1].text)           -- int64, 1-based
--   assert(tokenizer:decode(ids) == documents[1].text)
local text = require "perilune.data.text"
local bpe = require "perilune.data.bpe"
local load_bpe = require "perilune.data.load_bpe"
local symbols = require "perilune.data.symbols"
local shard = require "perilune.data.shard"

return {
  read = text.read, corpus = text.corpus, split = text.split,
  write = shard.write, shard = shard.open,
  bytes = symbols.bytes, characters = symbols.characters, train_bpe = bpe.train, load_bpe = load_bpe.load,
}
