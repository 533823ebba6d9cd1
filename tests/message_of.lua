-- What a call that must fail says.

--- Fails unless f(...) raises an error; returns the error's message.
return function(f, ...)
  local ok, message = pcall(f, ...)
  assert(not ok, "expected an error, got none")
  return message
end
