-- What the debugger calls its sources: files by their absolute path, cells by that of the file into which JupyterLab
-- has them dumped. Both sides make it from the text of the cell, so that it needs no number of the cell.
local kept = require "perilune.code.source"

-- Cells may give other values to these names.
local open, getenv, remove = io.open, os.getenv, os.remove
local byte, sub, gsub, match, format, unpack = string.byte, string.sub, string.gsub, string.match, string.format,
  string.unpack
local error, loadfile, next = error, loadfile, next
local methods = getmetatable(io.stdout).__index
local read, write = methods.read, methods.write

local function random_name()
  local file <close> = open("/dev/urandom", "rb")
  return (gsub(read(file, 8), ".", function(c) return format("%02x", byte(c)) end))
end

local sources = {
  seed = 0xc70f6907,
  prefix = gsub(getenv "TMPDIR" or "/tmp", "/+$", "") .. "/perilune-" .. random_name() .. "/",
  suffix = ".lua",
}

-- MurmurHash2 of 32 bits (A. Appleby), which JupyterLab calls "Murmur2".
local MULTIPLIER <const>, BITS <const> = 0x5bd1e995, 0xffffffff

local function murmur2(text, seed)
  local hash, whole = seed ~ #text & BITS, #text // 4 * 4
  for at = 1, whole, 4 do
    local k = unpack("<I4", text, at) * MULTIPLIER & BITS
    hash = hash * MULTIPLIER & BITS ~ ((k ~ k >> 24) * MULTIPLIER & BITS)
  end
  if whole < #text then
    for i = #text, whole + 1, -1 do hash = hash ~ byte(text, i) << 8 * (i - whole - 1) end
    hash = hash * MULTIPLIER & BITS
  end
  hash = (hash ~ hash >> 13) * MULTIPLIER & BITS
  return hash ~ hash >> 15
end

local given -- by host/bind/debugger.c
local folder_made = false
local dumped = {} -- path -> text
local cells = {}  -- chunk name -> path, of cells that ran since the debugger was started
local files = {}  -- source of a chunk -> path

--- Must be called before all else.
function sources.open(functions) given = functions end

--- The path of a cell with this text.
function sources.cell_path(text) return sources.prefix .. murmur2(text, sources.seed) .. sources.suffix end

--- Writes a cell to its file and returns the path.
function sources.dump(text)
  local path = sources.cell_path(text)
  if dumped[path] then return path end
  if not folder_made then
    local ok, problem = given.make_folder(sources.prefix)
    if not ok then error("dumpCell: " .. problem, 0) end
    folder_made = true
  end
  local file <close>, problem = open(path, "wb")
  if not file then error("dumpCell: " .. problem, 0) end
  write(file, text)
  dumped[path] = text
  return path
end

--- Removes all that was dumped.
function sources.close()
  for path in next, dumped do remove(path) end
  if folder_made then remove(sources.prefix) end
end

--- A cell runs as the chunk `name`.
function sources.ran(name, text) cells[name] = sources.cell_path(text) end

--- The one path for what a front end calls `path`.
function sources.canonical(path)
  if sub(path, 1, #sources.prefix) == sources.prefix then return path end
  return given.absolute(path) or path
end

--- The path of a chunk by the `source` that debug.getinfo tells; nil for one that is no file and no cell.
function sources.path(source)
  local how, name = sub(source, 1, 1), sub(source, 2)
  if how == "=" then
    local text = cells[name] == nil and kept.text(name)
    if text then cells[name] = sources.cell_path(text) end
    return cells[name]
  end
  if how ~= "@" then return nil end
  files[source] = files[source] or given.absolute(name) or name
  return files[source]
end

--- What people call a chunk: "In [3]", or the name of the file.
function sources.name(source) return match(source, "^=(.*)") or match(source, "([^/]*)$") end

--- The text behind a path; nil where it cannot be read.
function sources.text(path)
  if dumped[path] then return dumped[path] end
  local file <close> = open(path, "rb")
  return file and read(file, "a")
end

--- The function of the chunk behind a path, which does not run; nil and why it does not compile.
function sources.load(path)
  if dumped[path] then return given.load_cell(dumped[path], "cell") end
  return loadfile(path, "t")
end

return sources
