-- experiments/lm.lua: trains on a text, goes on after kills to the same bits, draws, plots, profiles, and refuses.
local pl = require "perilune"
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local json_lines = require "perilune.json_lines"
local free_ports = require "tests.free_ports"
local new_folder = require "tests.new_folder"
local program = require "tests.bind.program"
local presets = require "perilune.lm.presets"

local small <const> = "--width 8 --layers 2 --batch 4 --length 8 --steps 6 --warmup 2 --eval-every 4 --log-every 2 "
  .. "--threads 1"
local TEXT <const> = ("the quick brown fox jumps over the lazy dog, and Jove sees. "):rep(20)

local folder, data
before_each(function()
  folder = new_folder()
  data = folder .. "/text.txt"
  program.write(data, TEXT)
end)
after_each(function() os.execute("rm -r " .. folder) end)

local function run(arguments) return program.run { args = "experiments/lm.lua " .. arguments } end

local function records(path, kind) return experiment.read(path, kind, true) end

local function done(arguments, out)
  local text, errors, status = run(("%s --data %s %s --out %s"):format(small, data, arguments, out))
  assert(status == 0, errors)
  return records(out .. "/lm.jsonl", "result")[1], text
end

describe("lm", function()
  it("has presets that name options", function()
    local help = run "--help"
    for name, preset in pairs(presets) do
      for option in pairs(preset) do
        assert.is_not_nil(help:find("--" .. option:gsub("_", "-"), 1, true), name .. "." .. option)
      end
      assert.matches(name, help, 1, true)
    end
  end)

  for _, arguments in ipairs {
    "", "--model slstm --heads 2", "--model transformer --heads 2", "--model gru --stateful --tied --dropout 0.2",
    "--tokenizer characters --backend reference", "--tokenizer bpe --vocabulary 270", "--vocabulary 300",
    "--accumulate 2 --stateful", "--model mlstm --stateful --heads 2", "--seconds 100",
  } do
    it("trains with " .. (arguments == "" and "nothing else" or arguments), function()
      local row, text = done(arguments, folder .. "/run")
      assert.are.equal(6, row.steps)
      assert.is_true(row.loss > 0 and row.loss < 6 and row.ms > 0 and row.peak_bytes > 0)
      assert.near(math.exp(row.loss), row.perplexity, 1e-9 * row.perplexity)
      local bits = row.loss / math.log(2)
      if arguments:find "bpe" then
        assert.is_true(row.bits_per_byte < bits)
      else
        assert.near(bits, row.bits_per_byte, 1e-9)
      end
      assert.matches("tokens/s, %d+ for 32 texts together", text)
      local validations = records(folder .. "/run/lm.jsonl", "validation")
      assert.are.same({ 4, 6 }, { validations[1].step, validations[2].step })
      assert.are.equal(row.loss, validations[2].loss)
      assert.are.equal(3, #records(folder .. "/run/lm.jsonl", "train"))
    end)
  end

  it("begins at ln V, and evaluates all of the last tenth of the text", function()
    local row = done("--lr 0 --steps 3 --log-every 1 --tokenizer characters", folder .. "/run")
    local characters, seen = 0, {}
    for c in TEXT:gmatch "." do
      if not seen[c] then characters, seen[c] = characters + 1, true end
    end
    for _, record in ipairs(json_lines.read(folder .. "/run/steps.jsonl")) do
      assert.near(math.log(characters), record.loss, 1e-5)
    end
    assert.near(math.log(characters), row.loss, 1e-5)
  end)

  it("trains on a folder of texts, whose ends it learns, and on ids that are there", function()
    os.execute(("mkdir %s/texts && cp %s %s/texts/a && cp %s %s/texts/b"):format(folder, data, folder, data, folder))
    done(("--data %s/texts"):format(folder), folder .. "/run")
    local shard = pl.data.shard(folder .. "/run/text.tokens")
    assert.are.same({ 257, 2 * #TEXT + 2 }, { shard.vocabulary, shard.count })
    done(("--tokenizer bpe --vocabulary 270 --data %s"):format(data), folder .. "/bpe")
    local row = done(("--data %s/bpe/text.tokens --tokenizer %s/bpe/tokenizer.json"):format(folder, folder),
      folder .. "/again")
    local expected = records(folder .. "/bpe/lm.jsonl", "result")[1]
    assert.are.equal(expected.loss, row.loss)
    row = done(("--data %s/bpe"):format(folder), folder .. "/third") -- the folder of a run
    assert.are.same({ expected.loss, expected.bits_per_byte }, { row.loss, row.bits_per_byte })
  end)

  it("trains on random ids without evaluation, and draws that curve", function()
    local row = done("--data random --vocabulary 50", folder .. "/run")
    assert.are.same({ 6, nil }, { row.steps, row.loss })
    local _, errors, status = run("--plot " .. folder .. "/run/lm.jsonl")
    assert.are.equal(0, status, errors)
  end)

  it("evaluates what it began with where there is no time to train", function()
    local row = done("--seconds 0", folder .. "/run")
    assert.are.equal(0, row.steps)
    assert.near(math.log(256), row.loss, 1e-4)
  end)

  it("ends after so many seconds of training", function()
    local row = done("--steps 100000 --seconds 0.3 --warmup 5 --eval-every 100000", folder .. "/run")
    assert.is_true(row.seconds >= 0.3 and row.steps < 100000)
    assert.are.equal(row.steps, records(folder .. "/run/lm.jsonl", "validation")[1].step)
  end)

  for _, form in ipairs { "--stateful --model slstm --heads 2 --accumulate 2", "--dropout 0.1 --dtype bfloat16" } do
    it("killed at any moment, goes on to the same bits with " .. form, function()
      local arguments <const> = form .. " --steps 120 --eval-every 5 --log-every 1"
      local whole, killed = folder .. "/whole", folder .. "/killed"
      local expected = done(arguments, whole)
      local kills, pause = 0, 0.05
      while not io.open(killed .. "/lm.jsonl") do
        kills, pause = kills + 1, pause * 1.1
        assert(kills < 100, "it does not get on")
        program.run { before = ("timeout -s KILL %g"):format(pause),
                      args = ("experiments/lm.lua %s --data %s %s --out %s"):format(small, data, arguments, killed) }
      end
      local found = done(arguments, killed)
      assert.is_true(kills > 1)
      for _, name in ipairs { "steps", "loss", "parameters" } do assert.are.equal(expected[name], found[name]) end
      local function curves(out)
        local validations = records(out .. "/lm.jsonl", "validation")
        for _, record in ipairs(validations) do record.seconds = nil end
        return { validations, records(out .. "/lm.jsonl", "train") }
      end
      assert.are.same(curves(whole), curves(killed))
      local a, b = pl.load(whole .. "/checkpoint.safetensors"), pl.load(killed .. "/checkpoint.safetensors")
      a.state, b.state = nil, nil -- has the seconds
      for name, tensor in pairs(a) do assert.are.same(tensor:totable(), b[name]:totable(), name) end
    end)
  end

  -- The processes share the parts of a batch, and none has more rows at once than one process alone would.
  for world, arguments in pairs { [2] = "--accumulate 4", [3] = "--batch 12 --accumulate 4" } do
    it(("trains in %d processes as in one"):format(world), function()
      local rows, port = { done(arguments, folder .. "/one") }, free_ports(1)[1]
      local commands = {}
      for rank = 0, world - 1 do
        commands[rank + 1] = ("RANK=%d WORLD_SIZE=%d LOCAL_RANK=%d MASTER_ADDR=127.0.0.1 MASTER_PORT=%d %s "
          .. "experiments/lm.lua %s --data %s %s --out %s/two >%s/rank%d 2>&1"):format(rank, world, rank, port,
          program.path, small, data, arguments, folder, folder, rank)
      end
      os.execute(table.concat(commands, " & ") .. "; wait")
      rows[2] = records(folder .. "/two/lm.jsonl", "result")[1]
      assert.near(rows[1].loss, rows[2].loss, 1e-5, program.read(folder .. "/rank1"))
      local curves = { records(folder .. "/one/lm.jsonl", "train"), records(folder .. "/two/lm.jsonl", "train") }
      for i, record in ipairs(curves[1]) do assert.near(record.loss, curves[2][i].loss, 1e-5) end
      assert.are.equal(3, #curves[1])
      local random = pl.load(folder .. "/two/checkpoint.safetensors")["ranks.random"]:totable()
      assert.are_not.equal(random[1][1], random[2][1]) -- dropout is not the same on all ranks
    end)
  end

  it("draws from a checkpoint the same text for the same seed", function()
    done("--model slstm --tokenizer characters --stateful", folder .. "/run")
    local function drawn(arguments)
      local text, errors, status = run(("--out %s/run %s"):format(folder, arguments))
      assert(status == 0, errors)
      return text:match "^(.*)\n%-%- %d+ tokens/s, %d+ for 32 texts together\n$"
    end
    local text = drawn '--sample 40 --prompt "the "'
    assert.are.equal(44, #text)
    assert.are.equal("the ", text:sub(1, 4))
    assert.are.equal(text, drawn '--sample 40 --prompt "the "')
    assert.are_not.equal(text, drawn '--sample 40 --prompt "the " --seed 5')
    assert.are.equal(drawn "--sample 20 --temperature 0", drawn "--sample 20 --top-k 1 --seed 7")
    local speed, asked = records(folder .. "/run/sample.jsonl", "sample"), records(folder .. "/run/sample.jsonl", "run")
    assert.are.equal("tiny", asked[1].options.preset)
    assert.is_true(#speed == 1 and speed[1].tokens_per_s > 0 and speed[1].tokens_per_s_of_32 > 0)
    local checkpoint <const> = folder .. "/run/checkpoint.safetensors"
    local before = drawn "--sample 20"
    os.rename(checkpoint, folder .. "/run/checkpoint.before.safetensors") -- as while a new one is written
    assert.are.equal(before, drawn "--sample 20")
    os.rename(folder .. "/run/checkpoint.before.safetensors", folder .. "/gone")
    local _, missing = run(("--out %s/run --sample 3"):format(folder))
    assert.are.equal(("option --out: there is no checkpoint '%s' yet\n"):format(checkpoint), missing)
    os.rename(folder .. "/gone", checkpoint)
    local _, errors, status = run(('--out %s/run --sample 3 --prompt "@"'):format(folder))
    assert.are.equal(1, status)
    assert.matches("^option %-%-prompt: the character at byte 1, \"@\", is not in the vocabulary\n$", errors)
    _, errors = run(('--out %s/run --sample 3 --prompt "a\xFF"'):format(folder))
    assert.matches("^option %-%-prompt: expected UTF%-8, got byte 0xFF at 2\n$", errors)
  end)

  it("tells where the time of a step goes", function()
    for _, model in ipairs { "lstm", "transformer" } do
      local text, errors, status = run(("%s --profile --model %s --out %s/%s"):format(small, model, folder, model))
      assert(status == 0, errors)
      local sum = 0
      for _, name in ipairs { "recurrence", "products", "head", "optimizer", "rest" } do
        sum = sum + tonumber(text:match(name .. " +(%-?[%d.]+) "))
      end
      assert.near(tonumber(text:match "step +([%d.]+) +100.0 %%"), sum, 0.05)
    end
  end)

  it("needs no --warmup for a short run", function()
    local _, errors, status = run(("--width 8 --layers 2 --batch 4 --length 8 --steps 5 --data %s --out %s/run"):format(
      data, folder))
    assert.are.equal(0, status, errors)
    assert.are.equal(0, core.json_decode(program.read(folder .. "/run/run.json")).warmup)
  end)

  it("draws its curves", function()
    done("--log-every 1", folder .. "/run")
    local text, errors, status = run("--plot " .. folder .. "/run/lm.jsonl")
    assert.are.same({ folder .. "/run/lm.svg\n", 0 }, { text, status }, errors)
    assert.matches("validation", program.read(folder .. "/run/lm.svg"))
    assert.are.equal(6, #records(folder .. "/run/lm.jsonl", "train"))
    local one = program.read(folder .. "/run/lm.jsonl")
    program.write(folder .. "/two.jsonl", one .. one:gsub('"model": "lstm"', '"model": "gru"'))
    text, errors, status = run("--plot " .. folder .. "/two.jsonl")
    assert.are.same({ folder .. "/two.svg\n", 0 }, { text, status }, errors)
    local picture = program.read(folder .. "/two.svg")
    for _, label in ipairs { "lstm, train", "lstm, validation", "gru, train", "gru, validation" } do
      assert.matches(">" .. label .. "<", picture)
    end
    program.write(folder .. "/two.jsonl", one .. one:gsub('"kind": "result"', '"kind": "other"'))
    text, errors, status = run("--plot " .. folder .. "/two.jsonl")
    assert.are.same({ "", 1 }, { text, status })
    assert.matches("^option %-%-plot: run 2 of .*/two.jsonl has no result\n$", errors)
  end)

  it("refuses in one line what cannot be", function()
    program.write(folder .. "/latin1", "caf\xE9")
    program.write(folder .. "/short", TEXT:sub(1, 15))
    pl.data.write(folder .. "/letters.tokens", pl.data.characters(TEXT), TEXT)
    for arguments, expected in pairs {
      ["--model foo"] = "option %-%-model: expected one of elman, gru, lstm",
      ["--preset huge"] = "option %-%-preset: expected one of char, seed%-165m, seed%-1b, tiny",
      ["--heads 3"] = "option %-%-heads: expected a divisor of the width 128, got 3",
      ["--warmup 5 --steps 5"] = "option %-%-warmup: expected fewer than the 5 steps, got 5",
      ["--accumulate 3"] = "option %-%-accumulate: expected a divisor of the batch 16, got 3",
      ["--stateful --model transformer"] = "option %-%-stateful: a transformer has no state",
      ["--device cuda:99"] = "option %-%-device: ",
      ["--top-p 0 --sample 3"] = "option %-%-top%-p: expected a number above 0",
      ["--backend fused"] = "option %-%-backend: 'fused' runs on cuda only",
      ["--backend fused --profile"] = "option %-%-backend: 'fused' runs on cuda only",
      ["--backend vanilla --model mamba"] = "option %-%-backend: it is for recurrent cells, not for mamba",
      ["--model transformer --width 6 --heads 2"] = "option %-%-heads: a transformer's heads have an even number",
      ["--tokenizer /none.json"] = "option %-%-tokenizer: cannot open /none.json",
      ["--tokenizer bpe --vocabulary 9"] = "option %-%-vocabulary: expected at least 256, for the bytes, got 9",
      ["--data " .. folder .. "/short"] = "option %-%-data: a text of 15 tokens is too short: the last tenth",
      ["--data " .. data .. " --length 5000"] = "option %-%-data: a text of 1080 ids is too short for windows of 5000",
      ["--data /none"] = "option %-%-data: cannot open /none",
      ["--data " .. folder .. "/latin1"] = "option %-%-data: .*expected UTF%-8, got byte 0xE9 at 4",
      ["--data " .. folder .. "/x.tokens --tokenizer characters"] = "option %-%-data: .* holds ids; %-%-tokenizer must",
      ["--data " .. folder .. "/letters.tokens --tokenizer bytes"] = "option %-%-data: .* holds ids of a vocabulary of "
        .. "%d+, not of the tokenizer's 256",
      ["--sample 3"] = "option %-%-out: there is no text.json in '.*': no training was begun there",
    } do
      local _, errors, status = run(arguments .. " --out " .. folder .. "/none")
      assert.are.equal(1, status, arguments)
      assert.matches("^" .. expected, errors)
      assert.are.equal(1, select(2, errors:gsub("\n", "")), errors)
      os.execute("rm -rf " .. folder .. "/none")
    end
  end)

  it("lets another text be tried where one could not be read, and keeps what a finished run wrote", function()
    local out = folder .. "/run"
    for _, wrong in ipairs { "--data /none", "--length 5000 --data " .. data } do
      local _, _, status = run(("%s %s --out %s"):format(small, wrong, out))
      assert.are.equal(1, status)
    end
    done("", out)
    local before = program.read(out .. "/lm.jsonl")
    done("", out)
    assert.are.equal(before, program.read(out .. "/lm.jsonl"))
    local _, errors = run(("%s --data %s --lr 1 --out %s"):format(small, data, out))
    assert.matches("holds a run with %-%-lr 0.004, not %-%-lr 1", errors)
  end)

  it("does not take another tokenizer than that of the run whose text it reads", function()
    done("", folder .. "/run")
    local _, errors = run(("--tokenizer bpe --data %s/run --out %s/other"):format(folder, folder))
    assert.matches("^option %-%-tokenizer: '.*/run' is a run's folder, which has a tokenizer\n$", errors)
  end)

  it("has the same loss by both backends", function()
    local losses = {}
    for i, backend in ipairs { "reference", "vanilla" } do
      losses[i] = done(("--model slstm --heads 2 --steps 100 --backend %s"):format(backend), folder .. "/" .. i).loss
    end
    assert.near(losses[1], losses[2], 1e-3)
  end)
end)

describe("lm_table", function()
  local function table_of(arguments)
    local text, errors, status = program.run { args = ("experiments/lm_table.lua --data %s --heads 1,2 "
      .. "--steps 4 --out %s/table %s -- --width 8 --batch 4 --length 8 --warmup 2 --eval-every 2 --threads 1"):format(
      data, folder, arguments) }
    return status, text, errors
  end

  it("tabulates rows of equal budgets, and has nothing to do a second time", function()
    local status, text, errors = table_of ""
    assert.are.equal(0, status, errors)
    local rows, names = records(folder .. "/table/lm_table.jsonl", "row"), {}
    for i, row in ipairs(rows) do
      names[i] = row.name
      assert.are.same({ 4, 2, 2 }, { row.steps, #row.losses, #row.at_seconds })
      assert.are.equal(row.loss, row.losses[2])
    end
    assert.are.same({ "lstm 1 reference", "lstm 2 reference", "slstm 1 reference", "slstm 2 reference",
                      "transformer 2" }, names)
    assert.matches("lstm 1 reference +%d+ +4 +%d+%.%d +%d+ +%d+ +%d%.%d+ +%d+%.%d |", text)
    assert.matches("figure: .*lm_table.svg", text)
    local row = folder .. "/table/lstm_1_reference/lm.jsonl"
    local before = program.read(row)
    status, text = table_of ""
    assert.are.equal(0, status)
    assert.matches("transformer 2 +%d+ +4 ", text)
    assert.are.equal(before, program.read(row))
    assert.are.same(rows, records(folder .. "/table/lm_table.jsonl", "row"))
  end)

  it("refuses rows of other options beside those that are there, and takes further ones", function()
    table_of "--model lstm"
    for arguments, expected in pairs {
      ["--model lstm --seed 2"] = "holds a run with %-%-seed 1, not %-%-seed 2; take another folder",
      ["--model lstm -- --lr 1"] = "holds a run with %-%- %-%-width 8 .*, not %-%- %-%-lr 1 .*; take another folder",
    } do
      local status, _, errors = table_of(arguments)
      assert.are.equal(1, status)
      assert.matches(expected, errors)
    end
    assert.are.equal(0, (table_of "--model gru"))
    assert.are.equal(2, #records(folder .. "/table/lm_table.jsonl", "row"))
  end)

  it("refuses a model that there is not", function()
    local status, _, errors = table_of "--model lstm,foo"
    assert.are.equal(1, status)
    assert.matches("^option %-%-model: expected one of elman, gru, lstm, .*, with commas, got 'lstm,foo'\n$", errors)
  end)

  it("ends with Ctrl-C, and begins no other row", function()
    local out = folder .. "/table"
    local command = ("experiments/lm_table.lua --data %s --model lstm,gru --heads 1 --steps 1000000 --seconds 20 "
      .. "--out %s -- --width 8 --threads 1"):format(data, out)
    os.execute(("setsid %s %s >%s/log 2>&1 & log=%s/lstm_1_reference/steps.jsonl; "
      .. "for i in $(seq 300); do test -s $log && break; sleep 0.1; done; kill -INT -$!; wait $!"):format(program.path,
      command, folder, out))
    assert.matches("perilune: interrupted\n", program.read(folder .. "/log"))
    assert.is_nil((io.open(out .. "/gru_1_reference/run.json")))
  end)

  it("is of the rows that succeed, where others fail, and tells so", function()
    local status, text, errors = table_of "--model lstm --backend fused,reference"
    assert.are.equal(1, status)
    assert.matches("perilune: 2 rows failed %(lstm 1 fused, lstm 2 fused%); the table is of the others\n$", errors)
    assert.are.equal(2, #records(folder .. "/table/lm_table.jsonl", "row"))
    assert.matches("lstm 2 reference +%d+ +4 ", text)
  end)
end)
