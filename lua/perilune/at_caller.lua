-- Errors of whoever uses a module that has a folder of its own: raised at the line that called into the folder, from
-- however deep inside.

local function folder_of(frame) return frame.source:match("^(.*)[/\\]") end

--- Makes at_caller(message, ...) for the folder of the file that calls this: it raises an error at the first line
-- outside. `message` is a format.
return function()
  local here = folder_of(debug.getinfo(2, "S"))
  return function(message, ...)
    local level, frame = 2, debug.getinfo(2, "S")
    while frame and folder_of(frame) == here do
      level = level + 1
      frame = debug.getinfo(level, "S")
    end
    error(message:format(...), level)
  end
end
