-- Plans that were measured, on disk: plans.jsonl in the folder of caches, which any number of processes share. A line
-- is a record, the last one for a problem counts, and what is no record is passed over: a cache is never a failure.

local core = require "perilune.core"

local tuned = {}

-- ---- records --------------------------------------------------------------------------------------------------------

local function text(value) return type(value) == "string" and value ~= "", "a text" end
local function count(value) return math.type(value) == "integer" and value >= 1, "an integer of at least 1" end
local function time(value)
  return type(value) == "number" and value > 0 and value < math.huge, "a number of microseconds"
end
local function dtype(value)
  return value == "float32" or value == "bfloat16" or value == "float16", "float32, bfloat16 or float16"
end
local function fields(value)
  return type(value) == "table" and text(value.scope), "an object with a scope"
end

-- What a record says, in the order in which it is checked; by the first IDENTITY of these a problem is known. Equal
-- cells are equal whatever they are called, and a forward clip is part of a cell.
local IDENTITY <const> = 7
local members = {
  { "device", text }, { "cell", text }, { "batch", count }, { "heads", count }, { "head_dim", count },
  { "dtype", dtype }, { "product", dtype },
  { "name", text }, { "plan", fields }, { "predicted_us", time }, { "measured_us", time }, { "feasible", count },
  { "tried", count }, { "date", text },
}

local function shown(value)
  if value == nil then return "nothing" end
  return type(value) == "table" and "a table" or ("'%s'"):format(value)
end

--- Why x is no record, or nil.
function tuned.complaint(x)
  if type(x) ~= "table" then return ("expected an object, got %s"):format(shown(x)) end
  for _, member in ipairs(members) do
    local name, check = table.unpack(member)
    local fine, expected = check(x[name])
    if not fine then return ("%s: expected %s, got %s"):format(name, expected, shown(x[name])) end
  end
end

-- 64 bits of FNV-1a: two cells of one hash would share a plan, which is slower perhaps, but never wrong.
local function hash(words)
  local h = 0xcbf29ce484222325
  for i = 1, #words do h = (h ~ words:byte(i)) * 0x100000001b3 end
  return ("%016x"):format(h)
end

--- What a record of `problem` on `chip` begins with: what it is known by, and the cell's name for readers.
function tuned.identity(problem, chip)
  return {
    device = ("%s, sm_%d, %d multiprocessors, %d bytes"):format(chip.model or "no model", chip.architecture,
      chip.multiprocessors, chip.shared_bytes),
    cell = hash(problem.cell:spec({ forward_clip = problem.forward_clip }).key), name = problem.cell.name,
    forward_clip = problem.forward_clip, batch = problem.batch, heads = problem.heads, head_dim = problem.head_dim,
    dtype = problem.dtype, product = problem.product,
  }
end

local function key_of(record)
  local words = {}
  for i = 1, IDENTITY do words[i] = tostring(record[members[i][1]]) end
  return table.concat(words, "; ")
end

--- Calls each(record, number) for the records among the lines of a text, and each(nil, number, why_not) for others.
function tuned.scan(lines, each)
  local number = 0
  for line in lines:gmatch "[^\n]+" do
    number = number + 1
    local ok, record = pcall(core.json_decode, line)
    local why_not = not ok and "it is no JSON" or tuned.complaint(record)
    each(not why_not and record or nil, number, why_not)
  end
end

-- ---- the file -------------------------------------------------------------------------------------------------------

--- Where the file is, or nil and why that cannot be said.
function tuned.path()
  local folder, why_not = core.cache_folder()
  if not folder then return nil, why_not end
  return folder .. "/plans.jsonl"
end

local known = { size = 0, records = {} } -- of the file `path`, when it was `size` bytes long

-- The records by key, read again when the file has changed its size: it only ever grows.
local function current()
  local path = tuned.path()
  local file <close> = path and io.open(path, "rb") or nil
  local size = file and file:seek "end" or 0
  if known.path ~= path or known.size ~= size then
    known = { path = path, size = size, records = {} }
    if size > 0 then
      file:seek "set"
      tuned.scan(file:read "a" or "", function(record)
        if record then known.records[key_of(record)] = record end
      end)
    end
  end
  return known.records
end

--- The record that begins as identity does, or nil.
function tuned.find(identity) return current()[key_of(identity)] end

--- All records, one for each problem, in an order that depends on nothing else.
function tuned.all()
  local list = {}
  for _, record in pairs(current()) do list[#list + 1] = record end
  table.sort(list, function(a, b) return key_of(a) < key_of(b) end)
  return list
end

--- Records as lines of JSON.
function tuned.lines(records)
  local lines = {}
  for i, record in ipairs(records) do lines[i] = core.json_encode(record) .. "\n" end
  return table.concat(lines)
end

--- Adds records, all or none: true, or nil and why they cannot be written.
function tuned.add(records)
  local path, why_not = tuned.path()
  if not path then return nil, why_not end
  return core.append_lines(path, tuned.lines(records))
end

return tuned
