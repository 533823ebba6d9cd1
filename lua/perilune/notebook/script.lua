-- A notebook's cells as one Lua script: markers `-- %%` as editors and Jupytext know them, text as comments, and code
-- so changed, where it must be, that the script runs as the notebook does.
--
-- A cell is a chunk of its own: its locals, labels and `return` end with it, and its last expression is its result. In
-- the script they are kept in by `do ... end` or a local function, and the result is printed. Front ends know lines
-- that are not Lua: %magic, %%magic, !command, ?name and name?. They become comments.
local core = require "perilune.core"
local magics = require "perilune.magic.commands".rows
local magic_lines = require "perilune.magic.lines"

local script = {}

-- ---- lines ----------------------------------------------------------------------------------------------------------

-- Lua ends a line at each of these, also within a comment.
local function lines_of(text)
  local lines, at = {}, 1
  while at <= #text do
    local first, last = text:find("\r\n?", at)
    local newline, newline_last = text:find("\n\r?", at)
    if not first or newline and newline < first then first, last = newline, newline_last end
    lines[#lines + 1] = text:sub(at, (first or #text + 1) - 1)
    at = (last or #text) + 1
  end
  return lines
end

local function commented_line(line) return line == "" and "--" or "-- " .. line end

local function commented(text)
  local lines = lines_of(text)
  for i, line in ipairs(lines) do lines[i] = commented_line(line) end
  return table.concat(lines, "\n")
end

-- ---- what is not Lua ------------------------------------------------------------------------------------------------

-- Cell magics that run the cell's code; to others the rest of the cell is text.
local runs_the_cell <const> = { time = true, timeit = true }

local function is_magic(line) return line:find "^%s*[%%!?]" or line:find "^%s*[%a_][%w_.:]*%?%??%s*$" end

-- Without the lines that the kernel takes for no Lua; and where that leaves no Lua, without those that look like them,
-- which other kernels know.
local function without_magics(code)
  local cell_magic = code:match "^%s*%%%%(%a*)"
  if cell_magic and not runs_the_cell[cell_magic] then return commented(code) end
  local pieces, at = {}, 1
  for _, line in ipairs(magic_lines(code, magics)) do
    pieces[#pieces + 1] = code:sub(at, line.first - 1) .. "-- "
    at = line.first
  end
  local without = table.concat(pieces) .. code:sub(at)
  if core.last_expression(without) ~= nil then return without end
  local lines = lines_of(code)
  for i, line in ipairs(lines) do
    if is_magic(line) then lines[i] = commented_line(line) end
  end
  return table.concat(lines, "\n")
end

-- ---- what ends with a cell ------------------------------------------------------------------------------------------

-- The last byte of the string or comment that begins at `at`; nil when none does.
local function end_of_text(code, at)
  local comment = code:find("^%-%-", at)
  local level = code:match("^%[(=*)%[", comment and at + 2 or at)
  if level then
    local _, last = code:find("]" .. level .. "]", at, true)
    return last or #code
  end
  if comment then return (code:find("[\r\n]", at) or #code + 1) - 1 end
  local quote = code:match("^[\"']", at)
  while quote do
    at = code:find("[\\" .. quote .. "]", at + 1) or #code
    if code:sub(at, at) == quote or at == #code then return at end
    at = at + 1
  end
end

-- Words, and other characters one by one, outside strings and comments.
local function tokens_of(code)
  local list, at = {}, 1
  while at <= #code do
    local last = end_of_text(code, at)
    if not last then
      last = select(2, code:find("^[%w_]+", at)) or at
      if not code:find("^%s", at) then list[#list + 1] = code:sub(at, last) end
    end
    at = last + 1
  end
  return list
end

local opens_block <const> = { ["do"] = true, ["if"] = true, ["repeat"] = true, ["function"] = true }
local closes_block <const> = { ["end"] = true, ["until"] = true }
local ends_return <const> = { ["end"] = true, ["until"] = true, ["else"] = true, ["elseif"] = true, [";"] = true }

-- What the cell would let out into a script: scoped, names or labels of its outermost block; returns, a `return`
-- outside functions; values, one that gives back something.
local function outline(code)
  local tokens, blocks, functions = tokens_of(code), {}, 0
  local found = { scoped = false, returns = false, values = false }
  for i, token in ipairs(tokens) do
    if closes_block[token] then
      if table.remove(blocks) == "function" then functions = functions - 1 end
    elseif opens_block[token] then
      if token == "function" then functions = functions + 1 end
      blocks[#blocks + 1] = token
    elseif token == "return" and functions == 0 then
      found.returns = true
      found.values = found.values or tokens[i + 1] ~= nil and not ends_return[tokens[i + 1]]
    elseif #blocks == 0 and (token == "local" or token == ":" and tokens[i + 1] == ":") then
      found.scoped = true
    end
  end
  return found
end

-- ---- results --------------------------------------------------------------------------------------------------------

-- The code with its last expression made a statement, which Lua wants it to be.
local function with_statement(code)
  local at, silent = core.last_expression(code)
  if not at or load(code) then return code end
  local before, expression = code:sub(1, at - 1), code:sub(at)
  if silent then return before .. "local _ = " .. expression end
  local printed = before .. "print(" .. expression .. ")"
  return load(printed) and printed or before .. "print(" .. expression .. "\n)" -- the last line ends in a comment
end

local function enclosed(code, tags)
  local found = outline(code)
  if tags["raises-exception"] then
    return "do local ok, message = pcall(function(...)\n" .. code
      .. "\nend) if not ok then io.stderr:write(tostring(message), '\\n') end end"
  elseif found.returns then
    local call = found.values and "print(cell())" or "cell()"
    return "do local function cell(...)\n" .. code .. "\nend " .. call .. " end"
  end
  return found.scoped and "do\n" .. code .. "\nend" or code
end

-- ---- cells ----------------------------------------------------------------------------------------------------------

-- The code for the script; with it, for a cell that is no Lua, why not.
local function code_text(source, tags)
  if tags["skip-execution"] then return commented(source) end
  local code = without_magics(source)
  local at, message = core.last_expression(code)
  if at == nil then return commented(source), (message:gsub("^cell:", "line ")) end
  return enclosed(with_statement(code), tags)
end

local function joined(source) return type(source) == "table" and table.concat(source) or source end

local function tags_of(cell)
  local tags = {}
  for _, tag in ipairs(cell.metadata and cell.metadata.tags or {}) do tags[tag] = true end
  return tags
end

--- The script of a notebook (nbformat 4, as a table), whose name its first line tells. Also returns the list of what is
-- to be said about cells that stay comments.
function script.of(notebook, name)
  local parts, remarks = { "-- The cells of " .. name:gsub("[\r\n]", " ") .. ", each behind its marker.\n" }, {}
  for i, cell in ipairs(notebook.cells) do
    local source = joined(cell.source)
    local marker, text = "-- %%"
    if cell.cell_type == "code" then
      local why_not
      text, why_not = code_text(source, tags_of(cell))
      if why_not then remarks[#remarks + 1] = ("cell %d is not Lua and stays a comment: %s"):format(i, why_not) end
    else
      marker, text = ("-- %%%% [%s]"):format(cell.cell_type), commented(source)
    end
    parts[#parts + 1] = marker .. "\n" .. (text == "" and "" or text:gsub("\n+$", "") .. "\n")
  end
  return table.concat(parts, "\n"), remarks
end

return script
