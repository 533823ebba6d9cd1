-- Lines of cells and of the prompt that are no Lua, as IPython has them: help (`?name`, `name?`, `name??`), magics
-- (`%time f()`) and commands of the shell (`!ls`). Each becomes a Lua call in its own place before the cell is
-- compiled, so that it sees the cell's local variables and errors keep their lines.
local commands = require "perilune.magic.commands"
local core = require "perilune.core"
local find_lines = require "perilune.magic.lines"

-- Cells may give other values to these names.
local ipairs, load, select, tokens = ipairs, load, select, core.tokens
local sub, gsub, match, format, concat = string.sub, string.gsub, string.match, string.format, table.concat

local magic = {}

-- The global function that the calls are of: a name that nobody chooses, and that %reset keeps.
local NAME <const> = "__magic"
_G[NAME] = function(name, ...) return commands.rows[name].run(...) end

local function quoted(text) return format("%q", text) end

-- A call of a command with the arguments as Lua text.
local function call(name, ...) return format("%s(%s)", NAME, concat({ quoted(name), ... }, ", ")) end

-- Code without the comment behind it and without the ';' that hides its result, and whether it had one.
local function trimmed(code)
  local _, first, last = tokens(code)
  local count, silent = #last, false
  while count > 0 and sub(code, first[count], last[count]) == ";" do count, silent = count - 1, true end
  return sub(code, 1, last[count] or 0), silent
end

-- Whether the code is an expression; false for statements. nil and the compiler's words when it is neither.
local function is_expression(code)
  local f, as_expression = load("return " .. code, "=code", "t")
  if f then return true end
  local g, as_statement = load(code, "=code", "t")
  if g then return false end
  return nil, match(match(as_expression, "<eof>$") and as_expression or as_statement, "^code:%d+: (.*)")
end

-- How the Lua call of a command is written, by what stands behind the command's name; or nil and what is wrong.
local write = {}

function write.nothing(name, text)
  if text ~= "" then return nil, format("nothing is expected behind it, got '%s'", text) end
  return call(name)
end

function write.text(name, text) return call(name, quoted(text)) end

-- A variable that is closed when the cell ends.
function write.cell(name, text)
  if text ~= "" then return nil, format("nothing is expected behind it, got '%s'; its code is the whole cell", text) end
  return "local cell__ <close> = " .. call(name)
end

-- A piece of code as a function.
function write.code(name, text)
  local code, silent = trimmed(text)
  if code == "" then return nil, format("code is expected behind it, as in %%%s f(x)", name) end
  local expression, problem = is_expression(code)
  if expression == nil then return nil, problem end
  return call(name, format("function() %s%s end", expression and "return " or "", code)), silent
end

-- A piece of code as a function that runs it as often as it is told and then returns its second argument, which shows
-- that the code itself did not return. Options such as `-n 10` may stand before the code.
function write.loop(name, text)
  local options, rest = "", text
  while true do
    local option, behind = match(rest, "^(%-[nr]%s*%d+)%f[%s\0]%s*(.*)")
    if not option then break end
    options, rest = options .. option .. " ", behind
  end
  local code, silent = trimmed(rest)
  if code == "" then return nil, format("code is expected behind it, as in %%%s f(x)", name) end
  local expression, problem = is_expression(code)
  if expression == nil then return nil, problem end
  local body = expression and "local result__ = " .. code or "do " .. code .. " end"
  local loop = format("function(count__, done__) for count__ = 1, count__ do %s end return done__ end", body)
  return call(name, quoted(options), loop), silent
end

-- A name, with a function that gives its value.
function write.name(name, text)
  local argument = match(text, "^%%%%?[%a_][%w_]*$") or match(text, "^[%a_][%w_.:]*$")
  if text == "" or match(text, "^%%") and argument then return call(name, quoted(text)) end
  local value = argument and gsub(text, ":", ".")
  if not value or not is_expression(value) then
    return nil, format("a name is expected, such as pl.tensor or %%time, got '%s'", text)
  end
  return call(name, quoted(text), format("function() return %s end", value))
end

-- The command of a line and what stands behind its name, or nil and what is wrong.
local function command_of(text)
  local shell = match(text, "^!%s*(.*)")
  if shell then return "!", shell end
  local name, behind = match(text, "^%%(%%?[%a_][%w_]*)%s*(.*)")
  local help = match(text, "^%?+") or match(text, "%?+$")
  if help and not (name and behind ~= "?" and behind ~= "??") then
    return help == "??" and "??" or "?", match(text, "^%?*%s*(.-)%s*%?*$")
  end
  if name and commands.rows[name] then return name, behind end
  return nil, commands.unknown(match(text, "^%S+"))
end

-- The Lua call for a line and whether its result is hidden, or nil and what is wrong.
local function translate(line)
  local name, behind = command_of(line.text)
  if not name then return nil, behind end
  if commands.rows[name].takes == "cell" and not line.opens then
    return nil, format("%%%s: it is the first line of a cell, or none", name)
  end
  local code, more = write[commands.rows[name].takes](name, behind)
  if not code then return nil, format("%s: %s", commands.rows[name].usage and "%" .. name or name, more) end
  return code, more
end

local function line_at(code, place) return select(2, gsub(sub(code, 1, place - 1), "\n", "")) + 1 end

--- A cell as Lua code of as many lines. nil and a message when a line that is no Lua is none of those known either;
-- `chunk` is how messages call the cell.
function magic.rewrite(code, chunk)
  local pieces, at = {}, 1
  for _, line in ipairs(find_lines(code, commands.rows)) do
    local lua, hidden = translate(line)
    if not lua then return nil, format("%s:%d: %s", chunk, line_at(code, line.first), hidden) end
    pieces[#pieces + 1] = sub(code, at, line.first - 1)
    -- The next line may begin with a bracket, and is not to be taken for arguments.
    pieces[#pieces + 1] = lua .. ((hidden or line.followed) and ";" or "")
    at = line.last + 1
  end
  if at == 1 then return code end
  pieces[#pieces + 1] = sub(code, at)
  return concat(pieces)
end

commands.remember_globals()

return magic
