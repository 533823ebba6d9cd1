-- What is different for pl.train.loop when several processes train one model, each on its own rows of every batch
-- (option distributed): the same few questions have an answer for one process alone and one for the ranks of a job.
local core = require "perilune.core"
local distributed = require "perilune.distributed"
local pl = require "perilune"
local check = require "perilune.nn.check"

-- ---------------------------------------------------------------------------------------------------------------------
-- One process

local Alone = { main = true }
Alone.__index = Alone

--- Before the first step, after a checkpoint was loaded that was made after the step `resumed`.
function Alone.begin(_self, _model, _optimizer, _resumed) end

--- A backward pass. With `more` a step's further micro-batches add to the gradients; else the optimiser comes next.
function Alone.backward(_self, loss, _more) loss:backward() end

--- The loss as a number, of all rows of the batch.
function Alone.mean(_self, loss) return loss:item() end

--- What all agree upon where they were asked separately: rank 0's answer.
function Alone.agree(_self, yes) return yes end

--- Runs `write` once for all: checkpoints are files that everybody reads.
function Alone.save(_self, write) write() end

-- A part of the checkpoint: the random numbers of all ranks. One process takes those that every checkpoint holds.
function Alone.state_dict(_self) return {} end
function Alone.load_state_dict(_self, _dict) end

-- ---------------------------------------------------------------------------------------------------------------------
-- The ranks of a job

local Ranks = {}
Ranks.__index = Ranks

-- An error unless all ranks come here with the same integer.
local function same(what, own)
  local _ <close> = pl.scope()
  local most = distributed.all_reduce(pl.tensor({ own, -own }, { dtype = "int64" }), "max"):totable()
  if most[1] ~= -most[2] then
    check.fail("train.loop: %s must be the same on all ranks, got %d here, and %d to %d on all", what, own, -most[2],
      most[1])
  end
end

-- Gives the tensors that an object has of its own the values of rank 0.
local function share(object)
  local state, names = object:state_dict(), {}
  for name in pairs(state) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do distributed.broadcast(state[name]) end
end

-- All start from rank 0's parameters, buffers and optimiser, which may hold copies of the parameters.
function Ranks:begin(model, optimizer, resumed)
  local _ <close> = pl.scope()
  if self.random then core.random_state(table.unpack(self.random)) end
  same("the step to go on from (does every rank see the same checkpoint?)", resumed)
  same("the model's number of parameters", model:parameter_count())
  share(model)
  share(optimizer)
  self.parameters = model:named_parameters()
  for _, pair in ipairs(self.parameters) do self.halves = self.halves or pair[2].dtype:match "16$" end
  self.buckets = core.buckets(model:parameters())
end

-- Gradients become the means over the ranks, which travel while the pass goes on: once per step, where they add up in
-- place, but those of parameters of 16 bits are taken away to be added up elsewhere.
function Ranks:backward(loss, more)
  if more and not self.halves then return loss:backward() end
  local missing = self.buckets:backward(loss)
  if missing then
    check.fail("train.loop: parameter '%s' got no gradient: with distributed every parameter must take part in every "
      .. "step (p:requires_grad(false) leaves one out)", self.parameters[missing][1])
  end
end

function Ranks.mean(_self, loss)
  return distributed.all_reduce(loss:detach():to("float64"):clone(), "mean"):item()
end

function Ranks.agree(_self, yes)
  local _ <close> = pl.scope()
  return distributed.broadcast(pl.tensor({ yes and 1 or 0 }, { dtype = "uint8" })):item() == 1
end

-- Only rank 0 writes; the others wait, so that nobody reads what is half written.
function Ranks:save(write)
  local rows = {}
  for rank = 1, distributed.world_size() do rows[rank] = { 0, 0 } end
  rows[distributed.rank() + 1] = { core.random_state() }
  local _ <close> = pl.scope()
  self.rows = distributed.all_reduce(pl.tensor(rows, { dtype = "int64" }))
  if self.main then write() end
  distributed.barrier()
end

function Ranks:state_dict() return { random = self.rows } end

-- A checkpoint of fewer ranks, or of one process, has no row for this one.
function Ranks:load_state_dict(dict) self.random = dict.random and dict.random:totable()[distributed.rank() + 1] end

local parallel = {}

--- The one process, or, if `wanted` and there are several, the ranks of the job that this one is in.
function parallel.new(wanted)
  if not wanted or distributed.world_size() == 1 then return setmetatable({}, Alone) end
  return setmetatable({ main = distributed.rank() == 0 }, Ranks)
end

return parallel
