-- Errors of whoever uses constrint: raised at the line that called into it, from however deep inside.

local complain = {}

local function folder_of(frame) return frame.source:match("^(.*)[/\\]") end

local here = folder_of(debug.getinfo(1, "S"))

--- Raises an error at the first line outside this folder. `message` is a format.
function complain.at_caller(message, ...)
  local level, frame = 2, debug.getinfo(2, "S")
  while frame and folder_of(frame) == here do
    level = level + 1
    frame = debug.getinfo(level, "S")
  end
  error(message:format(...), level)
end

--- What came instead of what was expected.
function complain.shown(x)
  if x == nil or type(x) == "boolean" then return tostring(x) end
  if type(x) == "string" then return ("the string %q"):format(x) end
  if type(x) == "number" then return "the number " .. tostring(x) end
  local metatable = getmetatable(x)
  return type(metatable) == "table" and metatable.kind or "a " .. type(x)
end

--- An argument of a function is wrong: names it, what came, what was expected.
function complain.argument(where, x, expected)
  complain.at_caller("%s: expected %s, got %s", where, expected, complain.shown(x))
end

--- `x` as an integer, or a complaint.
function complain.unless_integer(where, x)
  local value = type(x) == "number" and math.tointeger(x)
  if not value then complain.argument(where, x, "an integer") end
  return value
end

return complain
