-- What another perilune does in a process of its own, with or without compiled kernels on disk: the program's start,
-- and the first call of something, cold and warm.
local core = require "perilune.core"

local process = {}

--- A word as the shell reads it, whatever it holds.
function process.quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end
local quoted <const> = process.quoted

--- The command that started this program, from the arguments before the script's name, as the shell reads it.
function process.program()
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return quoted(arg[first])
end

--- Runs `code`, whose last line prints one JSON value, in a perilune of its own whose compiled kernels are kept below
-- the folder `cache`; returns the value.
function process.run(code, cache)
  local pipe = assert(io.popen(("XDG_CACHE_HOME=%s %s -e %s"):format(quoted(cache), process.program(), quoted(code))))
  local text = pipe:read("a")
  assert(pipe:close())
  return core.json_decode(text)
end

--- f(cache) with a folder's name that does not exist; what is in the folder is removed afterwards, also after an error.
function process.with_cache(f)
  local cache = os.tmpname()
  os.remove(cache)
  local _ <close> = setmetatable({}, { __close = function() os.execute("rm -rf " .. quoted(cache)) end })
  return f(cache)
end

--- perilune.speed.first(setting) in processes of their own, without compiled kernels on disk and with them, the plan
-- being the model's: { cold_ms =, warm_ms =, kernels = (compiled in the cold one), compile_ms = (what that took of
-- cold_ms) }. setting.cell is a name.
function process.first(setting)
  local code = ([[
    local pl = require "perilune"
    pl.tuning(false)
    print(pl.json_encode(require("perilune.speed").first(pl.json_decode(%q))))]]):format(core.json_encode(setting))
  return process.with_cache(function(cache)
    local cold, warm = process.run(code, cache), process.run(code, cache)
    return { cold_ms = cold.ms, warm_ms = warm.ms, kernels = cold.kernels, compile_ms = cold.compile_ms }
  end)
end

return process
