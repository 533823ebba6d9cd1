-- experiments/lm.lua on a GPU: every preset in small, backends that agree, and a killed run that goes on to the same
-- bits.
local devices = require "tests.devices"
local json_lines = require "perilune.json_lines"
local new_folder = require "tests.new_folder"
local pl = require "perilune"
local program = require "tests.bind.program"

if not devices.has("cuda", "language models") then return end

local folder, data
before_each(function()
  folder = new_folder()
  data = folder .. "/text.txt"
  program.write(data, ("the quick brown fox jumps over the lazy dog, and Jove sees. "):rep(200))
end)
after_each(function() os.execute("rm -r " .. folder) end)

local function run(arguments)
  local text, errors, status = program.run { args = ("experiments/lm.lua --device cuda --data %s %s"):format(data,
    arguments) }
  assert(status == 0, errors)
  return text
end

local function result_in(out)
  local list = json_lines.read(out .. "/lm.jsonl")
  return list[#list]
end

describe("lm on a GPU", function()
  for _, arguments in ipairs {
    "--preset tiny", "--preset char", "--preset char --model slstm --heads 2", "--preset char --model transformer "
      .. "--heads 2 --stateful=false", "--preset seed-165m --vocabulary 300 --layers 2 --width 96 --hidden 256",
    "--preset seed-165m --vocabulary 300 --layers 2 --width 96 --hidden 256 --model transformer --tied",
  } do
    it("learns with " .. arguments, function()
      run(arguments .. " --batch 16 --accumulate 2 --length 32 --steps 60 --warmup 5 --lr 0.01 --eval-every 60 --out "
        .. folder .. "/run")
      local row = result_in(folder .. "/run")
      assert.is_true(row.loss < 2.5, "loss " .. row.loss)
      assert.is_true(row.of_peak > 0 and row.of_peak < 1)
    end)
  end

  it("has the same loss by both backends", function()
    local losses = {}
    for i, backend in ipairs { "fused", "alternating" } do
      run(("--preset tiny --heads 2 --batch 8 --length 32 --steps 100 --warmup 5 --eval-every 100 --backend %s "
        .. "--out %s/%d"):format(backend, folder, i))
      losses[i] = result_in(folder .. "/" .. i).loss
    end
    assert.near(losses[1], losses[2], 1e-2)
  end)

  it("goes on to the same bits", function()
    local arguments = "--preset char --batch 8 --accumulate 2 --length 16 --steps 400 --warmup 2 --eval-every 5 --out "
    run(arguments .. folder .. "/whole")
    local kills, pause = 0, 1 -- those that left a checkpoint of a run that was not over
    local function there(name) return io.open(folder .. "/killed/" .. name) ~= nil end
    while not there "lm.jsonl" do
      program.run { before = ("timeout -s KILL %g"):format(pause), args = ("experiments/lm.lua --device cuda --data %s "
        .. "%s%s/killed"):format(data, arguments, folder) }
      if there "checkpoint.safetensors" and not there "lm.jsonl" then kills = kills + 1 end
      pause = pause * 1.15
      assert(pause < 60, "it does not get on")
    end
    run(arguments .. folder .. "/killed")
    assert.is_true(kills > 0, "no kill came between a checkpoint and the end")
    local a = pl.load(folder .. "/whole/checkpoint.safetensors")
    local b = pl.load(folder .. "/killed/checkpoint.safetensors")
    a.state, b.state = nil, nil -- has the seconds
    for name, tensor in pairs(a) do assert.are.same(tensor:totable(), b[name]:totable(), name) end
  end)

  it("draws and tells where the time of a step goes", function()
    local arguments = "--preset char --batch 8 --length 16 --steps 5 --warmup 2 --out " .. folder .. "/run"
    run(arguments)
    assert.matches("%-%- %d+ tokens/s, %d+ for 32 texts together", run("--sample 50 --out " .. folder .. "/run"))
    assert.matches("recurrence +%d", run(arguments .. " --profile"))
  end)
end)
