-- Errors of whoever uses constrint: raised at the line that called into it, from however deep inside.

local at_caller = require "perilune.at_caller"

-- `complain.at_caller(message, ...)`: message is a format.
local complain = { at_caller = at_caller.of_folder() }

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
