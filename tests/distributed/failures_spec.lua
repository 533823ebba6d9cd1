-- What happens to a job when one of its ranks fails, dies, hangs, leaves or never comes: the others end within seconds,
-- with a status other than 0 and an error that names it.
local core = require "perilune.core"
local new_folder = require "tests.new_folder"
local ranks = require "distributed.ranks"

local folder
before_each(function() folder = new_folder() end)
after_each(function() os.execute("rm -r " .. folder) end)

-- Sums on and on; rank 1 does `act` after a while.
local function code(act, timeout)
  return ([[
    d.init { timeout = %g }
    for i = 1, math.huge do
      d.all_reduce(pl.full({ 10000 }, i))
      if i == 20 and d.rank() == 1 then %s end
    end]]):format(timeout or 60, act)
end

-- Waits until every rank has written its file started.RANK.
local function wait_for(world)
  for rank = 0, world - 1 do
    while not os.rename(folder .. "/started." .. rank, folder .. "/started." .. rank) do core.sleep(0.02) end
  end
end

-- All ranks but those of `others` ended with status 1 and this message.
local function check(results, message, others)
  for rank, result in pairs(results) do
    if not (others or {})[rank] then
      assert.same({ "exit", 1 }, { result.how, result.status }, result.text)
      assert.matches(message, result.text)
    end
  end
end

describe("a rank", function()
  it("that is killed ends the others, which compute, wait or loop, with an error that names it", function()
    local wait, numbers = ranks.start(folder, 4, { code = [[
      d.init { timeout = 60 }
      d.barrier()
      io.open(folder .. "/started." .. d.rank(), "w"):close()
      if d.rank() == 3 then while true do end end
      local a = pl.rand { 300, 300 }
      if d.rank() == 0 then while true do a:matmul(a) end end
      d.barrier()]] })
    wait_for(4)
    core.sleep(0.1)
    local killed_s = core.time()
    os.execute("kill -9 " .. numbers[2])
    local results = wait()
    assert.is_true(core.time() - killed_s < 5)
    assert.same({ "signal", 9 }, { results[2].how, results[2].status })
    check(results, ("rank 2 %%(host %%S+, process %d%%) ended without a word"):format(numbers[2]), { [2] = true })
  end)

  it("0 that is killed ends the others, too", function()
    local wait, numbers = ranks.start(folder, 3, { code = [[
      d.init { timeout = 60 }
      d.barrier()
      io.open(folder .. "/started." .. d.rank(), "w"):close()
      if d.rank() == 0 then while true do end end
      d.barrier()]] })
    wait_for(3)
    os.execute("kill -9 " .. numbers[0])
    check(wait(), ("rank 0 %%(host %%S+, process %d%%) ended without a word"):format(numbers[0]), { [0] = true })
  end)

  it("that hears nothing while others fail is ended, with the name of the one that failed", function()
    local results = ranks.start(folder, 2, { code = [[
      d.init { timeout = 60 }
      d.barrier()
      if d.rank() == 1 then error "no such luck" end
      os.execute "exec sleep 20"]] })()
    check(results, "rank 1 %(host %S+, process %d+%) failed: %S+: no such luck", { [1] = true })
    assert.is_true(results[0].s < 15)
  end)

  it("that raises an error tells the others its message", function()
    local results = ranks.start(folder, 3, { code = code "error 'no such luck'" })()
    check(results, "rank 1 %(host %S+, process %d+%) failed: %S+: no such luck\n", { [1] = true })
    check(results, "no such luck\nstack traceback", { [0] = true, [2] = true })
  end)

  it("that hangs is named when the others have waited for the timeout", function()
    local results = ranks.start(folder, 3, { code = code("while true do end", 1.5) })()
    check(results, "rank 1 %(host %S+, process %d+%) did not come to collective operation 21, where rank %d is, "
      .. "within 1.5 s\n")
  end)

  it("that ends while others go on is named, and no failure where they do not need it", function()
    check(ranks.start(folder, 2, { code = code "os.exit(0)" })(), "rank 1 %(host %S+, process %d+%) has left",
      { [1] = true })
    ranks.run(folder, 3, { code = [[
      d.init { timeout = 60 }
      d.barrier()
      if d.rank() == 1 then os.exit(0) end
      pl.sleep(1)]] })
  end)

  it("that does something else is told", function()
    local results = ranks.start(folder, 2, { code = code "d.broadcast(pl.zeros { 3 })" })()
    check(results, "ranks do not do the same: rank 1 %(host %S+, process %d+%) is at broadcast from rank 0 of 3 "
      .. "float32, rank 0 at all_reduce %(sum%) of 10000 float32")
  end)

  it("whose operation failed in its middle takes no later one for it", function()
    local results = ranks.start(folder, 2, { code = [[
      d.init { timeout = 20 }
      if d.rank() == 1 then d.all_reduce(pl.ones { 2 }) end
      print((select(2, pcall(d.all_reduce, pl.ones { 3 }))))
      d.broadcast(pl.ones { 2 }, 0)]] })()
    check(results, "distributed: an earlier operation of ranks failed here in its middle; leave the job with "
      .. "pl.distributed.destroy")
    assert.matches("ranks do not do the same.*an earlier operation", results[0].text)
  end)

  it("that never comes is named after the timeout", function()
    local results = ranks.start(folder, 4, { code = "d.init { timeout = 1 }", only = { 0, 2 } })()
    check(results, "ranks 1, 3 of 4 did not come to 127.0.0.1, port %d+, within 1 s")
    assert.is_true(results[2].s < 10)
    results = ranks.start(folder, 2, { code = "d.init { timeout = 1 }", only = { 1 } })()
    check(results, "rank 1 cannot reach rank 0 at MASTER_ADDR '127.0.0.1', MASTER_PORT %d+, within 1 s: Connection "
      .. "refused")
  end)

  it("is not taken for a stranger who comes to the port, nor a stranger for a rank", function()
    ranks.run(folder, 2, { code = [[
      local stranger = "bash -c 'echo GET / HTTP/1.0 >/dev/tcp/127.0.0.1/$MASTER_PORT' 2>/dev/null"
      while os.getenv "RANK" == "1" and not os.execute(stranger) do end
      d.init { timeout = 60 }
      assert(d.all_reduce(pl.tensor { 1 }):item() == 2)]] })
  end)

  it("that is there twice, or of another world, is refused", function()
    local function environment(rank_of, world_of)
      return function(rank, world, port)
        return { "RANK=" .. rank_of(rank), "WORLD_SIZE=" .. world_of(rank, world), "LOCAL_RANK=0",
          "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" .. port }
      end
    end
    local results = ranks.start(folder, 3, { code = "d.init { timeout = 20 }",
      environment = environment(function(rank) return math.min(rank, 1) end, function(_, world) return world end) })()
    check(results, "rank 1 %(host %S+, process %d+%) is there twice: host %S+, process %d+ says it is, too",
      { [1] = true, [2] = true })
    results = ranks.start(folder, 2, { code = "d.init { timeout = 20 }",
      environment = environment(function(rank) return rank end, function(rank, world) return world + rank end) })()
    check(results, "host %S+, process %d+ is a rank of 3 %(WORLD_SIZE%), but rank 0 is one of 2", { [1] = true })
    assert.equal(1, results[1].status)
  end)
end)
