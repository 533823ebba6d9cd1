-- Text through the training loop: a program that is killed goes on with the batches that it would have seen.
local pl = require "perilune"
local core = require "perilune.core"
local new_folder = require "new_folder"
local program = require "bind.program"

-- A language model of bytes that carries its state over contiguous rows or not. Each batch that it sees is a line of
-- seen.jsonl: the step and the first id of each row. The program kills itself before step `killed`.
local SCRIPT <const> = [[
local pl = require "perilune"
local folder, contiguous, killed = %q, %s, %d
local shard = pl.data.shard(folder .. "/text.tokens")
local batches <close> = shard:batches { rows = 2, length = 5, seed = 4, contiguous = contiguous }
pl.seed(1)
local model = pl.nn.Sequential(pl.nn.Embedding(256, 4), pl.nn.Linear(4, 256))
pl.train.loop {
  model = model, optimizer = pl.optim.AdamW(model:parameters(), { lr = 0.01 }), steps = 40, progress = false,
  batch = function(step)
    if step == killed then os.execute "kill -9 $PPID" end
    local batch <const> = batches:batch(step)
    local seen <close> = assert(io.open(folder .. "/seen.jsonl", "a"))
    seen:write(pl.json_encode { step = step, x = batch.x:totable(), first = batch.first }, "\n")
    return batch
  end,
  loss = function(m, batch) return pl.cross_entropy(m(batch.x):reshape { 10, 256 }, batch.y:reshape { 10 }) end,
  checkpoint = folder .. "/run.safetensors", checkpoint_every = 6, log = folder .. "/log.jsonl",
}
]]

describe("a training on text", function()
  local folder
  before_each(function()
    folder = new_folder()
    local letters = {}
    for i = 0, 199 do letters[i + 1] = string.char(i) end
    pl.data.write(folder .. "/text.tokens", pl.data.bytes(), table.concat(letters))
  end)
  after_each(function() os.execute("rm -r " .. folder) end)

  local function run(contiguous, killed)
    program.write(folder .. "/train.lua", SCRIPT:format(folder, contiguous, killed))
    local _, errors, status = program.run { args = folder .. "/train.lua" }
    assert.equal(killed > 0 and 137 or 0, status, errors)
  end

  -- The records of a file that the runs wrote, which is gone afterwards.
  local function taken(name)
    local list = {}
    for line in io.lines(folder .. "/" .. name) do list[#list + 1] = core.json_decode(line) end
    os.remove(folder .. "/" .. name)
    return list
  end

  local function losses()
    local list = {}
    for i, record in ipairs(taken "log.jsonl") do list[i] = { record.step, record.loss } end
    return list
  end

  it("goes on with the same batches after it was killed", function()
    for _, contiguous in ipairs { false, true } do
      run(contiguous, 0)
      local batches, expected = taken "seen.jsonl", losses()
      assert.same({ 40, 40 }, { #batches, #expected })
      os.execute("rm " .. folder .. "/*.safetensors")
      for _, killed in ipairs { 4, 21, 31, 0 } do run(contiguous, killed) end -- within the second epoch, and the third
      local again, seen = {}, taken "seen.jsonl"
      for i, record in ipairs(seen) do
        assert.same(batches[record.step], record)
        local before = seen[i - 1] and seen[i - 1].step or 0
        if record.step ~= before + 1 then again[#again + 1] = record.step end
      end
      assert.same({ 1, 19 }, again) -- the checkpoint of step 30 was the last thing before the third kill
      assert.equal(40, seen[#seen].step)
      assert.same(expected, losses())
      os.execute("rm " .. folder .. "/*.safetensors")
    end
  end)
end)
