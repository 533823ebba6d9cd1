-- A new, empty folder for a test; the test removes it.

--- Returns the folder's path, which needs no quotes in a shell.
return function()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir " .. path))
  return path
end
