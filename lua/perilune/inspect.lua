-- Results as people read them: text for any value, and the MIME bundle of what a cell returns.
local inspect = {}

-- Cells may use these names for values of their own.
local type, next, pcall, tostring, rawget, rawlen, pairs, ipairs, error, select =
  type, next, pcall, tostring, rawget, rawlen, pairs, ipairs, error, select
local math_type, min = math.type, math.min
local sort, concat, getmetatable = table.sort, table.concat, debug.getmetatable

-- Levels of tables, items of one table, of all tables together, columns of a line, bytes of a string.
local DEPTH_MAX, ITEMS_MAX, TOTAL_MAX, WIDTH_MAX, STRING_MAX = 4, 60, 2000, 100, 4000

local function quote(text)
  if #text > STRING_MAX then text = text:sub(1, STRING_MAX) .. "…" end
  local quoted = text:gsub('[%c"\\\127]', function(c)
    local named = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ['"'] = '\\"', ["\\"] = "\\\\" }
    return named[c] or ("\\x%02X"):format(c:byte())
  end)
  return '"' .. quoted .. '"'
end

local function told(raised) return type(raised) == "string" and raised or "error object is a " .. type(raised) end

-- tostring, with an error in __tostring told as one sentence.
local function describe(value)
  local ok, text = pcall(tostring, value)
  if ok then return text end
  error("__tostring failed: " .. told(text), 0)
end

local function key_text(key)
  if type(key) ~= "string" then return "[" .. inspect.line(key) .. "]" end
  return key:match "^[%a_][%w_]*$" or "[" .. quote(key) .. "]"
end

-- Numbers first, then strings, each in order; the rest as it comes.
local RANK = { number = 1, string = 2 }
local function before(a, b)
  local rank_a, rank_b = RANK[type(a)] or 3, RANK[type(b)] or 3
  if rank_a ~= rank_b then return rank_a < rank_b end
  return rank_a < 3 and a < b
end

--- The keys of a table behind its sequence of that length, in that order unless there are more than 10,000.
function inspect.keys(value, length)
  local keys = {}
  for key in next, value do
    local in_sequence = math_type(key) == "integer" and key >= 1 and key <= length
    if not in_sequence and key == key then keys[#keys + 1] = key end
  end
  if #keys <= 10000 then sort(keys, before) end
  return keys
end

local format

-- `shown` holds the tables that are being laid open, and the number of items so far.
local function items(value, depth, shown)
  local list, length = {}, rawlen(value)
  local function add(text)
    shown.count = shown.count + 1
    list[#list + 1] = text
  end
  local in_sequence, in_keys = 0, 0
  while in_sequence < min(length, ITEMS_MAX) and shown.count < TOTAL_MAX do
    in_sequence = in_sequence + 1
    add(format(rawget(value, in_sequence), depth + 1, shown))
  end
  local keys = inspect.keys(value, length)
  while in_keys < min(#keys, ITEMS_MAX) and shown.count < TOTAL_MAX do
    in_keys = in_keys + 1
    local key = keys[in_keys]
    add(key_text(key) .. " = " .. format(rawget(value, key), depth + 1, shown))
  end
  local hidden = length - in_sequence + #keys - in_keys
  if hidden > 0 then list[#list + 1] = ("… %d more"):format(hidden) end
  return list
end

local function format_table(value, depth, shown)
  if shown[value] then return "<contains itself>" end
  if depth >= DEPTH_MAX then return next(value) == nil and "{}" or "{…}" end
  shown[value] = true
  local list = items(value, depth, shown)
  shown[value] = nil
  local width, several = 0, false
  for _, item in ipairs(list) do
    width = width + #item + 2
    several = several or item:find("\n", 1, true) ~= nil
  end
  if not several and width + 2 * depth <= WIDTH_MAX then return "{" .. concat(list, ", ") .. "}" end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. concat(list, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

function format(value, depth, shown)
  local kind = type(value)
  if kind == "string" then return quote(value) end
  local meta = getmetatable(value)
  local described = type(meta) == "table" and (rawget(meta, "__tostring") or rawget(meta, "__name"))
  if kind == "table" and not described then return format_table(value, depth, shown) end
  local text = describe(value)
  return depth > 0 and text:gsub("\n", "\n" .. ("  "):rep(depth)) or text
end

-- Text of one value; tables are laid open, with limits on depth and length.
function inspect.text(value) return (format(value, 0, { count = 0 })) end

-- Text of one value in one line, as it stands for a key.
function inspect.line(value)
  if type(value) == "table" then return describe(value) end
  return (format(value, 0, { count = 0 }))
end

local function mime_of(value)
  local meta = getmetatable(value)
  local mime = type(meta) == "table" and rawget(meta, "__mime")
  if not mime then return nil end
  local ok, bundle = pcall(mime, value)
  if not ok then error("__mime failed: " .. told(bundle), 0) end
  if type(bundle) ~= "table" then
    error("__mime must return a table from MIME types to contents, got " .. type(bundle), 0)
  end
  return bundle
end

-- The MIME bundle of a cell's results; nil when there is nothing to show. A single object may bring its own through the
-- metatable field __mime; an empty one means that the object shows nothing.
function inspect.bundle(...)
  local count, bundle = select("#", ...), nil
  if count == 1 then bundle = mime_of((...)) end
  if bundle and next(bundle) == nil then return nil end
  local copy = {}
  for mime, content in pairs(bundle or {}) do copy[mime] = content end
  if copy["text/plain"] == nil then
    local texts, several = {}, false
    for i = 1, count do
      texts[i] = inspect.text((select(i, ...)))
      several = several or texts[i]:find("\n", 1, true) ~= nil
    end
    copy["text/plain"] = concat(texts, several and "\n" or "\t")
  end
  return copy
end

return inspect
