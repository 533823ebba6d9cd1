-- Files of JSON lines, a record each: written so that a full disk is heard of, read when whoever wrote them was killed.
local core = require "perilune.core"
local log_file = require "perilune.log_file"

local json_lines = {}

-- The whole lines of a file with their records, { line =, record = }, and the text after the last of them, or nil. An
-- error names a line that is no JSON.
local function lines_of(path)
  local file, message = io.open(path)
  if not file then error("cannot read " .. message, 0) end
  local _ <close>, list = file, {}
  for line in file:lines "L" do
    if line:sub(-1) ~= "\n" then return list, line end
    local decoded, record = pcall(core.json_decode, line)
    if not decoded or type(record) ~= "table" then
      error(("%s: line %d is no JSON record: %.60s"):format(path, #list + 1, line:sub(1, -2)), 0)
    end
    list[#list + 1] = { line = line, record = record }
  end
  return list
end

-- The whole lines; a last line that was cut short is told of on the standard error and left out.
local function whole_lines(path)
  local list, rest = lines_of(path)
  if rest then io.stderr:write("warning: ", path, " ends within a line, which is left out\n") end
  return list
end

--- The records of a file. A last line that was cut short is told of on the standard error and left out.
function json_lines.read(path)
  local list = whole_lines(path)
  for i, entry in ipairs(list) do list[i] = entry.record end
  return list
end

-- The last byte of a file; nil where there is none, of pipes and devices, too.
local function last_byte(path)
  local file <close> = io.open(path)
  if file and (file:seek "end" or 0) > 0 and file:seek("end", -1) then return file:read(1) end
end

--- Cuts a file back to the records for which keep(record) holds, without a last line that was cut short; atomically.
-- Where there is nothing, nothing is done.
function json_lines.cut(path, keep)
  if not last_byte(path) then return end
  local kept = {}
  for _, entry in ipairs(whole_lines(path)) do
    if keep(entry.record) then kept[#kept + 1] = entry.line end
  end
  core.write_file(path, table.concat(kept))
end

local Writer = {}
Writer.__index = Writer

local function everything() return true end

--- Something to write records to: `path` begun anew, or with mode "a" from its end on, without a last line that was cut
-- short.
function json_lines.open(path, mode)
  if mode == "a" and (last_byte(path) or "\n") ~= "\n" then json_lines.cut(path, everything) end
  return setmetatable({ file = log_file.open(path, mode or "w"), path = path }, Writer)
end

--- Writes a record; it is in the file afterwards.
function Writer:write(record) self.file:write(core.json_encode(record), "\n") end

function Writer:close() self.file:close() end
Writer.__close = Writer.close

return json_lines
