-- The parity task: labels recomputed from the bits, reproducible batches, accuracy.
local pl = require "perilune"
local buffers = require("tests.tensor.check").buffers
local message_of = require "tests.message_of"

local function bits_of(batch)
  local rows = {}
  for i, row in ipairs(batch.x:totable()) do
    rows[i] = {}
    for t, pair in ipairs(row) do
      assert(pair[1] + pair[2] == 1 and pair[1] * pair[2] == 0, "x is one-hot")
      rows[i][t] = pair[2]
    end
  end
  return rows
end

describe("task.parity", function()
  it("labels every position with the parity so far", function()
    local batch = pl.task.parity { size = 8, seed = 4 }:batch(7)
    local bits, labels, ones = bits_of(batch), batch.y:totable(), 0
    assert.are.equal("int64", batch.y.dtype)
    for i, row in ipairs(bits) do
      local odd = 0
      for t, bit in ipairs(row) do
        odd, ones = (odd + bit) % 2, ones + bit
        assert.are.equal(odd + 1, labels[i][t])
      end
      assert.are.equal(#row, batch.lengths:totable()[i])
    end
    local count = 8 * #bits[1]
    assert.is_true(ones > 0 and ones < count)
  end)

  it("draws fair bits", function()
    local ones, count = 0, 0
    local task = pl.task.parity { seed = 11, min = 40, max = 40 }
    for step = 1, 10 do
      for _, row in ipairs(bits_of(task:batch(step))) do
        for _, bit in ipairs(row) do ones, count = ones + bit, count + 1 end
      end
    end
    assert.is_true(math.abs(ones / count - 0.5) < 4 * 0.5 / math.sqrt(count))
  end)

  it("labels the last position, and zeroes labels beyond a row's length", function()
    local last = pl.task.parity { size = 16, labels = "last", ragged = true, seed = 2 }:batch(1)
    local every = pl.task.parity { size = 16, ragged = true, seed = 2 }:batch(1)
    local lengths, y = last.lengths:totable(), last.y:totable()
    assert.are.same(lengths, every.lengths:totable())
    local different = false
    for i, row in ipairs(bits_of(last)) do
      local odd = 0
      for t = 1, lengths[i] do odd = (odd + row[t]) % 2 end
      assert.are.equal(odd + 1, y[i])
      assert.are.equal(y[i], every.y:totable()[i][lengths[i]])
      for t = lengths[i] + 1, #row do assert.are.equal(0, every.y:totable()[i][t]) end
      different = different or lengths[i] ~= lengths[1]
    end
    assert.is_true(different)
  end)

  it("gives the same batch for the same seed and step, whatever happened before", function()
    local a, b = pl.task.parity { seed = 5 }, pl.task.parity { seed = 5 }
    b:batch(1)
    pl.randn { 10 }
    assert.are.same(a:batch(3).x:totable(), b:batch(3).x:totable())
    assert.are_not.same(a:batch(3).x:totable(), a:batch(4).x:totable())
    local other = pl.task.parity { seed = 6, min = 40, max = 40 }
    local same_length = pl.task.parity { seed = 5, min = 40, max = 40 }
    assert.are_not.same(same_length:batch(3).x:totable(), other:batch(3).x:totable())
    assert.are.same(a:sequences(9, 4).x:totable(), b:sequences(9, 4, 1).x:totable())
    assert.are_not.same(a:sequences(9, 4).x:totable(), a:sequences(9, 4, 2).x:totable())
  end)

  it("keeps to the lengths and the curriculum", function()
    local task = pl.task.parity { size = 2, min = 3, max = 9 }
    local seen = {}
    for step = 1, 200 do
      local length = task:batch(step).x.shape[2]
      assert.is_true(length >= 3 and length <= 9)
      seen[length] = true
    end
    for length = 3, 9 do assert.is_true(seen[length]) end
    task = pl.task.parity { size = 1, min = 2, max = 40, curriculum = { start = 2, every = 50 } }
    for step = 1, 49 do assert.are.equal(2, task:batch(step).x.shape[2]) end
    for step = 50, 99 do assert.is_true(task:batch(step).x.shape[2] <= 3) end
  end)

  it("measures accuracy", function()
    local task = pl.task.parity { seed = 9 }
    local function oracle(x)
      local odd = pl.remainder(x:select(3, 2):cumsum(2), 2)
      return pl.stack({ 1 - odd, odd }, 3)
    end
    assert.are.same({ 1, 1 }, { task:accuracy(oracle, 20, 32) })
    local last, every = task:accuracy(function(x) return oracle(x) * -1 end, 20, 32)
    assert.are.same({ 0, 0 }, { last, every })
    last, every = task:accuracy(function(x) return x end, 30, 256)
    assert.is_true(math.abs(last - 0.5) < 0.15 and every < 0.6)
    local labels_last = pl.task.parity { seed = 9, labels = "last" }
    assert.are.equal(1, (labels_last:accuracy(function(x) return oracle(x):select(2, x.shape[2]) end, 20, 32)))
  end)

  it("evaluates without leaving buffers", function()
    local task = pl.task.parity {}
    task:accuracy(function(x) return x end, 10)
    local before = buffers()
    for _ = 1, 5 do task:accuracy(function(x) return x end, 10) end
    assert.are.equal(before, buffers())
  end)

  it("names what is wrong", function()
    assert.matches("max: expected an integer of at least 3, got 2", message_of(pl.task.parity, { max = 2 }))
    assert.matches("labels: expected one of every, last, got 'first'",
      message_of(pl.task.parity, { labels = "first" }))
    assert.matches("unknown option 'length'", message_of(pl.task.parity, { length = 2 }))
    assert.matches("curriculum.every: expected", message_of(pl.task.parity, { curriculum = { start = 2 } }))
  end)
end)
