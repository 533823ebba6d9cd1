-- Places in messages: C functions called from the program's own Lua files put those files' names in front.

local place = {}

--- The message without the place in this program's files that it begins with. What Lua itself found wrong there
-- ("attempt to ...") keeps it: that is a mistake of the program.
function place.strip(message)
  local rest = message:match("^[^\n:]*perilune/[%w_/]*%.lua:%d+: (.*)$")
  if not rest or rest:match("^attempt to") then return message end
  return rest
end

return place
