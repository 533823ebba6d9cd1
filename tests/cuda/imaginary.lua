-- `perilune` in processes of its own with made-up CUDA libraries (tests/fakes) in front of the loader's path, for specs
-- that need no GPU: begin and finish belong into setup and teardown.
local assert = require "luassert"
local program = require "bind.program"

local FAKES <const> = program.path:match "^'(.*)/[^/]*'$" .. "/tests/fakes/"

local imaginary = { ALL = { "driver", "nvrtc", "cublas" } }
local control, cache

function imaginary.begin()
  control, cache = os.tmpname(), os.tmpname()
  os.remove(cache) -- becomes a folder
end

function imaginary.finish()
  os.remove(control)
  os.execute("rm -rf " .. cache)
end

-- The folder in which compiled kernels are kept.
function imaginary.cache() return cache end

-- Runs the program with the libraries of these folders and the control file's words; `before` and `input` as for
-- program.run.
function imaginary.run(folders, words, args, before, input)
  program.write(control, words)
  local path = {}
  for i, folder in ipairs(folders) do path[i] = FAKES .. folder end
  path[#path + 1] = os.getenv "LD_LIBRARY_PATH"
  return program.run {
    before = ("env LD_LIBRARY_PATH=%s CUDA_HOME=/nowhere PERILUNE_TUNE=0 PERILUNE_FAKE=%s XDG_CACHE_HOME=%s %s"):format(
      program.quote(table.concat(path, ":")), control, cache, before or ""),
    args = args,
    input = input,
  }
end

-- What is in front of every script.
imaginary.PRELUDE = [[
local pl = require "perilune"
local function say(words) -- what the made-up libraries do from now on
  local file <close> = assert(io.open(os.getenv "PERILUNE_FAKE", "w"))
  file:write(words)
end
local function attempt(f, ...)
  local ok, message = pcall(f, ...)
  print(ok, ok and "" or message)
  return message
end
local function cpu() return pl.ones({ 2, 2 }):matmul(pl.ones { 2, 2 }):sum():item() end
]]

-- Runs a chunk that must end well; returns what it printed.
function imaginary.script(folders, words, code)
  local whole = imaginary.PRELUDE .. code .. "\nassert(cpu() == 8)"
  local out, errors, status = imaginary.run(folders, words, "-e " .. program.quote(whole))
  assert.equal("", errors)
  assert.equal(0, status)
  return out
end

return imaginary
