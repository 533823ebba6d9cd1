-- A piece of code as tokens, and the local names in it: which are visible where, and what they were given. Reads code
-- that is unfinished, as it is while somebody types.
local core = require "perilune.core"

-- Cells may give other values to these names.
local ipairs, setmetatable, sub, huge = ipairs, setmetatable, string.sub, math.huge
local insert, remove = table.insert, table.remove

local text = {}

local Text = {}
Text.__index = Text

--- The tokens of `source`: lists kind ("name", "keyword", "number", "string", "symbol"), first and last (places of
-- their bytes); count; open ("string" or "comment" when the source ends inside one).
function text.read(source)
  local kind, first, last, open = core.tokens(source)
  return setmetatable({ source = source, kind = kind, first = first, last = last, open = open, count = #kind }, Text)
end

--- The i-th token as it is written; "" where there is none.
function Text:word(i)
  return self.first[i] and sub(self.source, self.first[i], self.last[i]) or ""
end

local ending <const> = { [")"] = true, ["]"] = true, ["}"] = true, ["..."] = true, ["end"] = true, ["nil"] = true,
  ["true"] = true, ["false"] = true }

--- Whether an operand can end with token i, so that what follows is an operator, an argument or another statement.
function Text:ends_operand(i)
  local kind = self.kind[i]
  return kind == "name" or kind == "number" or kind == "string" or ending[self:word(i)] == true
end

local opener <const> = { [")"] = "(", ["]"] = "[", ["}"] = "{" }
local closer <const> = { ["("] = ")", ["["] = "]", ["{"] = "}" }

-- For each token that is a bracket the one that closes or opens it, where there is one.
local function partners_of(code)
  local partner, open = {}, {}
  for i = 1, code.count do
    local word = code.kind[i] == "symbol" and code:word(i)
    if closer[word] then
      open[#open + 1] = i
    elseif opener[word] and #open > 0 and code:word(open[#open]) == opener[word] then
      partner[i] = remove(open)
      partner[partner[i]] = i
    end
  end
  return partner
end

--- The bracket that token i, a bracket, closes or opens; nil where there is none.
function Text:partner(i)
  self.partners = self.partners or partners_of(self)
  return self.partners[i]
end

--- The innermost bracket that is open behind token i; nil where there is none.
function Text:enclosing(i)
  while i >= 1 do
    local word = self.kind[i] == "symbol" and self:word(i)
    if closer[word] then return i end
    i = (opener[word] and self:partner(i) or i) - 1
  end
end

--- The names that stand before a "=" in the table whose "{" is token `open`, up to token `last`: a list of tokens.
function Text:keys(open, last)
  local list, i = {}, open + 1
  while i <= last do
    if self.kind[i] == "name" and self:word(i + 1) == "=" then list[#list + 1] = i end
    i = (closer[self.kind[i] == "symbol" and self:word(i)] and self:partner(i) or i) + 1
  end
  return list
end

-- Local names --------------------------------------------------------------------------------------------------------

local statements <const> = {}
for word in ("local for while if repeat return do end until else elseif goto break ; ::"):gmatch "%S+" do
  statements[word] = true
end

-- A walk over the tokens. `found` lists the declarations, `named_so` those of each name, `blocks` those of the blocks
-- that are open; `brackets` counts the open ones. `awaited` is a local statement whose names are not visible yet,
-- `loops` the names of for statements before their do, `named` the declaration of a local function before its
-- parameters; `assigned` is the set of the globals that are given a value.
local Walk = {}
Walk.__index = Walk

function Walk:declare(name, kind, at, from, value)
  local one = { name = name, kind = kind, at = at, from = from, to = huge, value = value }
  self.found[#self.found + 1] = one
  self.named_so[name] = self.named_so[name] or {}
  insert(self.named_so[name], one)
  insert(self.blocks[#self.blocks], one)
  return one
end

function Walk:enter() insert(self.blocks, {}) end

function Walk:leave(i)
  if #self.blocks == 1 then return end
  for _, one in ipairs(remove(self.blocks)) do one.to = i end
end

-- Names from token i on, with commas and attributes between them; returns their tokens and the one behind.
function Walk:names(i)
  local code, list = self.code, {}
  while code.kind[i] == "name" do
    list[#list + 1] = i
    i = i + 1
    if code:word(i) == "<" then i = i + 3 end
    if code:word(i) ~= "," then break end
    i = i + 1
  end
  return list, i
end

-- What begins at a keyword; each returns the token to go on with.
local begins = {}

begins["local"] = function(self, i)
  if self.code:word(i + 1) == "function" then
    self.named = self:declare(self.code:word(i + 2), "function", i + 2, i + 2)
    return i + 1
  end
  local names, behind = self:names(i + 1)
  if self.code:word(behind) ~= "=" then
    for _, name in ipairs(names) do self:declare(self.code:word(name), "local", name, behind) end
    return behind
  end
  self.awaited = { names = names, values = { { behind + 1 } }, blocks = #self.blocks, brackets = self.brackets }
  return behind + 1
end

begins["function"] = function(self, i)
  local code, named, method = self.code, self.named, false
  self.named = nil
  local at = i + 1
  while code.kind[at] == "name" or code:word(at) == "." or code:word(at) == ":" do
    method = method or code:word(at) == ":"
    at = at + 1
  end
  self:enter()
  if method then self:declare("self", "parameter", at, at) end
  if code:word(at) ~= "(" then return at end
  local names, behind = self:names(at + 1)
  for _, name in ipairs(names) do self:declare(code:word(name), "parameter", name, name + 1) end
  if code:word(behind) == "..." then behind = behind + 1 end
  if named then named.parameters = { at, behind } end
  return code:word(behind) == ")" and behind + 1 or behind
end

begins["for"] = function(self, i)
  local names, behind = self:names(i + 1)
  insert(self.loops, { names = names, blocks = #self.blocks })
  return behind
end

begins["do"] = function(self, i)
  local loop = self.loops[#self.loops]
  self:enter()
  if loop and loop.blocks == #self.blocks - 1 then
    for _, name in ipairs(remove(self.loops).names) do self:declare(self.code:word(name), "loop", name, i) end
  end
  return i + 1
end

begins["then"] = function(self, i) self:enter() return i + 1 end
begins["repeat"] = begins["then"]
begins["end"] = function(self, i) self:leave(i) return i + 1 end
begins["elseif"] = begins["end"]
begins["else"] = function(self, i)
  self:leave(i)
  self:enter()
  return i + 1
end
begins["until"] = function(self, i) -- the condition still sees the block's locals
  self.blocks[#self.blocks].ends = i
  return i + 1
end

function Walk:starts_statement(i)
  local word, after_operand = self.code:word(i), self.code:ends_operand(i - 1)
  if word == "function" or self.code.kind[i] == "name" then return after_operand end
  return statements[word] == true
end

-- What ends before token i: the condition of a repeat, and a local statement, whose names are visible from here on.
function Walk:finish(i)
  local block, awaited = self.blocks[#self.blocks], self.awaited
  if block.ends and i > block.ends + 1 and self:starts_statement(i) then self:leave(i) end
  if not awaited or #self.blocks ~= awaited.blocks or self.brackets ~= awaited.brackets then return end
  local values = awaited.values
  if self.code:word(i) == "," then
    values[#values][2] = i - 1
    values[#values + 1] = { i + 1 }
  elseif i > values[#values][1] and (i > self.code.count or self:starts_statement(i)) then
    values[#values][2] = i - 1
    for k, name in ipairs(awaited.names) do self:declare(self.code:word(name), "local", name, i, values[k]) end
    self.awaited = nil
  end
end

-- A global name that the code gives a value.
function Walk:note_global(i)
  local code, before, after = self.code, self.code:word(i - 1), self.code:word(i + 1)
  local field = before == "." or before == ":"
  if not field and self.brackets == 0 and after == "=" then self.assigned[code:word(i)] = true end
end

--- The declarations in the code, in their order: { name, kind ("local", "parameter", "loop" or "function"), at = its
-- token, from and to = the tokens between which it is visible, value = { first, last } tokens of what it was given,
-- parameters = { first, last } of a function }; and the set of the names that are assigned without being declared.
function Text:locals()
  if self.walked then return self.walked.found, self.walked.assigned end
  local walk = setmetatable({
    code = self, found = {}, named_so = {}, blocks = { {} }, brackets = 0, loops = {}, assigned = {},
  }, Walk)
  self.walked = walk
  local i = 1
  while i <= self.count do
    walk:finish(i)
    local kind, word = self.kind[i], self:word(i)
    if kind == "keyword" and begins[word] then
      if word == "function" and self.kind[i + 1] == "name" and self:word(i + 2) == "(" and not walk.named then
        walk.assigned[self:word(i + 1)] = true
      end
      i = begins[word](walk, i)
    else
      if kind == "name" then walk:note_global(i) end
      if closer[word] and kind == "symbol" then walk.brackets = walk.brackets + 1 end
      if opener[word] and kind == "symbol" then walk.brackets = walk.brackets - 1 end
      i = i + 1
    end
  end
  if self:ends_operand(self.count) then walk:finish(self.count + 1) end
  return walk.found, walk.assigned
end

--- The declaration that `name` means at token i; nil when it is a global.
function Text:visible(name, i)
  self:locals()
  local found = self.walked.named_so[name] or {}
  for k = #found, 1, -1 do
    local one = found[k]
    if one.from <= i and i < one.to then return one end
  end
end

return text
