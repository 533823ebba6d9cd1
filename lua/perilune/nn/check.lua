-- Checks of arguments shared by layers, optimisers, tasks and the training loop: each raises an error that names the
-- argument, what was expected and what came, at the line of the user who called.
local check = {}

--- A value as messages write it.
function check.shown(value)
  if type(value) == "number" then return tostring(value) end
  if type(value) == "string" then return "'" .. value .. "'" end
  return value == nil and "nothing" or "a " .. type(value)
end
local shown = check.shown

--- The level of the first caller outside the library's own Lua files, for error().
local function user_level()
  local level = 3
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return 2 end
    if info.what ~= "C" and not info.source:match("lua/perilune/[%w_/]*%.lua$") then return level - 1 end
    level = level + 1
  end
end

--- Raises an error whose place is the user's line.
function check.fail(message, ...)
  error(select("#", ...) > 0 and message:format(...) or message, user_level())
end

local function wrong(who, name, value, expected)
  check.fail("%s: %s: expected %s, got %s", who, name, expected, shown(value))
end

--- An integer of at least `minimum` (default 1).
function check.integer(who, name, value, minimum)
  local whole = math.tointeger(value)
  if type(value) ~= "number" or not whole or whole < (minimum or 1) then
    wrong(who, name, value, "an integer of at least " .. (minimum or 1))
  end
  return whole
end

--- A number within [minimum, maximum]; either may be nil.
function check.number(who, name, value, minimum, maximum)
  if type(value) ~= "number" or value ~= value or (minimum and value < minimum) or (maximum and value > maximum) then
    local range = ""
    if minimum then range = " of at least " .. minimum end
    if maximum then range = range .. (minimum and " and" or " of") .. " at most " .. maximum end
    wrong(who, name, value, "a number" .. range)
  end
  return value
end

--- One of the words in `choices`.
function check.choice(who, name, value, choices)
  for _, choice in ipairs(choices) do
    if value == choice then return value end
  end
  wrong(who, name, value, "one of " .. table.concat(choices, ", "))
end

--- A value of the Lua type `kind`.
function check.kind(who, name, value, kind)
  if type(value) ~= kind then wrong(who, name, value, "a " .. kind) end
  return value
end

--- Something that can be called: a function, or a table or userdata with __call.
function check.callable(who, name, value)
  local meta = getmetatable(value)
  if type(value) ~= "function" and not (type(meta) == "table" and meta.__call) then
    wrong(who, name, value, "a function")
  end
  return value
end

--- The options of a constructor: nil or a table whose every key is in `known` (name = default value, or check.none);
-- where the default is true or false, so must the value be. Returns a new table with the defaults filled in.
check.none = setmetatable({}, { __tostring = function() return "none" end })
function check.options(who, given, known)
  local values = {}
  for name, default in pairs(known) do
    if default ~= check.none then values[name] = default end
  end
  if given == nil then return values end
  if type(given) ~= "table" then wrong(who, "options", given, "a table") end
  for name, value in pairs(given) do
    if known[name] == nil then
      local names = {}
      for one in pairs(known) do names[#names + 1] = tostring(one) end
      table.sort(names)
      check.fail("%s: unknown option '%s'; expected %s", who, tostring(name), table.concat(names, ", "))
    end
    if type(known[name]) == "boolean" then check.kind(who, name, value, "boolean") end
    values[name] = value
  end
  return values
end

--- The sizes of a tensor as messages write them: "[2, 3]".
function check.shape_text(shape)
  return "[" .. table.concat(shape, ", ") .. "]"
end

--- A tensor; with `dims`, of that many dimensions; with `last`, whose last dimension has that size.
function check.tensor(who, name, value, dims, last)
  if not require("perilune").is_tensor(value) then wrong(who, name, value, "a tensor") end
  local shape = value.shape
  if dims and #shape ~= dims then
    check.fail("%s: %s: expected %d dimensions, got shape %s", who, name, dims, check.shape_text(shape))
  end
  if last and shape[#shape] ~= last then
    check.fail("%s: %s: expected a last dimension of %d, got shape %s", who, name, last, check.shape_text(shape))
  end
  return value
end

return check
