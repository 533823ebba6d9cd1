-- Finds the lines of a cell that are no Lua: `%name`, `?name`, `name?`, `!command`. Goes by Lua's own tokens, so that
-- such a sign in a string, a comment, a bracket or an expression is never taken for one.
local core = require "perilune.core"

-- Cells may give other values to these names.
local type, rawget, setmetatable, globals, tokens = type, rawget, setmetatable, _G, core.tokens
local sub, find, match, remove = string.sub, string.find, string.match, table.remove

-- What opens brackets and blocks, by the word that closes them.
local closed_by <const> = { ["("] = ")", ["["] = "]", ["{"] = "}", ["repeat"] = "until", ["if"] = "end",
  ["do"] = "end", ["function"] = "end" }
local closing <const> = { [")"] = true, ["]"] = true, ["}"] = true, ["until"] = true, ["end"] = true }
local bracket <const> = { [")"] = true, ["]"] = true, ["}"] = true }

-- Behind these words a statement begins, and nothing else can.
local opens_statement <const> = { [";"] = true, ["do"] = true, ["then"] = true, ["else"] = true, ["repeat"] = true,
  ["break"] = true }
-- Behind these, as behind names, numbers and strings, a statement may begin or the expression go on.
local ends_operand <const> = { [")"] = true, ["]"] = true, ["}"] = true, ["..."] = true, ["end"] = true,
  ["nil"] = true, ["true"] = true, ["false"] = true }

-- Goes through a piece of code. `open` holds the brackets and blocks that are open; `statement` says whether a
-- statement may begin at the next token: "sure" (nothing else can), "maybe" (the expression before it may go on there)
-- or nil.
local Walk = {}
Walk.__index = Walk

local function new_walk(code)
  return setmetatable({ code = code, open = {}, statement = "sure", names = {} }, Walk)
end

-- Reads the tokens from byte `at` on.
function Walk:read(at)
  self.base = at - 1
  self.kind, self.first, self.last = tokens(sub(self.code, at))
end

function Walk:word(i)
  return self.first[i] and sub(self.code, self.base + self.first[i], self.base + self.last[i]) or ""
end

-- Whether only a statement can follow token i, a word that elsewhere ends an operand or is an operator.
function Walk:completes(i, word, closed)
  if word == "end" then return closed ~= nil and not closed.is_value end
  if word == "::" then return self:word(i - 2) == "::" end
  if word == ">" then -- of local x <const>
    local attribute = self:word(i - 1)
    return self:word(i - 2) == "<" and (attribute == "const" or attribute == "close")
  end
  if word == ")" then -- of a function's parameters
    local top = self.open[#self.open]
    if not top or not top.wants_parameters then return false end
    top.wants_parameters = false
    return true
  end
  return self:word(i - 1) == "goto"
end

-- Goes past token i.
function Walk:pass(i)
  local kind, word = self.kind[i], self:word(i)
  local operand = kind == "name" or kind == "number" or kind == "string"
  local closed
  if kind == "name" then
    local before = self:word(i - 1)
    if before ~= "." and before ~= ":" and i ~= self.doubtful then self.names[word] = true end
  elseif not operand then
    local top = self.open[#self.open]
    if closing[word] and top and top.closed_by == word then closed = remove(self.open) end
    if closed_by[word] then
      local is_function = word == "function"
      self.open[#self.open + 1] = { closed_by = closed_by[word], wants_parameters = is_function,
        is_value = is_function and self:word(i + 1) == "(" }
    end
  end
  if kind ~= "string" and (opens_statement[word] or self:completes(i, word, closed)) then
    self.statement = "sure"
  else
    self.statement = (operand or ends_operand[word]) and "maybe" or nil
  end
end

-- Whether an operand of this name could make `a % name` work: a variable of the cell, or a global one that is no
-- function. Without it the operator would raise an error in any case.
local function is_operand(name, names)
  local value = rawget(globals, name)
  return names[name] or value ~= nil and type(value) ~= "function"
end

-- Whether token i, which is the first of its line, begins a line that is no Lua. `known` holds the names that may
-- follow a `%`; `names` those of the cell's variables, nil while they are not known: then doubtful lines are Lua.
function Walk:is_magic(i, known, names)
  local top = self.open[#self.open]
  if not self.statement or top and bracket[top.closed_by] then return false end
  local word, kind = self:word(i), self.kind[i]
  local at = self.base + self.first[i]
  if kind == "name" then return find(self.code, "^[%w_.:]+%?%??[ \t\r]*%f[\n\0]", at) ~= nil end
  if kind ~= "symbol" then return false end
  if word ~= "%" then return word == "?" or word == "!" end
  if self.statement == "sure" then return true end
  self.doubtful = i + 1 -- the name that may be a magic's does not count among the cell's own
  local name = match(self.code, "^%%([%a_][%w_]*)%f[ \t\r\n\0]", at)
  return name ~= nil and known[name] ~= nil and names ~= nil and not is_operand(name, names)
end

-- Whether nothing but blanks stands between the token before token i, or where the reading began, and token i's line.
function Walk:begins_line(i)
  local before = self.last[i - 1]
  local gap = sub(self.code, self.base + (before or 0) + 1, self.base + self.first[i] - 1)
  return match(gap, "^[ \t]*$") ~= nil and before == nil or match(gap, "\n[ \t]*$") ~= nil
end

-- The lines of the code that are no Lua, in their order, and the walk itself.
local function walk(code, known, names)
  local self, found, i = new_walk(code), {}, 1
  self:read(1)
  while self.kind[i] do
    local last = found[#found]
    if last then last.followed = true end
    if self:begins_line(i) and self:is_magic(i, known, names) then
      local first = self.base + self.first[i]
      local stop = find(code, "\n", first, true) or #code + 1
      found[#found + 1] = { first = first, last = stop - 1, text = match(sub(code, first, stop - 1), "^(.-)%s*$"),
        opens = self.base == 0 and i == 1 }
      self.statement, i = "sure", 1
      self:read(stop)
    else
      self:pass(i)
      i = i + 1
    end
  end
  return found, self
end

--- The lines of the code that are no Lua, in their order: tables with the places `first` and `last` of their bytes,
-- their `text` without blanks round it, `opens` and `followed`: whether no code stands before, and some behind it.
-- `known` is a table whose keys are the names that may follow a `%`.
--
-- Where the expression before a line could go on, `%` is Lua's operator, unless a known name stands right behind it
-- that is no variable: then the operator could only fail.
return function(code, known)
  local may_have = find(code, "^[ \t]*[%%!]") or find(code, "\n[ \t]*[%%!]") or find(code, "?", 1, true)
  if not may_have then return {} end
  local found, first = walk(code, known)
  if first.doubtful then found = walk(code, known, first.names) end
  return found
end
