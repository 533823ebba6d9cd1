-- Sums, means and broadcasts between processes on the loopback address: their values, and that all have the same bits.
local message_of = require "tests.message_of"
local new_folder = require "tests.new_folder"
local pl = require "perilune"
local program = require "bind.program"
local ranks = require "distributed.ranks"

local folder
before_each(function() folder = new_folder() end)
after_each(function() os.execute("rm -r " .. folder) end)

describe("collective operations", function()
  for _, world in ipairs { 2, 4 } do
    it(("of %d ranks give the sum, mean, extremes and one rank's values, in every type and size"):format(world),
      function()
        local texts = ranks.run(folder, world, { code = [[
          d.init { timeout = 60 }
          assert(d.is_initialized())
          local rank, world, checks = d.rank(), d.world_size(), 0
          local function same(found, expected)
            assert(found.shape[1] == expected.shape[1] and found.dtype == expected.dtype)
            if found:numel() > 0 then assert(pl.ne(found, expected):to("float64"):sum():item() == 0) end
            checks = checks + 1
          end
          for _, dtype in ipairs { "float64", "float32", "bfloat16", "float16", "int64", "int32", "uint8" } do
            for _, n in ipairs { 0, 1, 7, 1001 } do
              local base = n == 0 and pl.zeros { 0 } or pl.arange(0, n - 1) % 5
              local function own(offset) return (base + offset):to(dtype) end
              same(d.all_reduce(own(rank)), (base * world + world * (world - 1) / 2):to(dtype))
              same(d.all_reduce(own(rank), "max"), own(world - 1))
              same(d.all_reduce(own(rank), "min"), own(0))
              if dtype:match "float" then same(d.all_reduce(own(2 * rank), "mean"), own(world - 1)) end
              for source = 0, world - 1 do same(d.broadcast(own(rank), source), own(source)) end
            end
          end
          local matrix = pl.full({ 3, 4 }, rank)
          d.all_reduce(matrix:transpose(1, 2):narrow(1, 2, 2)) -- a view that is not contiguous, in place
          local sum = world * (world - 1) / 2
          same(matrix:reshape { 12 }, pl.tensor { rank, sum, sum, rank, rank, sum, sum, rank, rank, sum, sum, rank })
          local flags = d.broadcast(pl.eq(pl.full({ 2 }, rank), 0), 0)
          same(flags, pl.eq(pl.zeros { 2 }, 0))
          d.barrier()
          print(checks)]] })
        for rank = 0, world - 1 do assert.equal(tostring(7 * 4 * (3 + world) + 4 * 4 + 2) .. "\n", texts[rank]) end
      end)
  end

  it("add 10 MB up in the order of the ranks, the same bits on all of them", function()
    ranks.run(folder, 4, { code = [[
      d.init { timeout = 60 }
      pl.seed(d.rank())
      local t = d.all_reduce(pl.randn { 2621440 })
      pl.save(("%s/%d.safetensors"):format(folder, d.rank()), { t = t })]] })
    local sum
    for rank = 0, 3 do
      pl.seed(rank)
      local own = pl.randn { 2621440 }
      sum = sum and sum + own or own
    end
    pl.save(folder .. "/sum.safetensors", { t = sum })
    local expected = program.read(folder .. "/sum.safetensors")
    for rank = 0, 3 do assert.is_true(program.read(("%s/%d.safetensors"):format(folder, rank)) == expected) end
  end)

  it("work in a world of one, and refuse what they cannot do", function()
    local d = pl.distributed
    assert.matches("call pl.distributed.init first", message_of(d.rank))
    d.init()
    assert.same({ 0, 1, 0, true }, { d.rank(), d.world_size(), d.local_rank(), d.is_initialized() })
    local t = pl.tensor { 1, 2 }
    assert.equal(t, d.all_reduce(t, "mean"))
    assert.equal(t, d.broadcast(t))
    d.barrier()
    assert.same({ 1, 2 }, t:totable())
    assert.matches("this process is in a job already", message_of(d.init))
    assert.matches("op: expected one of sum, mean, max, min, got 'product'", message_of(d.all_reduce, t, "product"))
    assert.matches("tensor: expected a tensor, got 3", message_of(d.all_reduce, 3))
    assert.matches("src: expected 0..0, got 1", message_of(d.broadcast, t, 1))
    d.destroy()
    assert.is_false(d.is_initialized())
    assert.matches("backend: expected one of socket, nccl, got 'gloo'", message_of(d.init, { backend = "gloo" }))
    assert.matches("timeout: expected a number of at least 0.001, got 0", message_of(d.init, { timeout = 0 }))
    assert.is_false(d.is_initialized())
  end)

  it("can be left and joined again, and refuse a mean of integers and sums of bool", function()
    local texts = ranks.run(folder, 2, { code = [[
      for _ = 1, 20 do
        d.init { backend = "socket", timeout = 60 }
        print(d.all_reduce(pl.tensor { 1 + d.rank() }):item())
        print((select(2, pcall(d.all_reduce, pl.zeros { 2, dtype = "int64" }, "mean"))))
        print((select(2, pcall(d.all_reduce, pl.eq(pl.zeros { 2 }, 0)))))
        d.barrier()
        d.destroy()
      end]], environment = function(rank, world, port) -- as Open MPI's mpirun sets it
        return { "OMPI_COMM_WORLD_RANK=" .. rank, "OMPI_COMM_WORLD_SIZE=" .. world, "OMPI_COMM_WORLD_LOCAL_RANK="
          .. rank, "OMPI_COMM_WORLD_LOCAL_SIZE=" .. world, "MASTER_PORT=" .. port }
      end })
    for rank = 0, 1 do
      local _, count = texts[rank]:gsub("3.0\n[^\n]*a mean is of floating%-point tensors, got int64[^\n]*\n"
        .. "[^\n]*expected numbers, got bool[^\n]*\n", "")
      assert.equal(20, count, texts[rank])
    end
  end)
end)
