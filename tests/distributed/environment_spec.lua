-- Who a process is in its job, from the variables of torchrun, srun and mpirun.
local environment = require "perilune.distributed.environment"
local message_of = require "tests.message_of"

local function read(variables)
  return environment.read(function(name) return variables[name] end)
end

describe("the environment of a job", function()
  it("without any variables, and in a batch script, is a world of one", function()
    local alone = { rank = 0, world = 1, local_rank = 0 }
    assert.same(alone, read {})
    assert.same(alone, read { MASTER_ADDR = "a", MASTER_PORT = "1" })
    assert.same(alone, read { SLURM_JOB_ID = "7", SLURM_NTASKS = "4", SLURM_PROCID = "0", SLURM_LOCALID = "0" })
  end)

  it("is read from torchrun's variables, which go first", function()
    assert.same({ rank = 3, world = 4, local_rank = 1, address = "node7", port = 29501 }, read {
      RANK = "3", WORLD_SIZE = "4", LOCAL_RANK = "1", MASTER_ADDR = "node7", MASTER_PORT = "29501",
      SLURM_STEP_ID = "0", SLURM_PROCID = "0", SLURM_NTASKS = "2", SLURM_LOCALID = "0" })
  end)

  it("is read from Slurm's variables, with the first host of the step", function()
    local step = { SLURM_JOB_ID = "1234", SLURM_STEP_ID = "2", SLURM_PROCID = "5", SLURM_NTASKS = "8",
      SLURM_LOCALID = "1", SLURM_STEP_NODELIST = "gpu[07-09,12],login1", SLURM_LAUNCH_NODE_IPADDR = "10.0.0.1" }
    local job = { rank = 5, world = 8, local_rank = 1, address = "gpu07", port = 10000 + (1234 * 7 + 2) % 20000 }
    assert.same(job, read(step))
    step.SLURM_STEP_NODELIST, job.address = nil, "10.0.0.1"
    assert.same(job, read(step))
    step.SLURM_JOB_NODELIST, job.address = "a1,a2", "a1"
    assert.same(job, read(step))
    step.MASTER_ADDR, step.MASTER_PORT, job.address, job.port = "b", "77", "b", 77
    assert.same(job, read(step))
    assert.equal("n3", environment.first_host "n3")
    assert.equal("rack2n11-ib", environment.first_host "rack2n[11,13]-ib")
  end)

  it("is read from Open MPI's variables", function()
    local mpi = { OMPI_COMM_WORLD_RANK = "1", OMPI_COMM_WORLD_SIZE = "2", OMPI_COMM_WORLD_LOCAL_RANK = "1",
      OMPI_COMM_WORLD_LOCAL_SIZE = "2" }
    assert.same({ rank = 1, world = 2, local_rank = 1, address = "127.0.0.1", port = 29500 }, read(mpi))
    mpi.OMPI_COMM_WORLD_LOCAL_SIZE = "1"
    assert.matches("MASTER_%u+ is not set, by which 2 processes find rank 0", message_of(read, mpi))
    mpi.MASTER_ADDR, mpi.MASTER_PORT = "host", "5000"
    assert.same({ rank = 1, world = 2, local_rank = 1, address = "host", port = 5000 }, read(mpi))
  end)

  it("that is half set, or wrong, is an error that names the variables", function()
    for message, variables in pairs {
      ["RANK is set, but WORLD_SIZE is not"] = { RANK = "0" },
      ["WORLD_SIZE is set, but RANK is not"] = { WORLD_SIZE = "2" },
      ["RANK is set, but LOCAL_RANK is not"] = { RANK = "0", WORLD_SIZE = "2" },
      ["RANK is 2, but WORLD_SIZE is 2: expected 0..1"] = { RANK = "2", WORLD_SIZE = "2", LOCAL_RANK = "0" },
      ["RANK: expected an integer 0.., got 'one'"] = { RANK = "one", WORLD_SIZE = "2", LOCAL_RANK = "0" },
      ["WORLD_SIZE: expected an integer 1.., got '0'"] = { RANK = "0", WORLD_SIZE = "0", LOCAL_RANK = "0" },
      ["MASTER_ADDR is not set"] = { RANK = "0", WORLD_SIZE = "2", LOCAL_RANK = "0", MASTER_PORT = "1" },
      ["MASTER_PORT is not set"] = { RANK = "0", WORLD_SIZE = "2", LOCAL_RANK = "0", MASTER_ADDR = "a" },
      ["MASTER_PORT: expected an integer 1..65535, got '70000'"] = { RANK = "0", WORLD_SIZE = "2", LOCAL_RANK = "0",
        MASTER_ADDR = "a", MASTER_PORT = "70000" },
      ["SLURM_PROCID is set, but SLURM_LOCALID is not"] = { SLURM_STEP_ID = "0", SLURM_PROCID = "0",
        SLURM_NTASKS = "2" },
      ["OMPI_COMM_WORLD_RANK is set, but OMPI_COMM_WORLD_SIZE is not"] = { OMPI_COMM_WORLD_RANK = "0" },
    } do
      assert.equal("distributed.init: " .. message, (message_of(read, variables):gsub(", by which.*", "")))
    end
  end)
end)
