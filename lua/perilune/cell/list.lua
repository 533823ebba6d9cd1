-- What the stages share about lists.

local list = {}

--- One list of the elements of all.
function list.join(...)
  local result = {}
  for _, part in ipairs { ... } do table.move(part, 1, #part, #result + 1, result) end
  return result
end

--- { [element] = true }.
function list.set(elements)
  local result = {}
  for _, element in ipairs(elements) do result[element] = true end
  return result
end

return list
