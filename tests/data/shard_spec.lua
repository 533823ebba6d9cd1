-- Shards and their batches.
local pl = require "perilune"
local core = require "perilune.core"
local message_of = require "message_of"

local path

local function shard_of(text, options)
  pl.data.write(path, pl.data.bytes(options), text)
  return pl.data.shard(path)
end

-- A text whose every character is at one place only.
local letters = {}
for i = 0, 199 do letters[i + 1] = string.char(i) end
local distinct <const> = table.concat(letters)

local function rows(t) return t:totable() end

describe("shards", function()
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  it("hold ids from 0 on behind a header of 64 bytes", function()
    local shard = shard_of("az", { end_of_document = true })
    assert.equal(3, shard.count)
    assert.equal(257, shard.vocabulary)
    assert.equal("uint16", shard.type)
    assert.same({ 98, 123, 257 }, shard:ids():totable())
    local file <close> = io.open(path, "rb")
    local magic, version, width, count, vocabulary, ending, _, _, _, a, z, last =
      string.unpack("<c8I4I4I8I8I8I8I8I8I2I2I2", file:read "a")
    assert.same({ "PLTOKENS", 1, 2, 3, 257, 257, 97, 122, 256 },
      { magic, version, width, count, vocabulary, ending, a, z, last })
  end)

  it("that are damaged, or ids that cannot be, are refused", function()
    shard_of "abcdef"
    local file = io.open(path, "rb")
    local whole = file:read "a"
    file:close()
    for problem, text in pairs {
      ["no token shard"] = "x", ["does not begin with PLTOKENS"] = "X" .. whole:sub(2),
      ["has 11 bytes"] = whole:sub(1, -2),
      ["version 9"] = whole:sub(1, 8) .. "\9" .. whole:sub(10),
    } do
      core.write_file(path, text)
      assert.matches(problem, message_of(pl.data.shard, path))
    end
    local bad = { vocabulary = 2, encode = function() return pl.tensor({ 1, 3 }, { dtype = "int64" }) end }
    assert.matches("expected 1..2, got 3 at 2", message_of(pl.data.write, path, bad, "x"))
  end)

  it("split into two that end where the text does", function()
    local train, validation = shard_of(distinct):split(0.1)
    assert.equal(180, train.count)
    assert.same({ 181, 182 }, validation:ids(1, 2):totable())
    assert.matches("the shard has 20", message_of(validation.ids, validation, 20, 2))
  end)

  it("give every window once an epoch, in an order of its own, that seed and step decide", function()
    local shard = shard_of(distinct)
    local batches <close> = shard:batches { rows = 3, length = 5, seed = 7 }
    assert.equal(13, batches.epoch)
    local orders = {}
    for epoch = 0, 1 do
      local seen, order, count = {}, {}, 0
      for step = 1, 13 do
        local batch = batches:batch(epoch * 13 + step)
        local x, y = rows(batch.x), rows(batch.y)
        for r = 1, 3 do
          for i = 1, 5 do
            assert.equal(x[r][i] + 1, y[r][i])
            if i > 1 then assert.equal(x[r][i - 1] + 1, x[r][i]) end
            assert.is_nil(seen[x[r][i]])
            seen[x[r][i]], count = true, count + 1
          end
          order[#order + 1] = x[r][1]
        end
      end
      assert.equal(195, count)
      orders[epoch + 1] = order
    end
    assert.not_same(orders[1], orders[2])
    local again <close> = shard:batches { rows = 3, length = 5, seed = 7 }
    for _, step in ipairs { 9, 2, 3, 26, 1 } do
      assert.same(rows(batches:batch(step).x), rows(again:batch(step).x))
    end
    local other <close> = shard:batches { rows = 3, length = 5, seed = 8 }
    assert.not_same(rows(batches:batch(1).x), rows(other:batch(1).x))
  end)

  it("give contiguous rows that read on from step to step, and begin again", function()
    local batches <close> = shard_of(distinct):batches { rows = 2, length = 33, contiguous = true }
    assert.equal(3, batches.epoch)
    for step = 1, 6 do
      local batch, at = batches:batch(step), (step - 1) % 3 * 33
      assert.equal(at == 0, batch.first)
      local x, y = rows(batch.x), rows(batch.y)
      for r = 1, 2 do
        assert.equal(100 * (r - 1) + at + 1, x[r][1])
        assert.equal(x[r][33] + 1, y[r][33])
      end
    end
  end)

  it("of several ranks are the rows of the same batch, in turn", function()
    local shard = shard_of(distinct)
    for _, contiguous in ipairs { false, true } do
      local options = { rows = 8, length = 7, seed = 3, contiguous = contiguous }
      local whole <close> = shard:batches(options)
      for _, world in ipairs { 1, 2, 4, 8 } do
        local together = {}
        for rank = 0, world - 1 do
          options.rank, options.world = rank, world
          local own <close> = shard:batches(options)
          assert.equal(whole.epoch, own.epoch)
          for step = 1, 2 * whole.epoch + 1 do
            together[step] = together[step] or { x = {}, y = {} }
            local batch = own:batch(step)
            assert.same({ 8 // world, 7 }, batch.x.shape)
            assert.equal(contiguous and (step - 1) % whole.epoch == 0, batch.first)
            for name, list in pairs(together[step]) do table.move(rows(batch[name]), 1, 8 // world, #list + 1, list) end
          end
        end
        for step, batch in ipairs(together) do
          local expected = whole:batch(step)
          assert.same({ x = rows(expected.x), y = rows(expected.y) }, batch)
        end
      end
    end
    for problem, options in pairs {
      ["rank: expected 0%.%.1, got 2"] = { rank = 2, world = 2 },
      ["rank: expected an integer of at least 0, got %-1"] = { rank = -1 },
      ["rows: expected a multiple of world, 3, got 32"] = { world = 3 },
      ["world: expected an integer of at least 1, got 0"] = { world = 0 },
    } do
      assert.matches(problem, message_of(shard.batches, shard, options))
    end
  end)

  it("leave out labels behind a document's end where asked", function()
    local documents = { { text = "abc" }, { text = "defgh" } }
    local shard = shard_of(documents, { end_of_document = true })
    local batches <close> = shard:batches { rows = 1, length = 9, contiguous = true, separate_documents = true }
    assert.same({ 99, 100, 257, 0, 0, 0, 0, 0, 0 }, rows(batches:batch(1).y)[1])
  end)

  it("too short for a window say so", function()
    local shard = shard_of "abc"
    assert.matches("3 ids is too short for windows of 3", message_of(shard.batches, shard, { rows = 1, length = 3 }))
    assert.matches("no end of document", message_of(shard.batches, shard, { separate_documents = true }))
  end)
end)
