-- Files that grow by records, each of which is in the file as soon as it is written: a killed program loses none.
local log_file = {}

local File = {}
File.__index = File

local function heard(path, done, message)
  if not done then error(("cannot write '%s': %s"):format(path, (message:gsub("^.*: ", ""))), 0) end
end

--- Opens a file as io.open does with "w" or "a". That it cannot be written, now or later, is an error that names it.
function log_file.open(path, mode)
  local file, message = io.open(path, mode)
  heard(path, file, message)
  return setmetatable({ file = file, path = path }, File)
end

--- Writes texts one behind the other; they are in the file afterwards.
function File:write(...)
  heard(self.path, self.file:write(...))
  heard(self.path, self.file:flush())
end

--- Closes the file; a second time does nothing.
function File:close()
  if io.type(self.file) == "file" then self.file:close() end
end

return log_file
