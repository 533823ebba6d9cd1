-- `perilune notebook export`: a notebook as a Lua script.

local core = require "perilune.core"
local options = require "perilune.options"
local script = require "perilune.notebook.script"

local declaration <const> = {
  usage = "perilune notebook export FILE.ipynb [FILE.lua]",
  about = "Writes the cells of a notebook as a Lua script: FILE.lua, or the notebook's name with .lua, or standard\n"
    .. "output for -. Each cell follows its marker, -- %%. Text becomes comments, as do lines that only front ends\n"
    .. "know (%magic, !command, ?name) and cells with the tag skip-execution. Results are printed; what cells with\n"
    .. "the tag raises-exception raise goes to standard error.",
  words = "files",
}

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return assert(file:read "a")
end

-- What keeps the value from being a notebook in Lua; nil when nothing does.
local function complaint(notebook)
  if type(notebook) ~= "table" or notebook.nbformat == nil then return "is no notebook: it has no nbformat" end
  if notebook.nbformat ~= 4 then return ("has nbformat %s; 4 is expected"):format(notebook.nbformat) end
  if type(notebook.cells) ~= "table" then return "has no array of cells" end
  for i, cell in ipairs(notebook.cells) do
    local source = type(cell) == "table" and cell.source
    if type(source) ~= "string" and type(source) ~= "table" then return ("has no source text in cell %d"):format(i) end
    if type(cell.cell_type) ~= "string" then return ("has no cell_type in cell %d"):format(i) end
  end
  local metadata = notebook.metadata or {}
  local language = metadata.kernelspec and metadata.kernelspec.language
    or metadata.language_info and metadata.language_info.name
  if language and language ~= "lua" then return ("is written in %s, not in lua"):format(language) end
end

local function load_notebook(path)
  local readable, text = pcall(read, path)
  if not readable then options.fail("perilune: cannot read the notebook: %s", text) end
  local whole, notebook = pcall(core.json_decode, text)
  if not whole then options.fail("perilune: '%s' is not a whole notebook: %s", path, notebook) end
  local why_not = complaint(notebook)
  if why_not then options.fail("perilune: '%s' %s", path, why_not) end
  return notebook
end

--- Runs the command with a list of arguments (default: the global `arg`).
return function(arguments)
  local files = options.read(declaration, arguments).files or {}
  if #files == 0 then options.fail("perilune: the name of a notebook is missing\nusage: %s", declaration.usage) end
  if #files > 2 then options.fail("perilune: unexpected '%s'\nusage: %s", files[3], declaration.usage) end
  local path, target = files[1], files[2] or files[1]:gsub("%.ipynb$", "") .. ".lua"
  local text, remarks = script.of(load_notebook(path), path:match "[^/]*$")
  for _, remark in ipairs(remarks) do io.stderr:write(("'%s': %s\n"):format(path, remark)) end
  if target == "-" then
    io.stdout:write(text)
  else
    local written, why_not = pcall(core.write_file, target, text)
    if not written then options.fail("perilune: %s", why_not) end
  end
end
