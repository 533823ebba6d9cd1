-- Where functions and modules come from: their place, the comment above them and their text, from the file or the cell
-- of a notebook that defined them.

-- Cells may give other values to these names.
local open, getinfo, ipairs, next, type, rawequal = io.open, debug.getinfo, ipairs, next, type, rawequal
local package, loaded, searchpath = package, package.loaded, package.searchpath
local find, match, sub, gsub, format = string.find, string.match, string.sub, string.gsub, string.format
local concat, unpack, remove = table.concat, table.unpack, table.remove

local read = getmetatable(io.stdout).__index.read

local source = {}

-- Cells that define functions, so that their comments and text can be shown: chunk name -> text, and the names in the
-- order of execution. The oldest are forgotten when all together are longer than this.
local BYTES_MAX <const> = 4 << 20
local cells, order, bytes = {}, {}, 0
local ambiguous = {} -- names that several texts had, such as "stdin": nobody knows which one a function is from

local function forget(i)
  local name = remove(order, i)
  bytes = bytes - #cells[name]
  cells[name] = nil
end

--- Keeps the text of a cell that ran as the chunk `name`, such as "In [3]".
function source.remember(name, text)
  if ambiguous[name] or cells[name] == text then return end
  if cells[name] then
    ambiguous[name] = true
    for i = #order, 1, -1 do
      if order[i] == name then forget(i) end
    end
    return
  end
  cells[name], bytes = text, bytes + #text
  order[#order + 1] = name
  while bytes > BYTES_MAX do forget(1) end
end

--- The text of a cell that was kept; nil where there is none of this name.
function source.text(name) return cells[name] end

local function read_file(path)
  local file <close> = open(path, "rb")
  return file and read(file, BYTES_MAX)
end

local function lines_of(text)
  local lines, at = {}, 1
  while true do
    local stop = find(text, "\n", at, true)
    lines[#lines + 1] = gsub(sub(text, at, (stop or 0) - 1), "\r$", "")
    if not stop then return lines end
    at = stop + 1
  end
end

-- debug.getinfo's description of a Lua function, and the lines of the chunk it is in; nil for a C function, and where
-- the chunk's text is gone.
local function chunk_of(f)
  local info = getinfo(f, "S")
  if info.what == "C" then return nil end
  local how, name = sub(info.source, 1, 1), sub(info.source, 2)
  local text = info.source
  if how == "@" then text = read_file(name) elseif how == "=" then text = cells[name] end
  return info, text and lines_of(text)
end

--- "path:line" or "In [3]:line" of a Lua function; nil for one in C.
function source.place(f)
  local info = getinfo(f, "S")
  if info.what == "C" then return nil end
  local name = match(info.source, "^[@=](.*)") or info.short_src
  return format("%s:%d", name, info.linedefined)
end

-- Lines of a comment without their dashes.
local function bare(lines, first, last)
  local comment = { unpack(lines, first, last) }
  for i, line in ipairs(comment) do comment[i] = match(line, "^%s*%-%-%-? ?(.-)%s*$") end
  return concat(comment, "\n")
end

--- The comment that stands directly above a function, without its dashes; nil where there is none.
function source.comment(f)
  local info, lines = chunk_of(f)
  if not lines then return nil end
  local first = info.linedefined
  while first > 1 and find(lines[first - 1] or "", "^%s*%-%-") and not find(lines[first - 1], "%-%-%-%-%s*$") do
    first = first - 1
  end
  if first == info.linedefined then return nil end
  return bare(lines, first, info.linedefined - 1)
end

--- The path of the file of a loaded module, and the comment with which it opens; nil for what is none.
function source.module(module)
  for name, value in next, loaded do
    local path = rawequal(value, module) and type(package.path) == "string" and searchpath(name, package.path)
    local text = path and read_file(path)
    if text then
      local lines = lines_of(text)
      local first = find(lines[1], "^#!") and 2 or 1
      local last = first - 1
      while find(lines[last + 1] or "", "^%-%-") do last = last + 1 end
      return path, last >= first and bare(lines, first, last) or nil
    end
  end
end

--- The lines that define a function; nil where they are not known.
function source.definition(f)
  local info, lines = chunk_of(f)
  if not lines or not lines[info.lastlinedefined] then return nil end
  return concat(lines, "\n", info.linedefined > 0 and info.linedefined or 1, info.lastlinedefined)
end

return source
