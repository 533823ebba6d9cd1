-- Byte-pair tokenizers as tokenizer.json of Hugging Face's tokenizers.
local core = require "perilune.core"
local byte_level = require "perilune.data.byte_level"

-- The part of the file that turns text into bytes' characters, or them into text.
local function bytes_part()
  return { type = "ByteLevel", add_prefix_space = false, trim_offsets = true, use_regex = true }
end

local function vocabulary_of(tokenizer)
  local vocabulary = {}
  for id, piece in ipairs(tokenizer.pieces) do
    if id ~= tokenizer.end_of_document then vocabulary[byte_level.write(piece)] = id - 1 end
  end
  return vocabulary
end

local function merges_of(tokenizer)
  local list, merges, pieces = {}, tokenizer.merges, tokenizer.pieces
  for i = 1, #merges, 3 do
    list[#list + 1] = byte_level.write(pieces[merges[i] + 1]) .. " " .. byte_level.write(pieces[merges[i + 1] + 1])
  end
  return list
end

local function added_of(tokenizer)
  if not tokenizer.end_of_document then return {} end
  return { {
    id = tokenizer.end_of_document - 1, content = byte_level.END_OF_TEXT, special = true,
    single_word = false, lstrip = false, rstrip = false, normalized = false,
  } }
end

--- Writes a tokenizer with `merges` (left, right and made id of each in turn, from 0 on); atomically.
return function(tokenizer, path)
  local null = core.null
  core.write_file(path, core.json_encode({
    version = "1.0", truncation = null, padding = null, normalizer = null, post_processor = null,
    added_tokens = core.json_array(added_of(tokenizer)), pre_tokenizer = bytes_part(), decoder = bytes_part(),
    model = {
      type = "BPE", dropout = null, unk_token = null, continuing_subword_prefix = null, end_of_word_suffix = null,
      fuse_unk = false, byte_fallback = false, vocab = vocabulary_of(tokenizer),
      merges = core.json_array(merges_of(tokenizer)),
    },
  }, 2) .. "\n")
end
