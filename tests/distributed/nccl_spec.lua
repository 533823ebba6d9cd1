-- Tensors on GPUs between processes, with a made-up driver and NCCL (tests/fakes): what NCCL is asked, and what users
-- see where it is missing or fails. tests/cuda/distributed_spec.lua has the real ones.
local new_folder = require "tests.new_folder"
local program = require "bind.program"
local ranks = require "distributed.ranks"

local FAKES <const> = program.path:match "^'(.*)/[^/]*'$" .. "/tests/fakes/"

local folder
before_each(function() folder = new_folder() end)
after_each(function() os.execute("rm -r " .. folder) end)

-- Two ranks with the made-up libraries of these folders, and the control file's words.
local function run(folders, words, code)
  program.write(folder .. "/control", words)
  local path = {}
  for i, name in ipairs(folders) do path[i] = FAKES .. name end
  path[#path + 1] = os.getenv "LD_LIBRARY_PATH"
  return ranks.start(folder, 2, { code = code, environment = function(rank, world, port)
    return { "RANK=" .. rank, "WORLD_SIZE=" .. world, "LOCAL_RANK=0", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" .. port,
      "LD_LIBRARY_PATH=" .. table.concat(path, ":"), "CUDA_HOME=/nowhere", "PERILUNE_FAKE=" .. folder .. "/control",
      "XDG_CACHE_HOME=" .. folder }
  end })()
end

local function ended(results, status, pattern)
  for rank = 0, 1 do
    assert.same({ "exit", status }, { results[rank].how, results[rank].status }, results[rank].text)
    assert.matches(pattern, results[rank].text)
  end
end

local operations <const> = [[
  d.init { timeout = 30 }
  local t = pl.tensor { 1, 2, 3 }:to("cuda")
  print(table.concat(d.all_reduce(t):to("cpu"):totable(), " "))
  print(table.concat(d.all_reduce(t, "mean"):to("cpu"):totable(), " "))
  print(table.concat(d.broadcast(t, 1):to("cpu"):totable(), " "))
  d.barrier()]]

describe("NCCL", function()
  it("is asked for sums, means and broadcasts, and left in order", function()
    ended(run({ "driver", "nvrtc", "nccl" }, "", operations), 0, "^2.0 4.0 6.0\n2.0 4.0 6.0\n2.0 4.0 6.0\ndestroyed\n$")
  end)

  it("may be asked for what the others have done already, and are gone", function()
    ended(run({ "driver", "nvrtc", "nccl" }, "", [[
      d.init { timeout = 30 }
      local t = pl.tensor { 1, 2 }:to("cuda")
      d.all_reduce(t)
      if d.rank() == 0 then pl.sleep(0.5) end
      print(table.concat(d.all_reduce(t):to("cpu"):totable(), " "))]]), 0, "4.0 8.0\n")
  end)

  it("is not recorded, be it the first that it is asked or not", function()
    ended(run({ "driver", "nvrtc", "nccl" }, "", [[
      d.init { timeout = 30 }
      local t = pl.tensor { 1, 2 }:to("cuda")
      for _ = 1, 2 do
        print((select(2, pcall(pl.cuda_graph, "cuda", function() d.all_reduce(t) end))))
        print(table.concat(d.all_reduce(t):to("cpu"):totable(), " "))
      end]]), 0, "cuda_graph: what ranks do together cannot be recorded.*2.0 4.0\n"
      .. ".*cuda_graph: what ranks do together cannot be recorded.*4.0 8.0\n")
  end)

  it("that is missing is named, with what to do", function()
    local pattern = "distributed: NCCL, which tensors on GPUs need between processes, cannot be loaded: install "
      .. "NVIDIA's package libnccl2"
    ended(run({ "driver", "nvrtc", "no_nccl" }, "", operations), 1, pattern)
    ended(run({ "driver", "nvrtc", "no_nccl" }, "", [[
      print((select(2, pcall(d.init, { backend = "nccl", timeout = 30 }))))
      print(d.is_initialized())]]), 0, pattern .. ".*false\n$")
  end)

  it("that fails is an error in its words, and given up", function()
    ended(run({ "driver", "nvrtc", "nccl" }, "ncclCommInitRank 6\n", operations), 1,
      "NCCL: remote error %(no words%)")
    for _, what in ipairs { "ncclAllReduce", "ncclGroupEnd", "background" } do
      ended(run({ "driver", "nvrtc", "nccl" }, what .. " 6\n", operations), 1, "NCCL: remote error %(the last words%)")
    end
    local results = run({ "driver", "nvrtc", "nccl" }, "", operations .. "\nif d.rank() == 1 then error 'no luck' end\n"
      .. "d.barrier()")
    ended(results, 1, "no luck")
    for rank = 0, 1 do assert.matches("\ngiven up\n", results[rank].text) end
  end)
end)
