-- What a figure of perilune.plot is made of, checked: options, series and matrices as new plain tables.
local core = require "perilune.core"
local check = require "perilune.nn.check"

local read = {}

--- Raises an error at the user's line.
function read.fail(message, ...)
  check.fail("plot: " .. message, ...)
end
local fail = read.fail

local function is_text(value)
  return type(value) == "string" or type(value) == "number"
end

--- Whether x is a number that can be drawn.
function read.finite(x)
  return type(x) == "number" and x == x and x ~= math.huge and x ~= -math.huge
end
local finite = read.finite

local function is_limit(value)
  return value == nil or finite(value)
end

-- {low, high}; either may be missing.
local function is_range(value)
  if type(value) ~= "table" or not is_limit(value[1]) or not is_limit(value[2]) then return false end
  return value[1] == nil or value[1] ~= value[2]
end

local function is_size(value)
  if type(value) ~= "table" then return false end
  for i = 1, 2 do
    if not finite(value[i]) or value[i] < 50 or value[i] > 20000 then return false end
  end
  return true
end

local places <const> = { left = 1, right = 1, center = 1, top = 1, bottom = 1, inside = 1, outside = 1 }

local function is_place(value)
  if type(value) ~= "string" or value == "" then return value == false end
  for word in value:gmatch("%S+") do
    if not places[word] then return false end
  end
  return true
end

local text_option <const> = { is_text, "a string" }
local logarithmic <const> = {
  function(value) return type(value) == "boolean" or finite(value) and value > 1 end, "true, false or a base above 1",
}
local range_option <const> = { is_range, "{ low, high }, two different numbers" }
-- What each option may be: a test, and its words for messages.
local known_options <const> = {
  title = text_option, xlabel = text_option, ylabel = text_option, logx = logarithmic, logy = logarithmic,
  xrange = range_option, yrange = range_option,
  interactive = { function(value) return type(value) == "boolean" end, "true or false" },
  size = { is_size, "{ width, height } in pixels, from 50 to 20000" },
  columns = { function(value) return math.type(value) == "integer" and value >= 1 end, "an integer of at least 1" },
  legend = { is_place, "false or a place, words of left right center top bottom inside outside" },
}

local function sorted(names)
  local list = {}
  for name in pairs(names) do list[#list + 1] = name end
  table.sort(list)
  return table.concat(list, ", ")
end

--- The names of the options of a kind of figure with axes; `refused` names those that it has no use for.
function read.known(refused)
  local known = {}
  for name in pairs(known_options) do
    if not refused[name] and name ~= "columns" then known[name] = true end
  end
  return known
end

--- The options of a figure, without the series; `known` is what read.known gave for its kind.
function read.options(spec, known)
  local options = {}
  for key, value in pairs(spec) do
    if math.type(key) ~= "integer" or key < 1 or key > #spec then
      if not known[key] then fail("unknown option '%s'; expected %s", tostring(key), sorted(known)) end
      local test, expected = known_options[key][1], known_options[key][2]
      if not test(value) then fail("%s: expected %s, got %s", key, expected, check.shown(value)) end
      options[key] = value
    end
  end
  for _, axis in ipairs { "x", "y" } do
    local limits = options["log" .. axis] and options[axis .. "range"] or {}
    for i = 1, 2 do
      if limits[i] and limits[i] <= 0 then
        fail("%srange: expected numbers above 0 on a logarithmic axis, got %g", axis, limits[i])
      end
    end
  end
  return options
end

-- A list without holes, as a new table, from a table or tensor. Every item passes `test`.
local function items_of(value, name, test, expected)
  if core.is_tensor(value) then value = value:totable() end
  if type(value) ~= "table" then fail("%s: expected a table or a tensor, got %s", name, check.shown(value)) end
  if next(value) == nil then fail("%s: expected at least one value, got none", name) end
  local count, items = #value, {}
  for key, item in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 or key > count then
      fail("%s: expected the values 1..%d, got the key %s", name, count, check.shown(key))
    end
    items[key] = item
  end
  for i = 1, count do
    if not test(items[i]) then fail("%s[%d]: expected %s, got %s", name, i, expected, check.shown(items[i])) end
  end
  return items
end

local function is_number(value) return type(value) == "number" end
local function is_list(value) return type(value) == "table" end
function read.numbers(value, name) return items_of(value, name, is_number, "a number") end
function read.words(value, name) return items_of(value, name, is_text, "a number or a string") end

-- 1 .. n.
local function count(n)
  local xs = {}
  for i = 1, n do xs[i] = i end
  return xs
end

local function require_length(items, n, name)
  if #items ~= n then fail("%s: expected %d values, got %d", name, n, #items) end
end

local function require_fields(given, name, known)
  for key in pairs(given) do
    if not known[key] then fail("%s: unknown field '%s'; expected %s", name, tostring(key), sorted(known)) end
  end
end

local function require_figure(spec)
  if type(spec) ~= "table" then fail("expected a table of series and options, got %s", check.shown(spec)) end
end

-- Where series that belong together shall look alike: the place of their colour, or of their dashes and marker, among
-- those that a figure has.
local function read_look(value, name)
  if value ~= nil and (math.type(value) ~= "integer" or value < 1) then
    fail("%s: expected an integer of at least 1, got %s", name, check.shown(value))
  end
  return value
end

--- The series of a figure with the columns and looks ("colour", "dash") that its kind has, as new tables of equal
-- length; read_x(value, name) reads their x.
function read.series(spec, columns, looks, read_x)
  require_figure(spec)
  if #spec == 0 then fail("no series: expected at least one { x =, y = } in the table") end
  local known = { x = true, label = true }
  for _, column in ipairs(columns) do known[column] = true end
  for _, look in ipairs(looks) do known[look] = true end
  local series = {}
  for i, given in ipairs(spec) do
    local name = "series " .. i
    if type(given) ~= "table" then fail("%s: expected a table, got %s", name, check.shown(given)) end
    require_fields(given, name, known)
    if given.label ~= nil and not is_text(given.label) then
      fail("%s.label: expected a string, got %s", name, check.shown(given.label))
    end
    local one = { label = given.label and tostring(given.label) }
    for _, look in ipairs(looks) do one[look] = read_look(given[look], name .. "." .. look) end
    local n
    for _, column in ipairs(columns) do
      local path = name .. "." .. column
      if given[column] == nil then fail("%s is missing", path) end
      one[column] = read.numbers(given[column], path)
      n = n or #one[column]
      require_length(one[column], n, path)
    end
    one.x = given.x ~= nil and read_x(given.x, name .. ".x") or count(n)
    require_length(one.x, n, name .. ".x")
    series[i] = one
  end
  return series
end

--- Fails when xrange leaves no point of the series; with a yrange there is a frame to draw all the same.
function read.require_visible(options, series)
  if not options.xrange or options.yrange then return end
  local low, high = options.xrange[1] or -math.huge, options.xrange[2] or math.huge
  if low > high then low, high = high, low end
  for _, one in ipairs(series) do
    for _, x in ipairs(one.x) do
      if x >= low and x <= high then return end
    end
  end
  fail("xrange: no point lies within %g to %g", low, high)
end

--- The one entry of a heatmap: { z =, x =, y =, label = } with z a list of rows, or the matrix itself.
function read.matrix(spec)
  require_figure(spec)
  if #spec ~= 1 then fail("expected one matrix or { z = matrix } in the table, got %d entries", #spec) end
  local given, name = spec[1], "series 1.z"
  if core.is_tensor(given) or type(given) == "table" and given.z == nil and given[1] ~= nil then
    given = { z = given }
  end
  if type(given) ~= "table" then fail("series 1: expected a matrix or { z = matrix }, got %s", check.shown(given)) end
  require_fields(given, "series 1", { z = true, x = true, y = true, label = true })
  if given.z == nil then fail("%s is missing", name) end
  local z = items_of(given.z, name, is_list, "a row of numbers")
  for i, row in ipairs(z) do
    local path = ("%s[%d]"):format(name, i)
    z[i] = read.numbers(row, path)
    require_length(z[i], #z[1], path)
  end
  local x = given.x ~= nil and read.words(given.x, "series 1.x") or count(#z[1])
  local y = given.y ~= nil and read.words(given.y, "series 1.y") or count(#z)
  require_length(x, #z[1], "series 1.x")
  require_length(y, #z, "series 1.y")
  return { z = z, x = x, y = y, label = given.label }
end

return read
