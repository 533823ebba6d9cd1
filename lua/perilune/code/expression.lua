-- What an expression in a piece of code stands for, found without running it: names, fields, literal keys, and calls of
-- which the result is sure.
local peek = require "perilune.code.peek"

local sub, match, tonumber, tointeger = string.sub, string.match, tonumber, math.tointeger

local expression = {}

local DEPTH_MAX <const> = 8 -- of locals that were given other locals

--- The first token of the expression of names, fields, calls and brackets that ends with token `last`; nil when there
-- is none.
function expression.start(code, last)
  local i = last
  while i >= 1 do
    local word = code:word(i)
    local kind = code.kind[i]
    if kind == "name" then
      local before = code:word(i - 1)
      if code.kind[i - 1] ~= "symbol" or before ~= "." and before ~= ":" then return i end
      i = i - 2
    elseif kind == "string" then
      if not code:ends_operand(i - 1) or code.kind[i - 1] == "number" then return i end
      i = i - 1
    elseif kind == "symbol" and (word == ")" or word == "]" or word == "}") then
      local open = code:partner(i)
      if not open then return nil end
      local called = open > 1 and code:ends_operand(open - 1) and code.kind[open - 1] ~= "number"
      if not called then return word == ")" and open or nil end
      i = open - 1
    else
      return nil
    end
  end
end

--- The content of a literal string; nil where it has escapes.
function expression.string(word)
  local level = match(word, "^%[(=*)%[")
  local content
  if level then content = sub(word, #level + 3, -#level - 3) else content = sub(word, 2, -2) end
  return not match(content, "\\") and content or nil
end

-- The only literal between the brackets at tokens open and close, as a Lua value.
local function literal(code, open, close)
  if close ~= open + 2 then return nil end
  local word, kind = code:word(open + 1), code.kind[open + 1]
  if kind == "string" then return expression.string(word) end
  if kind == "number" then return tointeger(tonumber(word)) or tonumber(word) end
end

local value_of

local function name_value(code, i, at, depth)
  local name = code:word(i)
  local one = code:visible(name, at)
  if not one then return peek.global(name) end
  local value = one.value
  if not value or depth >= DEPTH_MAX or expression.start(code, value[2]) ~= value[1] then return nil end
  return value_of(code, value[1], value[2], one.at, depth + 1)
end

-- The value of what an expression begins with, and the token behind it.
local function head(code, first, last, at, depth)
  if code.kind[first] == "name" then return name_value(code, first, at, depth), first + 1 end
  if code.kind[first] == "string" then return { value = "" }, first + 1 end
  local close = code:partner(first)
  if not close or close > last or expression.start(code, close - 1) ~= first + 1 then return nil, last + 1 end
  return value_of(code, first + 1, close - 1, at, depth), close + 1
end

function value_of(code, first, last, at, depth)
  local thing, i = head(code, first, last, at, depth)
  while thing and i <= last do
    local word = code:word(i)
    if word == "." or word == ":" then
      thing = peek.field(thing, code:word(i + 1))
      i = i + 2
    elseif code.kind[i] == "string" then
      thing = peek.result(thing, expression.string(word))
      i = i + 1
    else
      local close = code:partner(i)
      if not close or close > last then return nil end
      local key = literal(code, i, close)
      if word == "[" then thing = key ~= nil and peek.field(thing, key) or nil else thing = peek.result(thing, key) end
      i = close + 1
    end
  end
  return thing
end

--- What the expression that ends with token `last` stands for at that place; nil when it is not known.
function expression.value(code, last)
  local first = expression.start(code, last)
  return first and value_of(code, first, last, last, 0)
end

--- The callee of the innermost call, f(..), f{..} or f"..", that is open behind token `last`: the last token of the
-- expression that is called, and the bracket; nil where there is none.
function expression.callee(code, last)
  local open = code:enclosing(last)
  while open do
    if code:word(open) ~= "[" and code:ends_operand(open - 1) and code.kind[open - 1] ~= "number"
      and code.kind[open - 1] ~= "keyword" then
      return open - 1, open
    end
    open = code:enclosing(open - 1)
  end
end

return expression
