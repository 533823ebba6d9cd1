-- What modules of the program declare to completion and help, where they check and define it: the options that a
-- function takes, what is to be said of a function that another one made, and __index functions that run none of the
-- user's code.
local declared = {}

local next, sort = next, table.sort -- cells may give other values to these names

local options = setmetatable({}, { __mode = "k" })       -- function or class -> table whose keys are the names
local documents = setmetatable({}, { __mode = "k" })     -- function -> text or function
local safe_indices = setmetatable({}, { __mode = "k" })  -- __index function -> true
local makers = setmetatable({}, { __mode = "k" })        -- function -> metatable of what it returns

--- Declares that `callee`, a function or a class, takes a table with the options that are the keys of `known`: the very
-- table by which they are checked. Returns `known`.
function declared.options(callee, known)
  options[callee] = known
  return known
end

--- The names of a callee's options in alphabetical order; an empty list when it declares none.
function declared.options_of(callee)
  local names = {}
  for name in next, callee ~= nil and options[callee] or {} do names[#names + 1] = name end
  sort(names)
  return names
end

--- Declares what help says of a function whose source has no comment of its own, because another function made it: a
-- text, which begins with the call ("zeros_like(t [, options]) -> tensor: ..."), or the function whose comment says it.
function declared.document(f, said)
  documents[f] = said
  return f
end

function declared.document_of(f) return f ~= nil and documents[f] or nil end

--- Declares that f, when it is called, returns an object with the metatable.
function declared.makes(f, metatable)
  makers[f] = metatable
  return f
end

function declared.made_by(f) return f ~= nil and makers[f] or nil end

--- Declares that f, an __index function, may be called to see what a field holds.
function declared.safe_index(f)
  safe_indices[f] = true
  return f
end

function declared.is_safe_index(f) return f ~= nil and safe_indices[f] == true end

return declared
