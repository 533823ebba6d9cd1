-- Several GPUs, a process for each, through NCCL: values, the loss curves of 1, 2 and 4 ranks, training whose buckets
-- travel beside persistent kernels, checkpoints, and ranks that die or hang while the others wait on their GPUs.
local busted = require "busted"
local devices = require "tests.devices"
local new_folder = require "tests.new_folder"
local pl = require "perilune"
local program = require "bind.program"
local ranks = require "tests.distributed.ranks"

if not devices.has("cuda:1", "several GPUs through NCCL, on a second GPU") then return end

local worlds <const> = devices.missing "cuda:3" and { 2 } or { 2, 4 }
if #worlds == 1 then busted.pending "four ranks: there are fewer than 4 GPUs" end

local folder
before_each(function() folder = new_folder() end)
after_each(function() os.execute("rm -r " .. folder) end)

local join <const> = 'd.init { timeout = 120, backend = "nccl" }\nlocal device = "cuda:" .. d.local_rank()\n'

describe("NCCL", function()
  for _, world in ipairs(worlds) do
    it(("gives %d ranks sums, means, extremes and one rank's values, in every type and size"):format(world), function()
      local texts = ranks.run(folder, world, { code = join .. [[
        local rank, world, checks = d.rank(), d.world_size(), 0
        local function same(found, expected)
          assert(found.device == device and found.dtype == expected.dtype)
          if found:numel() > 0 then assert(pl.ne(found, expected):to("float32"):sum():item() == 0) end
          checks = checks + 1
        end
        for _, dtype in ipairs { "float64", "float32", "bfloat16", "float16", "int64", "int32", "uint8" } do
          for _, n in ipairs { 0, 1, 7, 100003 } do
            local base = (n == 0 and pl.zeros { 0 } or pl.arange(0, n - 1) % 5):to(device)
            local function own(offset) return (base + offset):to(dtype) end
            same(d.all_reduce(own(rank)), (base * world + world * (world - 1) / 2):to(dtype))
            same(d.all_reduce(own(rank), "max"), own(world - 1))
            same(d.all_reduce(own(rank), "min"), own(0))
            if dtype:match "float" then same(d.all_reduce(own(2 * rank), "mean"), own(world - 1)) end
            for source = 0, world - 1 do same(d.broadcast(own(rank), source), own(source)) end
          end
        end
        d.barrier()
        print(checks)]] })
      for rank = 0, world - 1 do assert.equal(7 * 4 * (3 + world) + 4 * 4 .. "\n", texts[rank]) end
    end)
  end

  it("gives all ranks the same bits of 40 MB, and refuses tensors on the CPU where it was asked for", function()
    ranks.run(folder, worlds[#worlds], { code = join .. [[
      pl.seed(d.rank())
      local t = d.all_reduce(pl.randn { 10000001, device = device })
      pl.save(("%s/%d.safetensors"):format(folder, d.rank()), { t = t })
      local _, message = pcall(d.all_reduce, pl.zeros { 2 })
      assert(message:match 'the backend "nccl" takes tensors on GPUs, got one on cpu')
      ]] })
    local first = program.read(folder .. "/0.safetensors")
    for rank = 1, worlds[#worlds] - 1 do
      assert.is_true(program.read(("%s/%d.safetensors"):format(folder, rank)) == first)
    end
  end)
end)

-- A language model on random ids; `autocast` and sizes as text.
local training <const> = [[
  d.init { timeout = 120 }
  local device = "cuda:" .. d.local_rank()
  pl.seed(d.rank() + 1)
  local model = pl.nn.SequenceModel { mixer = "lstm", vocabulary = 256, width = width, layers = layers, heads = heads }
  model:to(device)
  local batches = pl.data.shard(folder .. "/text.tokens"):batches {
    rows = 32, length = length, seed = 3, rank = d.rank(), world = d.world_size(), device = device }
  local options = {
    model = model, optimizer = pl.optim.AdamW(model:parameters(), { lr = 0.003 }), steps = 20, distributed = true,
    batch = function(step) return batches:batch(step) end, autocast = autocast,
    loss = function(m, batch) return pl.nn.cross_entropy(m(batch.x), batch.y) end,
    clip = 0.5, progress = false,
  }
]]
local report <const> = [[
  local history = pl.train.loop(options)
  for _, record in ipairs(history.steps) do print(("%a %a"):format(record.loss, record.grad_norm)) end]]

local function code(settings, rest) return "local " .. settings .. "\n" .. training .. rest end

local small <const> = "width, layers, heads, length, autocast = 128, 2, 2, 64, nil"

local function write_shard()
  local words = {}
  math.randomseed(7)
  for i = 1, 40000 do words[i] = ("abc de "):rep(math.random(3)):sub(1, math.random(9)) end
  pl.data.write(folder .. "/text.tokens", pl.data.bytes(), table.concat(words))
end

local function numbers_of(text)
  local list = {}
  for word in text:gmatch "%S+" do list[#list + 1] = tonumber(word) end
  return list
end

-- How far apart the losses of the first `steps` are at most, and the norms, which come in turn.
local function most_apart(a, b, steps)
  local most = { 0, 0 }
  assert.equal(#a, #b)
  for i = 1, 2 * steps do
    local kind = 2 - i % 2
    most[kind] = math.max(most[kind], math.abs(a[i] - b[i]) / math.abs(b[i]))
  end
  return table.unpack(most)
end

describe("training on several GPUs", function()
  -- Sums over other numbers of rows are rounded otherwise, and steps carry that on: Adam's, which take small gradients
  -- for as much as large ones, most of all. Limits of losses and norms over the first step, and over twenty.
  for name, case in pairs {
    float32 = { small, { 1e-6, 1e-5 }, { 1e-4, 1e-4 } },
    ["bfloat16 products"] = { 'width, layers, heads, length, autocast = 128, 2, 2, 64, "bfloat16"', { 1e-6, 1e-5 },
                              { 2e-2, 3e-1 } },
  } do
    it("has the losses and norms of one, in " .. name, function()
      write_shard()
      local found = { numbers_of(ranks.run(folder, 1, { code = code(case[1], report) })[0]) }
      assert.is_true(found[1][39] < 0.9 * found[1][1], "it learns")
      for _, world in ipairs(worlds) do
        local texts = ranks.run(folder, world, { code = code(case[1], report) })
        for rank = 1, world - 1 do assert.equal(texts[0], texts[rank]) end
        for i, steps in ipairs { 1, 20 } do
          local losses, norms = most_apart(numbers_of(texts[0]), found[1], steps)
          local apart = ("%s, %d steps: %d ranks differ from 1 by %.2g, gradients by %.2g"):format(name, steps, world,
            losses, norms)
          io.stderr:write(apart, "\n")
          assert.is_true(losses <= case[1 + i][1] and norms <= case[1 + i][2], apart)
        end
      end
    end)
  end

  it("ends though buckets travel beside persistent kernels that fill the GPU", function()
    write_shard()
    ranks.run(folder, worlds[#worlds], { code = code(
      'width, layers, heads, length, autocast = 1024, 6, 1, 256, "bfloat16"', report) })
  end)

  it("goes on from a checkpoint bit for bit", function()
    write_shard()
    local function run(name, steps)
      ranks.run(folder, 2, { code = code(small, ([[
        options.checkpoint, options.checkpoint_every, options.steps = folder .. "/%s.safetensors", 4, %d
      ]]):format(name, steps) .. report) })
    end
    run("whole", 12)
    run("parts", 8)
    run("parts", 12)
    assert.is_true(program.read(folder .. "/whole.safetensors") == program.read(folder .. "/parts.safetensors"))
  end)
end)

describe("a rank on a GPU", function()
  local function run(act, timeout)
    local world = worlds[#worlds]
    local wait = ranks.start(folder, world, { code = ([[
      d.init { timeout = %g }
      local t = pl.zeros { 1000000, device = "cuda:" .. d.local_rank() }
      for i = 1, math.huge do
        d.all_reduce(t)
        if i %% 10 == 0 then t:mul_(0):sum():item() end
        if i == 100 and d.rank() == 1 then %s end
      end]]):format(timeout, act) })
    return wait()
  end

  local function check(results, message)
    for rank, result in pairs(results) do
      if rank ~= 1 then
        assert.same({ "exit", 1 }, { result.how, result.status }, result.text)
        assert.matches(message, result.text)
      end
    end
  end

  it("that is killed ends the others, whose GPUs wait for it, with its name", function()
    local results = run('os.execute "kill -9 $PPID"', 120)
    check(results, "rank 1 %(host %S+, process %d+%) ended without a word")
    local ended_s = 0
    for _, result in pairs(results) do ended_s = math.max(ended_s, result.s) end
    assert.is_true(ended_s - results[1].s < 15, ended_s .. " and " .. results[1].s)
  end)

  it("that raises an error, or hangs, is named", function()
    check(run("error 'no such luck'", 120), "rank 1 %(host %S+, process %d+%) failed: %S+: no such luck")
    check(run("while true do end", 4), "rank 1 %(host %S+, process %d+%) did not come to collective operation %d+")
  end)

  it("that uses another's GPU is told by NCCL", function()
    local results = ranks.start(folder, 2, { code = [[
      d.init { timeout = 60 }
      d.all_reduce(pl.zeros { 3, device = "cuda:0" })]] })()
    for rank = 0, 1 do
      assert.equal(1, results[rank].status, results[rank].text)
      assert.matches("NCCL: ", results[0].text .. results[1].text)
    end
  end)
end)
