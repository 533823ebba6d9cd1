-- Tokenizers whose tokens are single bytes or characters.
local pl = require "perilune"
local check = require "perilune.nn.check"
local tokenizer = require "perilune.data.tokenizer"

local symbols = {}

local CHUNK <const> = 1 << 16 -- symbols in one table, so that long texts need little memory beside their ids

-- The ids of a text whose next symbols next_ids(from, chunk) gives with the place behind them.
local function in_chunks(text, next_ids)
  local _ <close> = pl.scope()
  local parts, from = {}, 1
  repeat
    local ids
    ids, from = next_ids(from)
    parts[#parts + 1] = pl.tensor(ids, { dtype = "int64" })
  until from > #text
  return (#parts == 1 and parts[1] or pl.cat(parts, 1)):keep()
end

local function encode_bytes(text)
  return in_chunks(text, function(from)
    local ids, last = {}, math.min(#text, from + CHUNK - 1)
    for i = from, last do ids[i - from + 1] = text:byte(i) + 1 end
    return ids, last + 1
  end)
end

--- Bytes as tokens: byte b has the id b + 1. vocabulary 256, and one more with { end_of_document = true }.
function symbols.bytes(options)
  local pieces = {}
  for b = 0, 255 do pieces[b + 1] = string.char(b) end
  return tokenizer.new("data.bytes", pieces, encode_bytes, options)
end

local function encode_characters(text, id_of)
  return in_chunks(text, function(from)
    local ids, count = {}, 0
    while from <= #text and count < CHUNK do
      local character = text:match("^" .. utf8.charpattern, from)
      local id = id_of[character]
      if not character then
        check.fail("encode: text: expected UTF-8, got byte 0x%02X at %d", text:byte(from), from)
      elseif not id then
        check.fail("encode: text: the character at byte %d, %q, is not in the vocabulary", from, character)
      end
      count = count + 1
      ids[count] = id
      from = from + #character
    end
    return ids, from
  end)
end

--- The characters of `text` (UTF-8) as tokens, in the order of their code points. Encoding another character is an
-- error. { end_of_document = true } adds a token for that.
function symbols.characters(text, options)
  check.kind("data.characters", "text", text, "string")
  if not utf8.len(text) then check.fail "data.characters: text: expected UTF-8" end
  local id_of, pieces = {}, {}
  for character in text:gmatch(utf8.charpattern) do
    if not id_of[character] then
      id_of[character] = true
      pieces[#pieces + 1] = character
    end
  end
  table.sort(pieces, function(a, b) return utf8.codepoint(a) < utf8.codepoint(b) end)
  for id, character in ipairs(pieces) do id_of[character] = id end
  return tokenizer.new("data.characters", pieces, function(given) return encode_characters(given, id_of) end, options)
end

return symbols
