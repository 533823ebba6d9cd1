-- Where text comes from: files, folders, and a book that Debian has.
local core = require "perilune.core"
local check = require "perilune.nn.check"

local text = {}

local ENTRIES_MAX <const> = 1000000 -- of one folder

local function read_file(path)
  local file, message = io.open(path, "rb")
  if not file then check.fail("data.read: cannot open %s", message) end
  local _ <close> = file
  local content, problem = file:read "a"
  if not content then check.fail("data.read: cannot read '%s': %s", path, problem) end
  local _, bad = utf8.len(content)
  if bad then check.fail("data.read: '%s': expected UTF-8, got byte 0x%02X at %d", path, content:byte(bad), bad) end
  return { path = path, text = content }
end

local function read_folder(folder, entries, documents)
  table.sort(entries)
  for _, entry in ipairs(entries) do
    local path, hidden = folder .. "/" .. entry, entry:sub(1, 1) == "."
    if not hidden and entry:sub(-1) == "/" then
      path = path:sub(1, -2)
      local below = core.list_directory(path, ENTRIES_MAX)
      if not below then check.fail("data.read: cannot open the folder '%s'", path) end
      read_folder(path, below, documents)
    elseif not hidden then
      documents[#documents + 1] = read_file(path)
    end
  end
  return documents
end

--- The documents of a file or of all files in a folder and those below it, in the order of their names, without hidden
-- ones: a list of { path =, text = }. A file that is not UTF-8 is an error that names it and the place.
function text.read(path)
  check.kind("data.read", "path", path, "string")
  local entries = core.list_directory(path, ENTRIES_MAX)
  if not entries then return { read_file(path) } end
  local documents = read_folder(path:gsub("(.)/+$", "%1"), entries, {})
  if #documents == 0 then check.fail("data.read: path: no files in '%s'", path) end
  return documents
end

--- A text of 4.2 million characters that every Debian machine can install: the King James Bible of the package
-- bible-kjv, one verse a line. An error says what to install where it is absent.
function text.corpus()
  local pipe <close> = assert(io.popen("bible -f gen1:1-rev22:21 </dev/null 2>/dev/null"))
  local verses = {}
  for line in pipe:lines() do
    local verse = line:match "^%w+:%d+ (.*)$"
    if verse then verses[#verses + 1] = verse end
  end
  if #verses == 0 then
    check.fail "data.corpus: the program 'bible' gave no text; install it with: apt-get install bible-kjv"
  end
  return table.concat(verses, "\n") .. "\n"
end

--- Cuts the last `share` (default 0.1) off a text, at the beginning of a character, or off a tensor of ids: the part
-- for training, the part for validation.
function text.split(whole, share)
  share = check.number("data.split", "share", share or 0.1, 0, 1)
  if type(whole) == "string" then
    local cut = #whole - math.floor(#whole * share)
    while cut < #whole and whole:byte(cut + 1) & 0xC0 == 0x80 do cut = cut + 1 end
    return whole:sub(1, cut), whole:sub(cut + 1)
  end
  check.tensor("data.split", "whole", whole, 1)
  local count = whole.shape[1]
  local cut = count - math.floor(count * share)
  return whole:narrow(1, 1, cut), whole:narrow(1, cut + 1, count - cut)
end

return text
