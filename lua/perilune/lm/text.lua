-- The text of a language model: read, turned into ids once, and kept in the run's folder, so that a run that goes on
-- and one that only draws need nothing else.
--
-- FOLDER/text.tokens has the ids (pl.data.shard), FOLDER/text.json what reads them: { tokenizer = "bytes",
-- "characters" or "bpe", characters =, end_of_document =, vocabulary =, tokens = (where the ids are elsewhere) }, and
-- FOLDER/tokenizer.json is the tokenizer of byte pairs.
local core = require "perilune.core"
local pl = require "perilune"
local data = pl.data

local text = {}

local VALIDATION_SHARE <const> = 0.1 -- of the text, at its end

local function joined(documents)
  local parts = {}
  for i, document in ipairs(documents) do parts[i] = document.text end
  return table.concat(parts, "\n")
end

local function copy(from, to)
  local file <close> = assert(io.open(from, "rb"))
  core.write_file(to, file:read "a")
end

-- How each kind of tokenizer is made for documents; returns it and what text.json says of it.
local make = {
  bytes = function(_, _, form) return data.bytes(form), {} end,
  characters = function(_, documents, form)
    local tokenizer = data.characters(joined(documents), form)
    return tokenizer, { characters = table.concat(tokenizer.pieces) }
  end,
  bpe = function(option, documents, form)
    local tokenizer = data.train_bpe(joined(documents), option.vocabulary or 4096, form)
    tokenizer:save(option.out .. "/tokenizer.json")
    return tokenizer, {}
  end,
  file = function(option)
    local tokenizer = data.load_bpe(option.tokenizer)
    copy(option.tokenizer, option.out .. "/tokenizer.json")
    return tokenizer, {}
  end,
}

local function read_about(folder)
  local file <close> = io.open(folder .. "/text.json")
  return file and core.json_decode(file:read "a")
end

-- Reads the ids of a file that pl.data.write made, by the tokenizer that is named.
local function read_ids(option, kind)
  if kind ~= "file" and kind ~= "bytes" then
    error(("%s holds ids; --tokenizer must name the tokenizer.json that made them, or bytes"):format(option.data), 0)
  end
  local vocabulary <const> = data.shard(option.data).vocabulary
  local tokenizer, about = make[kind](option, {}, { end_of_document = vocabulary == 257 })
  if tokenizer.vocabulary ~= vocabulary then
    error(("%s holds ids of a vocabulary of %d, not of the tokenizer's %d"):format(option.data, vocabulary,
      tokenizer.vocabulary), 0)
  end
  about.tokens = option.data
  return about, tokenizer
end

-- Turns documents into ids.
local function write_ids(option, kind)
  local documents = option.data and data.read(option.data) or { { text = data.corpus() } }
  local tokenizer, about = make[kind](option, documents, { end_of_document = #documents > 1 })
  data.write(option.out .. "/text.tokens", tokenizer, documents)
  return about, tokenizer
end

local function kind_of(option) return make[option.tokenizer] and option.tokenizer or "file" end

--- Whether a folder is a run's, with a text of its own.
function text.is_run(folder) return read_about(folder) ~= nil end

--- The name of an option that says how to read the text, but cannot be, and why; nil where all can. option: as
-- text.open has it.
function text.check(option)
  if option.data == "random" or read_about(option.out) or option.data and read_about(option.data) then return nil end
  local kind = kind_of(option)
  if kind == "bpe" and option.vocabulary and option.vocabulary < 256 then
    return "vocabulary", ("expected at least 256, for the bytes, got %d"):format(option.vocabulary)
  end
  if kind ~= "file" then return nil end
  local fine, reason = pcall(data.load_bpe, option.tokenizer)
  if not fine then return "tokenizer", reason end
end

-- Makes text.json, and what it tells of.
local function prepare(option)
  local kind = kind_of(option)
  local about = option.data and read_about(option.data)
  if about then -- that of another run
    about.tokens = about.tokens or option.data .. "/text.tokens"
    if about.tokenizer == "bpe" then copy(option.data .. "/tokenizer.json", option.out .. "/tokenizer.json") end
  else
    local tokenizer
    about, tokenizer = (option.data and option.data:match "%.tokens$" and read_ids or write_ids)(option, kind)
    about.tokenizer = kind == "file" and "bpe" or kind
    about.end_of_document, about.vocabulary = tokenizer.end_of_document ~= nil, tokenizer.vocabulary
  end
  core.write_file(option.out .. "/text.json", core.json_encode(about) .. "\n")
end

--- The tokenizer of a run's folder, and text.json.
function text.tokenizer(folder)
  local about = read_about(folder)
  if not about then error(("there is no text.json in '%s': no training was begun there"):format(folder), 0) end
  local form = { end_of_document = about.end_of_document }
  if about.tokenizer == "bytes" then return data.bytes(form), about end
  if about.tokenizer == "characters" then return data.characters(about.characters, form), about end
  return data.load_bpe(folder .. "/tokenizer.json"), about
end

-- How many bytes of text stand behind each of the ids, in the mean.
local function bytes_per_token(tokenizer, ids)
  local _ <close> = pl.scope()
  local lengths = {}
  for id, piece in ipairs(tokenizer.pieces) do lengths[id] = #piece end
  return pl.tensor(lengths, { dtype = "float64" }):index_select(1, ids):mean():item()
end

--- The text of the options data (a run's folder: the text of that), tokenizer, vocabulary and out: { train =,
-- validation = (shards), tokenizer =, vocabulary =, bytes_per_token = (of the validation part) }. What the folder holds
-- already is not made again.
function text.open(option)
  if not read_about(option.out) then prepare(option) end
  local tokenizer, about = text.tokenizer(option.out)
  local whole = data.shard(about.tokens or option.out .. "/text.tokens")
  local train, validation = whole:split(VALIDATION_SHARE)
  if validation.count < 2 then
    error(("a text of %d tokens is too short: the last tenth, for validation, has %d, expected 2 or more"):format(
      whole.count, validation.count), 0)
  end
  local _ <close> = pl.scope()
  return { train = train, validation = validation, tokenizer = tokenizer, vocabulary = whole.vocabulary,
           bytes_per_token = bytes_per_token(tokenizer, validation:ids()) }
end

-- Batches of random ids; nothing is to be closed.
local Random = {}
Random.__index = Random
function Random.close() end
Random.__close = Random.close

function Random:batch()
  local ids = pl.randint(1, self.vocabulary, { self.rows, self.length + 1 }, { dtype = "int64", device = self.device })
  return { x = ids:narrow(2, 1, self.length), y = ids:narrow(2, 2, self.length), first = false }
end

--- Random ids in place of a text, for measuring: { train =, vocabulary = }.
function text.random(vocabulary)
  local train = {}
  function train.batches(_, form)
    return setmetatable({ vocabulary = vocabulary, rows = form.rows // form.world, length = form.length,
                          device = form.device }, Random)
  end
  return { train = train, vocabulary = vocabulary }
end

return text
