-- A line of a terminal that is written again and again in its place, as progress bars and monitors do.
local core = require "perilune.core"

-- As much of a line as the terminal shows in one: what goes on in a second line would stay there.
local function fitted(line)
  local columns = core.terminal_columns()
  local beyond = columns and utf8.offset(line, columns) -- the last column stays free, for some terminals wrap at it
  return beyond and line:sub(1, beyond - 1) or line
end

--- Writes the line in place of the one before, on the standard error; a `final` one stays.
return function(line, final)
  io.stderr:write("\r", fitted(line), "\27[K", final and "\n" or "")
  io.stderr:flush()
end
