-- What is documented of a function or class: its call and what it does. From the manual for functions in C, from what
-- the program declares, or from the comment above a definition.
local declared = require "perilune.code.declared"
local manual = require "perilune.code.manual"
local source = require "perilune.code.source"

local type, rawget, rawequal = type, rawget, rawequal
local getinfo, getlocal, getmetatable = debug.getinfo, debug.getlocal, debug.getmetatable
local find, match, gsub, concat = string.find, string.match, string.gsub, table.concat

local document = {}

--- The function that says what calling a value means: a function itself, a class's init; nil for what else there is.
function document.definition(value)
  if type(value) == "function" then return value end
  if not document.is_class(value) then return nil end
  local init = rawget(value, "init")
  return type(init) == "function" and init or nil
end

--- Whether a value is a class: a table that makes objects when it is called, and in which they look for methods.
function document.is_class(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(meta) == "table" and rawget(meta, "__call") ~= nil and rawequal(rawget(value, "__index"), value)
end

--- The parameters of a function, "(x, dim)", with those that its documentation calls optional in brackets where it is
-- one of the manual; nil where they are not known. With `method` the first, the object itself, is left out.
function document.parameters(value, method)
  local f = document.definition(value)
  if not f then return nil end
  local entry = manual.of(f)
  if entry then
    local list = match(entry[1], "^[%w_]+(.-)%s*%->") or match(entry[1], "^[%w_]+(.*)")
    if method then list = gsub(gsub(list, "^%([%w_]+,? ?", "("), "^%(%[, ", "([") end
    return list
  end
  local info, names = getinfo(f, "Su"), {}
  if info.what == "C" then return nil end
  local first = (method or f ~= value) and 2 or 1 -- a class is called without its object
  for i = first, info.nparams do names[#names + 1] = getlocal(f, i) end
  if info.isvararg then names[#names + 1] = "..." end
  return "(" .. concat(names, ", ") .. ")"
end

--- What a function or class does, in words; nil where nobody wrote them.
function document.words(value)
  local f = document.definition(value)
  if not f then return nil end
  local entry, said = manual.of(f), declared.document_of(f)
  if type(said) == "function" then return source.comment(said) end
  return said or entry and entry[2] or source.comment(f)
end

--- Whether a call of the value is documented to give a tensor.
function document.returns_tensor(value)
  if type(value) ~= "function" then return false end
  local entry = manual.of(value)
  if entry then return find(entry[1], "%-> tensor$") ~= nil end
  local words = document.words(value)
  return words ~= nil and find(words, "^[%w_.:]+[({].-[)}] %-> tensor") ~= nil
end

return document
