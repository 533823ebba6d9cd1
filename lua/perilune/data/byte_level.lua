-- How the files of byte-pair tokenizers write bytes as visible characters, as GPT-2's did first.
local byte_level = {}

-- Visible characters of Latin-1 stand for themselves, the other bytes are the characters from 256 on.
local character_of, byte_of = {}, {}
do
  local next_point = 256
  for b = 0, 255 do
    local visible = b >= 33 and b <= 126 or b >= 161 and b <= 172 or b >= 174
    local character = utf8.char(visible and b or next_point)
    if not visible then next_point = next_point + 1 end
    character_of[string.char(b)], byte_of[character] = character, string.char(b)
  end
end

--- The end of a document, a token that stands for no text.
byte_level.END_OF_TEXT = "<|endoftext|>"

--- Bytes as a file writes them.
function byte_level.write(bytes) return (bytes:gsub(".", character_of)) end

--- The bytes that a token of a file stands for; a special token, which has other characters, is itself.
function byte_level.read(token)
  local parts = {}
  for character in token:gmatch(utf8.charpattern) do
    local byte = byte_of[character]
    if not byte then return token end
    parts[#parts + 1] = byte
  end
  return table.concat(parts)
end

return byte_level
