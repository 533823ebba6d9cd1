-- Errors of whoever uses a part of the program: raised at the line that called into the part, from however deep inside.
local at_caller = {}

local function folder_of(frame) return frame.source:match("^(.*[/\\])") or "" end

local here = folder_of(debug.getinfo(1, "S"))

local function new(folder)
  return function(message, ...)
    local level, frame = 2, debug.getinfo(2, "S")
    while frame and folder_of(frame):sub(1, #folder) == folder do
      level = level + 1
      frame = debug.getinfo(level, "S")
    end
    error(message:format(...), level)
  end
end

--- Raises an error at the first line that is none of the program's, or without a place where a front end caused it.
-- `message` is a format.
at_caller.of_program = new(here)

--- Makes such a function for the folder of the file that calls this: its errors are those of the rest of the program,
-- too.
function at_caller.of_folder() return new(folder_of(debug.getinfo(2, "S"))) end

return at_caller
