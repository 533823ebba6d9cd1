-- perilune sweep --slurm on a real Slurm: one array, a node that fails, jobs that are cancelled, and nothing twice. And
-- pl.distributed in the tasks of srun.
local cluster = require "slurm.cluster"
local core = require "perilune.core"
local new_folder = require "tests.new_folder"
local program = require "bind.program"
local walks = require "sweep.walks"

describe("a sweep on Slurm", function()
  local lacks = cluster.lacks()
  if lacks then
    it("is not tested", function() pending("no Slurm: " .. lacks) end)
    return
  end

  local folder, slurm
  setup(function()
    folder = new_folder()
    slurm = cluster.start(folder)
  end)
  teardown(function()
    if slurm then slurm:stop() end
    os.execute("rm -r " .. folder)
  end)

  local function command(words)
    local text, errors, status = walks.command(words, ("SLURM_CONF=%s/slurm.conf"):format(folder))
    return text .. errors, status
  end

  local function status_of(out) return (command("status " .. out)) end

  local function wait_for(out, counts)
    walks.wait(function() return status_of(out):match(counts) end, counts)
  end

  local function traces_of(out)
    local by_seed = {}
    for name, lines in pairs(walks.traces(out)) do by_seed[tonumber(name:match "seed=(%d+)")] = lines end
    return by_seed
  end

  -- While both nodes are up.
  it("starts the ranks of a job by srun, on both nodes", function()
    program.write(folder .. "/ranks.lua", [[
      local d = require("perilune").distributed
      d.init { timeout = 60 }
      local sum = d.all_reduce(require("perilune").tensor { 1 + d.rank() }):item()
      io.write(("rank %d of %d, %d on its node: %g\n"):format(d.rank(), d.world_size(), d.local_rank(), sum))]])
    -- The nodes' names stand for no address.
    local text = slurm:ask(("MASTER_ADDR=127.0.0.1 srun --nodes 2 --ntasks-per-node 2 --chdir / %s %s/ranks.lua")
      :format(core.program(), folder))
    for rank, place in pairs { [0] = 0, 1, 0, 1 } do
      assert.matches(("rank %d of 4, %d on its node: 10\n"):format(rank, place), text)
    end
  end)

  it("goes on after a node failed and after its jobs were cancelled, nothing lost and nothing twice", function()
    local out = folder .. "/walks"
    local words = ("%s --seed 1..%%d --steps 5 --pause 0.8 --slurm --slurm-time 5 --out %s"):format(walks.experiment,
      out)
    local text, status = command(words:format(6))
    assert.equal(0, status, text)
    assert.matches("6 runs: 0 done, 0 running, 0 in the queue\nsubmitted 6 as job %d+ ", text)
    assert.matches('#SBATCH %-%-array="1%-6"\n.*#SBATCH %-%-time="5"\nexec ', program.read(out .. "/slurm/array.sh"))
    assert.matches("6 runs: 0 done, %d running, %d in the queue\n$", (command(words:format(6))))

    local function walked_on(node) -- processes that have taken a step there
      local count = 0
      for _, process in ipairs(slurm:jobs("SLURMD_NODENAME=" .. node .. "\0")) do
        for _, lines in pairs(walks.traces(out)) do
          local last = lines[#lines]
          if last and last:match "^step" and last:match "%d+$" == process then count = count + 1 end
        end
      end
      return count
    end
    walks.wait(function() return walked_on "n2" == 2 end, "two runs on the second node")
    assert.matches("4 running, 2 queued\n", status_of(out))
    slurm:cut_power "n2"
    local text_after = status_of(out)
    assert.matches("\nrunning +runs/%S+  on n1 for 0:00:%d%d, task %d+_%d\n", text_after)
    slurm:ask "scontrol update nodename=n2 state=down reason=power"
    wait_for(out, "6 runs: 6 done\n")
    local processes = 0
    for _, lines in pairs(traces_of(out)) do processes = processes + walks.check(lines, 5) end
    assert.equal(8, processes)

    assert.matches("10 runs: 6 done, 0 running, 0 in the queue\nsubmitted 4 as job ", (command(words:format(10))))
    assert.matches('#SBATCH %-%-array="7%-10"\n', program.read(out .. "/slurm/array.sh"))
    walks.wait(function() return walked_on "n1" == 2 end, "two more runs")
    slurm:ask "scancel --user root"
    wait_for(out, "10 runs: 6 done, 2 interrupted, 2 missing\n")
    assert.matches("submitted 4 as job ", (command(words:format(10))))
    wait_for(out, "10 runs: 10 done\n")
    assert.matches("10 runs: 10 done, 0 running, 0 in the queue\n$", (command(words:format(10))))
    local traces = traces_of(out)
    processes = 0
    for seed = 1, 10 do processes = processes + walks.check(traces[seed], 5) end
    assert.equal(14, processes)
  end)

  it("tells which runs failed, and submits those again", function()
    local out = folder .. "/failing"
    local words = ("%s --cell lstm,gru --fail gru --slurm --jobs 1 --out %s"):format(walks.experiment, out)
    assert.matches("submitted 2 as job ", (command(words)))
    assert.matches('#SBATCH %-%-array="1%-2%%1"\n', program.read(out .. "/slurm/array.sh"))
    wait_for(out, "2 runs: 1 done, 1 failed\n")
    assert.matches("\nfailed +runs/0002_cell=gru_fail=gru  exit status 1: no way for gru\n", status_of(out))
    walks.wait(function() return slurm:ask "squeue -h" == "" end, "an empty queue")
    assert.matches("2 runs: 1 done, 0 running, 0 in the queue\nsubmitted 1 as job ", (command(words)))
    walks.wait(function()
      return core.json_decode(program.read(out .. "/runs/0002_cell=gru_fail=gru/started.json")).attempt == 2
    end, "the second attempt")
  end)

  it("gives sbatch's own words where it refuses", function()
    local text, status = command(walks.experiment .. " --slurm --slurm-partition none --out " .. folder .. "/refused")
    assert.equal(1, status)
    assert.matches("perilune: sbatch: .*invalid partition", text)
  end)
end)
