-- Tokenizers from GPT-2's files and from tokenizer.json.
local pl = require "perilune"
local core = require "perilune.core"
local message_of = require "message_of"
local new_folder = require "new_folder"

-- Bytes as GPT-2's files write them: published facts are that a blank is U+0120 and a line's end U+010A.
local function written(bytes)
  local text = {}
  for b in bytes:gmatch "." do
    local c, below = b:byte(), 0
    local function visible(n) return n >= 33 and n <= 126 or n >= 161 and n <= 172 or n >= 174 end
    for n = 0, c - 1 do below = below + (visible(n) and 0 or 1) end
    text[#text + 1] = utf8.char(visible(c) and c or 256 + below)
  end
  return table.concat(text)
end

describe("load_bpe", function()
  local text = ("the cat sat on the mat\n the été "):rep(5)
  local trained, folder = pl.data.train_bpe(text, 280), nil
  local vocabulary, merges = {}, {}
  for id, piece in ipairs(trained.pieces) do vocabulary[written(piece)] = id - 1 end
  local flat = core.bpe_train(text, 24)
  for i = 1, #flat, 3 do
    merges[#merges + 1] = written(trained.pieces[flat[i] + 1]) .. " " .. written(trained.pieces[flat[i + 1] + 1])
  end

  before_each(function() folder = new_folder() end)
  after_each(function() os.execute("rm -r " .. folder) end)

  local function file_of(changes)
    local file = {
      model = { type = "BPE", vocab = vocabulary, merges = merges }, pre_tokenizer = { type = "ByteLevel" },
      decoder = { type = "ByteLevel" }, added_tokens = { { id = trained.vocabulary, content = "<|endoftext|>" } },
    }
    for name, value in pairs(changes or {}) do file[name] = value end
    core.write_file(folder .. "/tokenizer.json", core.json_encode(file))
    return folder .. "/tokenizer.json"
  end

  it("knows how bytes are written", function()
    assert.equal("Ġ", written " ")
    assert.equal("Ċ", written "\n")
  end)

  it("gives what was trained", function()
    local loaded = pl.data.load_bpe(file_of())
    assert.same(trained:encode(text):totable(), loaded:encode(text):totable())
    assert.equal(text, loaded:decode(loaded:encode(text)))
    assert.same({ trained.vocabulary + 1, trained.vocabulary + 1 }, { loaded.vocabulary, loaded.end_of_document })
    core.write_file(folder .. "/vocab.json", core.json_encode(vocabulary))
    core.write_file(folder .. "/merges.txt", "#version: 0.2\n" .. table.concat(merges, "\n") .. "\n")
    local old = pl.data.load_bpe(folder .. "/vocab.json", folder .. "/merges.txt")
    assert.same(trained:encode(text):totable(), old:encode(text):totable())
  end)

  it("names what is not supported", function()
    for problem, changes in pairs {
      ["a model other than BPE is not supported, got 'Unigram'"] = { model = { type = "Unigram" } },
      ["a normalizer is not supported, got 'NFC'"] = { normalizer = { type = "NFC" } },
      ["a pre_tokenizer other than ByteLevel is not supported, got 'Metaspace'"] =
        { pre_tokenizer = { type = "Metaspace" } },
    } do
      local message = message_of(pl.data.load_bpe, file_of(changes))
      assert.is_truthy(message:find(problem, 1, true), message)
    end
  end)
end)
