-- What was measured, on disk: files of JSON lines in the folder of caches, which any number of processes share. A line
-- is a record, the last one of a subject counts, and what is no record is passed over: a cache is never a failure.

local core = require "perilune.core"

local records = {}

-- ---- what a member may be: functions that return whether a value is, and what was expected --------------------------

function records.text(value) return type(value) == "string" and value ~= "", "a text" end
function records.count(value)
  return math.type(value) == "integer" and value >= 1, "an integer of at least 1"
end
function records.time(value)
  return type(value) == "number" and value > 0 and value < math.huge, "a number of microseconds"
end

--- Nothing, or what `check` takes.
function records.optional(check)
  return function(value)
    local fine, expected = check(value)
    return value == nil or fine, expected .. ", or nothing"
  end
end

local function shown(value)
  if value == nil then return "nothing" end
  return type(value) == "table" and "a table" or ("'%s'"):format(value)
end

-- ---- files ----------------------------------------------------------------------------------------------------------

local File = {}
File.__index = File

--- The file `name`, whose records have `members`, a list of { name, check }, checked in that order; by the first
-- `identity` of them a record is known.
function records.file(name, identity, members)
  return setmetatable({ name = name, identity = identity, members = members, size = 0, known = {} }, File)
end

--- Why x is no record, or nil.
function File:complaint(x)
  if type(x) ~= "table" then return ("expected an object, got %s"):format(shown(x)) end
  for _, member in ipairs(self.members) do
    local name, check = table.unpack(member)
    local fine, expected = check(x[name])
    if not fine then return ("%s: expected %s, got %s"):format(name, expected, shown(x[name])) end
  end
end

--- What is equal for records of one subject only, a text.
function File:key(record)
  local words = {}
  for i = 1, self.identity do words[i] = tostring(record[self.members[i][1]]) end
  return table.concat(words, "; ")
end

--- Calls each(record, number) for the records among the lines of a text, and each(nil, number, why_not) for others.
function File:scan(lines, each)
  local number = 0
  for line in lines:gmatch "[^\n]+" do
    number = number + 1
    local ok, record = pcall(core.json_decode, line)
    local why_not = not ok and "it is no JSON" or self:complaint(record)
    each(not why_not and record or nil, number, why_not)
  end
end

--- Where the file is, or nil and why that cannot be said.
function File:path()
  local folder, why_not = core.cache_folder()
  if not folder then return nil, why_not end
  return folder .. "/" .. self.name
end

-- The records by key, read again when the file has changed its size: it only ever grows.
local function current(self)
  local path = self:path()
  local file <close> = path and io.open(path, "rb") or nil
  local size = file and file:seek "end" or 0
  if self.read ~= path or self.size ~= size then
    self.read, self.size, self.known = path, size, {}
    if size > 0 then
      file:seek "set"
      self:scan(file:read "a" or "", function(record)
        if record then self.known[self:key(record)] = record end
      end)
    end
  end
  return self.known
end

--- The record that begins as `subject` does, or nil.
function File:find(subject) return current(self)[self:key(subject)] end

--- All records, one for each subject, in an order that depends on nothing else.
function File:all()
  local list = {}
  for _, record in pairs(current(self)) do list[#list + 1] = record end
  table.sort(list, function(a, b) return self:key(a) < self:key(b) end)
  return list
end

--- Records as lines of JSON.
function records.lines(list)
  local lines = {}
  for i, record in ipairs(list) do lines[i] = core.json_encode(record) .. "\n" end
  return table.concat(lines)
end

--- Adds records, all or none: true, or nil and why they cannot be written.
function File:add(list)
  local path, why_not = self:path()
  if not path then return nil, why_not end
  return core.append_lines(path, records.lines(list))
end

return records
