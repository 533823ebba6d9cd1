-- Runs a chunk of Lua in several processes of the program under test that are one job on the loopback address.
local core = require "perilune.core"
local free_ports = require "tests.free_ports"
local program = require "bind.program"

local ranks = {}

local PATH <const> = os.getenv "PERILUNE" and core.working_directory() .. "/" or ""
local binary <const> = (os.getenv "PERILUNE" or core.program()):gsub("^[^/]", PATH .. "%0")

ranks.prelude = 'local pl = require "perilune"\nlocal d = pl.distributed\nlocal folder = ...\n'

--- Starts the processes of a job in a folder that exists. Options:
--   code         what each runs behind ranks.prelude
--   only         list of the ranks that are started, by default all of 0 .. world - 1
--   environment  function(rank, world, port) -> list of "NAME=value"; by default torchrun's variables
-- Returns wait, and the process numbers by rank; wait() gives { how =, status =, text =, s = } by rank, s being seconds
-- from the start to the end.
function ranks.start(folder, world, options)
  local port, began_s = free_ports(1)[1], core.time()
  program.write(folder .. "/rank.lua", ranks.prelude .. options.code)
  local children, numbers, results = core.children(world), {}, {}
  local rank_of = {}
  local only = options.only or {}
  for rank = 0, options.only and -1 or world - 1 do only[rank + 1] = rank end
  for _, rank in ipairs(only) do
    local words = { "/usr/bin/env", "-u", "RANK", "-u", "WORLD_SIZE", "-u", "LOCAL_RANK", "-u", "SLURM_STEP_ID",
      "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1" }
    local environment = options.environment and options.environment(rank, world, port) or {
      "RANK=" .. rank, "WORLD_SIZE=" .. world, "LOCAL_RANK=" .. rank, "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" .. port,
    }
    for _, word in ipairs(environment) do words[#words + 1] = word end
    for _, word in ipairs { binary, folder .. "/rank.lua", folder } do words[#words + 1] = word end
    os.remove(folder .. "/out" .. rank)
    numbers[rank] = children:start(words, core.working_directory(), folder .. "/out" .. rank)
    rank_of[numbers[rank]] = rank
  end
  local function wait()
    local _ <close> = children
    while next(rank_of) do
      local number, how, status = children:ended()
      if number then
        local rank = rank_of[number]
        rank_of[number] = nil
        results[rank] = { how = how, status = status, text = program.read(folder .. "/out" .. rank),
          s = core.time() - began_s }
      else
        assert(core.time() - began_s < 120, "a rank does not end")
        core.sleep(0.01)
      end
    end
    return results
  end
  return wait, numbers
end

--- As start, but waits and fails unless all end well; returns their texts by rank.
function ranks.run(folder, world, options)
  local results, texts = ranks.start(folder, world, options)(), {}
  for rank, result in pairs(results) do
    assert(result.how == "exit" and result.status == 0, ("rank %d: %s"):format(rank, result.text))
    texts[rank] = result.text
  end
  return texts
end

return ranks
