-- pl.distributed: several processes that work as one job, as torch.distributed: `srun`, `mpirun` or a shell starts the
-- same script several times, and each knows its rank from its environment (perilune.distributed.environment).
--
--   local d = pl.distributed
--   d.init()                                     -- without any such environment: a world of 1, where all of this works
--   local device = "cuda:" .. d.local_rank()
--   local batches = shard:batches{ rows = 32, length = 64, rank = d.rank(), world = d.world_size(), device = device }
--   pl.train.loop{ distributed = true, .. }
--
-- Tensors on the CPU go over TCP connections to rank 0 ("socket"), those on GPUs by NCCL ("nccl"). A rank that fails or
-- dies ends the others within seconds, with an error that names it.
local core = require "perilune.core"
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local environment = require "perilune.distributed.environment"

local distributed = {}

local job -- what environment.read gave, with backend

local init_options <const> = { backend = check.none, timeout = 600 }

--- Joins the job that the environment tells of: init{ backend = nil, timeout = 600 }. Waits until all ranks have come.
--   backend   "socket" or "nccl" refuses tensors of the other kind; with "nccl" that library is looked for at once
--   timeout   seconds that ranks wait for each other, here and in each operation, before that is an error
function distributed.init(options)
  local who, option = "distributed.init", check.options("distributed.init", options, init_options)
  if option.backend ~= nil then check.choice(who, "backend", option.backend, { "socket", "nccl" }) end
  check.number(who, "timeout", option.timeout, 0.001)
  if job then check.fail("%s: this process is in a job already; see pl.distributed.destroy", who) end
  local found = environment.read(os.getenv)
  if found.world > 1 then
    core.distributed_join(found.rank, found.world, found.address, found.port, option.timeout)
  end
  found.backend, job = option.backend, found
  if found.backend == "nccl" then
    local _ <close> = pl.scope()
    local fine, message = pcall(function()
      distributed.all_reduce(pl.zeros { 1, device = "cuda:" .. found.local_rank })
    end)
    if not fine then
      distributed.destroy()
      error(message, 0)
    end
  end
end
declared.options(distributed.init, init_options)

local function joined()
  if not job then check.fail "distributed: call pl.distributed.init first" end
  return job
end

--- Whether this process has joined a job, if only one of itself.
function distributed.is_initialized() return job ~= nil end

--- This process's number in the job, from 0.
function distributed.rank() return joined().rank end

--- How many processes the job has.
function distributed.world_size() return joined().world end

--- This process's number among those of its host, from 0.
function distributed.local_rank() return joined().local_rank end

local function check_place(who, tensor)
  check.tensor(who, "tensor", tensor)
  local expected = joined().backend
  local found = tensor.device == "cpu" and "socket" or "nccl"
  if expected and expected ~= found then
    check.fail('%s: tensor: the backend "%s" takes tensors on %s, got one on %s', who, expected,
      expected == "nccl" and "GPUs" or "the CPU", tensor.device)
  end
end

-- run(tensors) changes contiguous tensors in place.
local function in_place(who, tensor, run)
  check_place(who, tensor)
  if job.world > 1 then
    local _ <close> = pl.scope()
    pl.no_grad(function()
      local whole = tensor:contiguous()
      run { whole }
      if not tensor:is_contiguous() then tensor:copy_(whole) end
    end)
  end
  return tensor
end

local kinds <const> = { "sum", "mean", "max", "min" }

--- all_reduce(tensor, op = "sum"): the sum (or "mean", "max", "min") over all ranks' tensors, which have the same shape
-- and type, in place and on all ranks bit for bit the same; returns the tensor.
function distributed.all_reduce(tensor, op)
  op = op or "sum"
  check.choice("distributed.all_reduce", "op", op, kinds)
  return in_place("distributed.all_reduce", tensor, function(list) core.distributed_all_reduce(op, list) end)
end

--- broadcast(tensor, src = 0): rank src's values for everybody's tensor of the same shape and type; returns the tensor.
function distributed.broadcast(tensor, src)
  src = check.integer("distributed.broadcast", "src", src or 0, 0)
  if src >= joined().world then
    check.fail("distributed.broadcast: src: expected 0..%d, got %d", job.world - 1, src)
  end
  return in_place("distributed.broadcast", tensor, function(list) core.distributed_broadcast(src, list) end)
end

--- Waits until all ranks have come here.
function distributed.barrier()
  if joined().world == 1 then return end
  local _ <close> = pl.scope()
  core.distributed_all_reduce("sum", { pl.zeros { 1, dtype = "uint8" } })
end

--- Leaves the job, which the others may still be in; the end of the script does so, too.
function distributed.destroy()
  core.distributed_leave()
  job = nil
end

return distributed
