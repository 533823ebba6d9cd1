-- Data parallel training on the CPU: the loss curves of 1, 2 and 4 ranks at the same batch, checkpoints that go on bit
-- for bit, what only rank 0 does, and what is refused.
local new_folder = require "tests.new_folder"
local pl = require "perilune"
local program = require "bind.program"
local ranks = require "distributed.ranks"

local folder
before_each(function() folder = new_folder() end)
after_each(function() os.execute("rm -r " .. folder) end)

-- A language model on the batches of a shard, written to the folder; `options` are further ones of the loop, as text.
local training <const> = [[
  d.init { timeout = 60 }
  pl.seed(d.rank() + 1) -- parameters are to come from rank 0
  local model = pl.nn.SequenceModel { mixer = "lstm", vocabulary = 256, width = 16, layers = 2, heads = 2, hidden = 24 }
  model:to(dtype)
  local batches = pl.data.shard(folder .. "/text.tokens"):batches {
    rows = 8, length = 12, seed = 3, rank = d.rank(), world = d.world_size() }
  local options = {
    model = model, optimizer = pl.optim.AdamW(model:parameters(), { lr = 0.01 }), steps = 12, distributed = true,
    batch = function(step) return batches:batch(step) end,
    loss = function(m, batch) return pl.nn.cross_entropy(m(batch.x), batch.y) end,
    clip = 0.5, progress = false,
  }
]]

local function code(dtype, rest)
  return ('local dtype = "%s"\n'):format(dtype) .. training .. rest
end

local function write_shard()
  local words = {}
  math.randomseed(7)
  for i = 1, 3000 do words[i] = ("abc de "):rep(math.random(3)):sub(1, math.random(9)) end
  pl.data.write(folder .. "/text.tokens", pl.data.bytes(), table.concat(words))
end

local report <const> = [[
  local history = pl.train.loop(options)
  for _, record in ipairs(history.steps) do print(("%a %a"):format(record.loss, record.grad_norm)) end
  local sum = 0
  for _, p in ipairs(model:parameters()) do sum = sum + p:to("float64"):square():sum():item() end
  print(("%a"):format(sum))]]

local function numbers_of(text)
  local list = {}
  for word in text:gmatch "%S+" do list[#list + 1] = tonumber(word) end
  return list
end

-- The greatest relative difference.
local function difference(a, b)
  local most = 0
  assert.equal(#a, #b)
  for i = 1, #a do most = math.max(most, math.abs(a[i] - b[i]) / math.abs(b[i])) end
  return most
end

describe("training by several ranks", function()
  for dtype, limit in pairs { float64 = 1e-12, float32 = 1e-5 } do
    it("has the losses, norms and parameters of one process with all rows, in " .. dtype, function()
      write_shard()
      local found = {}
      for _, world in ipairs { 1, 2, 4 } do
        local texts = ranks.run(folder, world, { code = code(dtype, report) })
        for rank = 1, world - 1 do assert.equal(texts[0], texts[rank]) end
        found[world] = numbers_of(texts[0])
        assert.equal(12 * 2 + 1, #found[world])
      end
      assert.is_true(found[1][23] < 0.9 * found[1][1], "it learns")
      for _, world in ipairs { 2, 4 } do
        local off = difference(found[world], found[1])
        assert.is_true(off <= limit, ("%d ranks differ by %g"):format(world, off))
      end
    end)
  end

  -- Masters are float32, but gradients are rounded to 8 bits of mantissa before they are added.
  for dtype, limit in pairs { float64 = 1e-12, bfloat16 = 1e-2 } do
    it("adds micro-batches up to the same, in " .. dtype, function()
      write_shard()
      local found = {}
      local parts = [[
        local all, half = options.batch, 4 // d.world_size()
        options.accumulate = %d
        if options.accumulate == 2 then
          options.batch = function(step, i)
            local batch = all(step)
            return { x = batch.x:narrow(1, (i - 1) * half + 1, half), y = batch.y:narrow(1, (i - 1) * half + 1, half) }
          end
        end]]
      for i, case in ipairs { { 1, 1 }, { 1, 2 }, { 2, 2 } } do
        local texts = ranks.run(folder, case[1], { code = code(dtype, parts:format(case[2]) .. report) })
        assert.equal(texts[0], texts[case[1] - 1])
        found[i] = numbers_of(texts[0])
      end
      for i = 2, 3 do
        local off = difference(found[i], found[1])
        assert.is_true(off <= limit, ("case %d differs by %g"):format(i, off))
      end
    end)
  end

  it("goes on from a checkpoint bit for bit, with each rank's own random numbers", function()
    write_shard()
    local steps = [[
      local dropped = pl.nn.Dropout(0.3)
      local loss = options.loss
      options.loss = function(m, batch)
        return loss(m, batch) + 0 * dropped(m:parameters()[1]):sum() + pl.randn { 1 }:sum()
      end
      options.log = folder .. "/%s.jsonl"
      options.checkpoint, options.checkpoint_every, options.steps = folder .. "/%s.safetensors", 4, %d
      options.evaluate_every, options.evaluate = 4, function() return { rank = d.rank() } end
    ]]
    ranks.run(folder, 2, { code = code("float32", steps:format("whole", "whole", 12) .. report) })
    ranks.run(folder, 2, { code = code("float32", steps:format("parts", "parts", 8) .. report) })
    local texts = ranks.run(folder, 2, { code = code("float32", steps:format("parts", "parts", 12)
      .. "local all = options.batch\noptions.batch = function(s) return assert(s > 8) and all(s) end\n" .. report) })
    assert.equal(4 * 2 + 1, #numbers_of(texts[0]))
    assert.equal(texts[0], texts[1])
    assert.is_true(program.read(folder .. "/whole.safetensors") == program.read(folder .. "/parts.safetensors"))
    local function losses(name)
      local list = {}
      for line in io.lines(folder .. name) do
        local record = pl.json_decode(line)
        if record.loss then list[record.step] = record.loss else assert.equal(0, record.rank) end
      end
      return list
    end
    assert.equal(12, #losses "/parts.jsonl")
    assert.same(losses "/whole.jsonl", losses "/parts.jsonl")
  end)

  it("goes on with fewer or more ranks, and refuses ranks that see different checkpoints", function()
    write_shard()
    local function with(name, rest)
      return { code = code("float64", ('options.checkpoint = folder .. "/" .. %s\n'):format(name) .. rest .. report) }
    end
    local expected = numbers_of(ranks.run(folder, 1, { code = code("float64", report) })[0])
    ranks.run(folder, 4, with('"a.safetensors"', "options.steps = 5\n"))
    ranks.run(folder, 1, with('"a.safetensors"', "options.steps = 8\n"))
    local found = numbers_of(ranks.run(folder, 2, with('"a.safetensors"', ""))[0])
    assert.is_true(difference({ table.unpack(found, 1, 8) }, { table.unpack(expected, 17, 24) }) <= 1e-12)
    assert.is_true(difference({ found[9] }, { expected[25] }) <= 1e-12)
    local results = ranks.start(folder, 2, with('({ [0] = "a.safetensors", "b.safetensors" })[d.rank()]', ""))()
    for rank = 0, 1 do
      assert.matches("the step to go on from %(does every rank see the same checkpoint%?%) must be the same on all "
        .. "ranks, got %d+ here, and 0 to 12 on all", results[rank].text)
    end
  end)

  it("stops when rank 0's evaluation says so, and only rank 0 writes and shows things", function()
    write_shard()
    local texts = ranks.run(folder, 2, { code = code("float32", [[
      options.log, options.tensorboard = ("%s/log%d"):format(folder, d.rank()), ("%s/events%d"):format(folder, d.rank())
      options.progress, options.monitor, options.steps = true, true, 4
      options.evaluate_every, options.evaluate = 1, function(_, step) return step, step == 2 + d.rank() end
      print(#pl.train.loop(options).steps)]]) })
    assert.equal("2\n", texts[1])
    assert.is_true(#texts[0] > 2)
    assert.truthy(io.open(folder .. "/log0"))
    assert.is_nil(io.open(folder .. "/log1"))
    assert.is_nil(io.open(folder .. "/events1/."))
  end)

  it("names a parameter that got no gradient, and a model that is not the same everywhere", function()
    write_shard()
    local results = ranks.start(folder, 2, { code = code("float32", [[
      if d.rank() == 1 then
        local loss = options.loss
        options.loss = function(m, batch) return loss(m, batch):detach() + m:parameters()[1]:sum() end
      end
      ]] .. report) })()
    for rank = 0, 1 do
      assert.matches("parameter '%S+' got no gradient: with distributed every parameter must take part in every step",
        results[rank].text)
    end
    results = ranks.start(folder, 2, { code = [[
      d.init { timeout = 60 }
      local model = pl.nn.Linear(3, 1 + d.rank())
      pl.train.loop { model = model, optimizer = pl.optim.SGD(model:parameters(), { lr = 1 }), steps = 1,
        batch = print, loss = print, distributed = true }]] })()
    for rank = 0, 1 do
      assert.matches("the model's number of parameters must be the same on all ranks, got %d here, and 4 to 8 on all",
        results[rank].text)
    end
  end)

  it("overlaps buckets with the backward pass of a model of many of them", function()
    local texts = ranks.run(folder, 2, { code = [[
      d.init { timeout = 60 }
      pl.seed(1)
      local layers = {}
      for i = 1, 4 do layers[i] = pl.nn.Linear(2048, 2048) end -- 16 MiB each: no two fit into a bucket
      layers[2].bias:requires_grad(false)
      local model = pl.nn.Sequential(layers)
      local x = pl.randn { 2, 2048 }
      local history = pl.train.loop { model = model, optimizer = pl.optim.SGD(model:parameters(), { lr = 0.1 }),
        steps = 2, progress = false, distributed = true, clip = math.huge,
        batch = function() return x:narrow(1, 1 + d.rank(), 1) end,
        loss = function(m, rows) return m(rows):square():mean() end }
      print(("%.6g %.6g"):format(history.steps[2].loss, history.steps[2].grad_norm))
      d.destroy()
      d.init { timeout = 60 }]], environment = function(rank, world, port)
        return { "RANK=" .. rank, "WORLD_SIZE=" .. world, "LOCAL_RANK=" .. rank, "MASTER_ADDR=localhost",
          "MASTER_PORT=" .. port }
      end })
    assert.equal(texts[0], texts[1])
    local alone = ranks.run(folder, 1, { code = [[
      pl.seed(1)
      local layers = {}
      for i = 1, 4 do layers[i] = pl.nn.Linear(2048, 2048) end
      layers[2].bias:requires_grad(false)
      local model = pl.nn.Sequential(layers)
      local x = pl.randn { 2, 2048 }
      local history = pl.train.loop { model = model, optimizer = pl.optim.SGD(model:parameters(), { lr = 0.1 }),
        steps = 2, progress = false, clip = math.huge, batch = function() return x end,
        loss = function(m, rows) return m(rows):square():mean() end }
      print(("%.6g %.6g"):format(history.steps[2].loss, history.steps[2].grad_norm))]] })
    local a, b = numbers_of(texts[0]), numbers_of(alone[0])
    assert.is_true(difference(a, b) < 1e-4)
  end)
end)
