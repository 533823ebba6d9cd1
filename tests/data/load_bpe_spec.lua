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

  it("names what a file lacks", function()
    local with = {}
    for token, id in pairs(vocabulary) do with[token] = id end
    with.qth = trained.vocabulary -- there is no "qt" of which a merge could make it
    for problem, model in pairs {
      ["merge 1 is of tokens that are not in the vocabulary"] =
        { type = "BPE", vocab = vocabulary, merges = { "q q" } },
      ["merge 2 is of tokens that are not in the vocabulary"] =
        { type = "BPE", vocab = with, merges = { merges[1], "qt h" } },
      ["the model has no merges"] = { type = "BPE", vocab = vocabulary },
      ["the model has no vocab"] = { type = "BPE", merges = merges },
    } do
      local message = message_of(pl.data.load_bpe, file_of { model = model, added_tokens = {} })
      assert.is_truthy(message:find(problem, 1, true), message)
    end
  end)

  it("gives back what was saved", function()
    local path = folder .. "/saved.json"
    math.randomseed(7)
    local bytes = {}
    for i = 1, 3000 do bytes[i] = string.char(math.random(0, 255)) end
    local texts = { text, "I'll go  été42 --ok\n\n x<|endoftext|>", table.concat(bytes), "" }
    for _, ending in ipairs { true, false } do
      for _, size in ipairs { 256, 300, 700 } do
        local made = pl.data.train_bpe(text .. table.concat(bytes):rep(2), size, { end_of_document = ending })
        made:save(path)
        local loaded = pl.data.load_bpe(path)
        assert.same(made.pieces, loaded.pieces)
        assert.same({ made.vocabulary, made.end_of_document }, { loaded.vocabulary, loaded.end_of_document })
        for _, given in ipairs(texts) do
          assert.same(made:encode(given):totable(), loaded:encode(given):totable())
        end
      end
    end
  end)

  it("has an end of document that is no text", function()
    local loaded = pl.data.load_bpe(file_of())
    assert.equal("the", loaded:decode { loaded:encode("the"):totable()[1], loaded.end_of_document })
  end)

  it("saves whole files of trained tokenizers only", function()
    assert.matches("save: only tokenizers of data.train_bpe", message_of(pl.data.bytes().save, pl.data.bytes(), "x"))
    assert.matches("save: path: expected a string, got nothing", message_of(trained.save, trained))
    trained:save(folder .. "/a.json")
    local file <close> = io.open(folder .. "/a.json")
    local before = file:read "a"
    local path = folder .. "/none/a.json"
    assert.is_truthy(message_of(trained.save, trained, path):find(path, 1, true))
    pl.data.train_bpe(text, 260):save(folder .. "/a.json") -- renamed into its place: the old file is as it was
    file:seek "set"
    assert.equal(before, file:read "a")
    assert.equal(260, pl.data.load_bpe(folder .. "/a.json").vocabulary)
  end)
end)
