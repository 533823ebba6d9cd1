-- Which process of how many this one is, from the environment variables of whoever started it: torchrun's names, those
-- of Slurm's srun, those of Open MPI's mpirun, in this order.
local environment = {}

local DEFAULT_PORT <const> = 29500 -- PyTorch's

local function fail(message, ...) error("distributed.init: " .. message:format(...), 0) end

local function integer(get, name, low, high)
  local text = get(name)
  local value = math.tointeger(tonumber(text))
  if not value or value < low or value > high then
    fail("%s: expected an integer %d..%s, got '%s'", name, low, high == math.maxinteger and "" or tostring(high), text)
  end
  return value
end

-- The rank, world and local rank of one convention's three variables; nil where `sign` is not set, an error where some
-- of the three are missing.
local function three(get, sign, rank_name, world_name, local_name)
  if not get(sign) then return nil end
  for _, name in ipairs { rank_name, world_name, local_name } do
    if not get(name) then fail("%s is set, but %s is not", sign, name) end
  end
  local world = integer(get, world_name, 1, math.maxinteger)
  local job = {
    world = world, rank = integer(get, rank_name, 0, math.maxinteger),
    local_rank = integer(get, local_name, 0, math.maxinteger),
  }
  if job.rank >= world then fail("%s is %d, but %s is %d: expected 0..%d", rank_name, job.rank, world_name, world,
    world - 1) end
  return job
end

--- The first host of a list as Slurm writes it: "n[07-09,12],m3" -> "n07".
function environment.first_host(list)
  local prefix, first, rest = list:match "^([^%[,]*)%[([^%],%-]+)[^%]]*%]([^,]*)"
  if prefix then return prefix .. first .. rest end
  return list:match "^[^,]+"
end

local function torchrun(get)
  for _, sign in ipairs { "RANK", "WORLD_SIZE", "LOCAL_RANK" } do
    local job = three(get, sign, "RANK", "WORLD_SIZE", "LOCAL_RANK")
    if job then return job end
  end
end

-- A batch script is no task of a step: only what srun starts has SLURM_STEP_ID.
local function slurm(get)
  if not get "SLURM_STEP_ID" then return nil end
  local job = three(get, "SLURM_PROCID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
  if not job or job.world == 1 then return job end
  local list = get "SLURM_STEP_NODELIST" or get "SLURM_JOB_NODELIST"
  job.address = list and environment.first_host(list) or get "SLURM_LAUNCH_NODE_IPADDR"
  -- Below the ports that systems give to clients; steps of a job may run at once.
  local number = (tonumber(get "SLURM_JOB_ID") or 0) * 7 + (tonumber(get "SLURM_STEP_ID") or 0)
  job.port = 10000 + math.tointeger(number) % 20000
  return job
end

local function open_mpi(get)
  local job = three(get, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK")
  if job and get "OMPI_COMM_WORLD_LOCAL_SIZE" == get "OMPI_COMM_WORLD_SIZE" then
    job.address, job.port = "127.0.0.1", DEFAULT_PORT
  end
  return job
end

--- The job that get(name) (os.getenv) tells of: { rank =, world =, local_rank =, address =, port = }, ranks from 0;
-- without any of the variables a world of 1. MASTER_ADDR and MASTER_PORT go before what Slurm and Open MPI imply. An
-- error names the variables that are missing or wrong.
function environment.read(get)
  local job = torchrun(get) or slurm(get) or open_mpi(get) or { rank = 0, world = 1, local_rank = 0 }
  if job.world == 1 then return job end
  job.address = get "MASTER_ADDR" or job.address
  if get "MASTER_PORT" then job.port = integer(get, "MASTER_PORT", 1, 65535) end
  for name, value in pairs { MASTER_ADDR = job.address or false, MASTER_PORT = job.port or false } do
    if not value then fail("%s is not set, by which %d processes find rank 0", name, job.world) end
  end
  return job
end

return environment
