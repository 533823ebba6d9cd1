-- Byte-pair tokenizers from files: GPT-2's vocab.json and merges.txt, and tokenizer.json of Hugging Face's tokenizers.
local core = require "perilune.core"
local byte_level = require "perilune.data.byte_level"
local check = require "perilune.nn.check"
local tokenizer = require "perilune.data.tokenizer"

local load_bpe = {}

local WHO <const> = "data.load_bpe"

local function read(path)
  local file, message = io.open(path, "rb")
  if not file then check.fail("%s: cannot open %s", WHO, message) end
  local _ <close> = file
  return file:read "a"
end

local function decode(path)
  local decoded, value = pcall(core.json_decode, read(path))
  if not decoded or type(value) ~= "table" then check.fail("%s: '%s': expected a JSON object", WHO, path) end
  return value
end

-- vocabulary: token -> id from 0 on; merges: a list of { left, right }.
local function build(path, vocabulary, merges)
  local pieces, byte_ids, flat, count = {}, {}, {}, 0
  for token, id in pairs(vocabulary) do
    if math.type(id) ~= "integer" or id < 0 then check.fail("%s: '%s': '%s' has no id", WHO, path, token) end
    pieces[id + 1], count = byte_level.read(token), count + 1
  end
  if #pieces ~= count then check.fail("%s: '%s': expected the ids 0..%d, some are missing", WHO, path, count - 1) end
  for b = 0, 255 do
    byte_ids[b + 1] = vocabulary[byte_level.write(string.char(b))]
    if not byte_ids[b + 1] then check.fail("%s: '%s': there is no token for byte %d", WHO, path, b) end
  end
  for i, merge in ipairs(merges) do
    local left, right = merge[1], merge[2]
    local ids = { vocabulary[left or 0], vocabulary[right or 0], vocabulary[(left or "") .. (right or "")] }
    if not (ids[1] and ids[2] and ids[3]) then
      check.fail("%s: '%s': merge %d is of tokens that are not in the vocabulary", WHO, path, i)
    end
    table.move(ids, 1, 3, #flat + 1, flat)
  end
  local encoder = core.bpe(byte_ids, flat)
  local made = tokenizer.new(WHO, pieces, function(text) return encoder:encode(text) end)
  local ending = vocabulary[byte_level.END_OF_TEXT]
  if ending then made.end_of_document, pieces[ending + 1] = ending + 1, "" end
  return made
end

local function pair_of(line)
  local left, right = line:match "^(%S+) (%S+)$"
  return { left, right }
end

local function absent(value) return value == nil or value == core.null or value == false or value == "" end

local function refuse(path, what, value)
  check.fail("%s: '%s': %s is not supported, got %s", WHO, path, what, check.shown(value))
end

local function kind_of(part) return not absent(part) and (part.type or "?") or nil end

-- Refuses whatever would make other tokens than byte pairs inside GPT-2's words.
local function check_supported(path, file)
  local model, before = file.model or {}, file.pre_tokenizer
  if model.type ~= "BPE" then refuse(path, "a model other than BPE", model.type) end
  if not absent(file.normalizer) then refuse(path, "a normalizer", kind_of(file.normalizer)) end
  if kind_of(before) ~= "ByteLevel" then refuse(path, "a pre_tokenizer other than ByteLevel", kind_of(before)) end
  if before.add_prefix_space then refuse(path, "add_prefix_space of the pre_tokenizer", "true") end
  if before.use_regex == false then refuse(path, "a pre_tokenizer with use_regex", "false") end
  if kind_of(file.decoder) ~= "ByteLevel" then
    refuse(path, "a decoder other than ByteLevel", kind_of(file.decoder))
  end
  local after = kind_of(file.post_processor)
  if after and after ~= "ByteLevel" then refuse(path, "a post_processor other than ByteLevel", after) end
  for _, name in ipairs {
    "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges",
  } do
    if not absent(model[name]) then refuse(path, "the model's " .. name, tostring(model[name])) end
  end
end

local function from_tokenizer_json(path)
  local file, merges = decode(path), {}
  check_supported(path, file)
  for _, name in ipairs { "vocab", "merges" } do
    if type(file.model[name]) ~= "table" then check.fail("%s: '%s': the model has no %s", WHO, path, name) end
  end
  for i, merge in ipairs(file.model.merges) do merges[i] = type(merge) == "string" and pair_of(merge) or merge end
  for _, added in ipairs(file.added_tokens or {}) do file.model.vocab[added.content] = added.id end
  return build(path, file.model.vocab, merges)
end

--- A byte-pair tokenizer from a tokenizer.json (a BPE model with ByteLevel before and behind it; what else a file asks
-- for is an error that names it), or from GPT-2's two files: load("tokenizer.json"), load("vocab.json", "merges.txt").
-- "<|endoftext|>" is the end of document; special tokens that stand in a text are encoded as any other text.
function load_bpe.load(path, merges_path)
  check.kind(WHO, "path", path, "string")
  if not merges_path then return from_tokenizer_json(path) end
  local merges = {}
  for line in read(merges_path):gmatch "[^\r\n]+" do
    if not line:find "^#version" then merges[#merges + 1] = pair_of(line) end
  end
  return build(merges_path, decode(path), merges)
end

return load_bpe
