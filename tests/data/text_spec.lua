-- Reading text, and tokens of bytes and characters.
local pl = require "perilune"
local core = require "perilune.core"
local new_folder = require "new_folder"
local message_of = require "message_of"

describe("data.read", function()
  it("reads a folder in the order of names, and names what is no UTF-8", function()
    local folder = new_folder()
    os.execute("mkdir " .. folder .. "/b")
    core.write_file(folder .. "/c", "third")
    core.write_file(folder .. "/a", "first")
    core.write_file(folder .. "/b/x", "sécond")
    core.write_file(folder .. "/.hidden", "\xff")
    local texts = {}
    for i, document in ipairs(pl.data.read(folder)) do texts[i] = document.text end
    assert.same({ "first", "sécond", "third" }, texts)
    assert.equal("third", pl.data.read(folder .. "/c")[1].text)
    core.write_file(folder .. "/c", "ab\xffd")
    assert.matches("/c': expected UTF%-8, got byte 0xFF at 3", message_of(pl.data.read, folder))
    assert.matches("cannot open", message_of(pl.data.read, folder .. "/none"))
    os.execute("rm -r " .. folder)
  end)

  it("splits a text between characters", function()
    local train, validation = pl.data.split("abcdefghé", 0.1)
    assert.equal("abcdefghé", train .. validation)
    assert.is_truthy(utf8.len(train))
  end)
end)

describe("tokens", function()
  it("of bytes come back, whatever they are", function()
    local all = {}
    for b = 0, 255 do all[b + 1] = string.char(b) end
    local text = table.concat(all):rep(600)
    local tokenizer = pl.data.bytes()
    local ids = tokenizer:encode(text)
    assert.equal("int64", ids.dtype)
    assert.same({ #text }, ids.shape)
    assert.equal(98, tokenizer:encode("a"):item())
    assert.is_true(tokenizer:decode(ids) == text)
    assert.same({ 0 }, tokenizer:encode("").shape)
    assert.equal(257, pl.data.bytes({ end_of_document = true }).end_of_document)
  end)

  it("of characters come in the order of code points, and others are refused", function()
    local tokenizer = pl.data.characters "ébab"
    assert.equal(3, tokenizer.vocabulary)
    assert.same({ 2, 1, 3 }, tokenizer:encode("baé"):totable())
    assert.equal("éa", tokenizer:decode { 3, 1 })
    assert.matches("at byte 2, \"x\"", message_of(tokenizer.encode, tokenizer, "ax"))
    assert.matches("expected 1..3, got 4", message_of(tokenizer.decode, tokenizer, { 4 }))
  end)
end)
