-- Runs the program that is under test in a process of its own: program.run{ args = "...", input = "..." }.
local program = {}

local PATH = os.getenv "PERILUNE" or arg and arg[-1] or "perilune"

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end
program.quote = quote
program.path = quote(PATH)

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end
program.read = read

function program.write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

-- Returns standard output, standard error and the exit status (128 + n after signal n).
function program.run(options)
  local out, err, input = os.tmpname(), os.tmpname(), os.tmpname()
  program.write(input, options.input or "")
  local words = { options.before or "", program.path, options.args or "", "<" .. input, ">" .. out, "2>" .. err }
  local _, how, status = os.execute(table.concat(words, " "))
  local output, errors = read(out), read(err)
  for _, path in ipairs { out, err, input } do os.remove(path) end
  return output, errors, how == "signal" and 128 + status or status
end

-- Runs one chunk with -e.
function program.evaluate(code) return program.run { args = "-e " .. quote(code) } end

return program
