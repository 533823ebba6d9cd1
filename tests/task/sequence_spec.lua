-- What all tasks share: forms of batches, reproducibility, classes and chance.
local pl = require "perilune"
local message_of = require "tests.message_of"

local names = {}
for name in pairs(pl.task) do names[#names + 1] = name end
table.sort(names)

-- The greatest and the least share of a label at the last position of sequences of a length and its neighbour.
local function shares_of(task, length)
  local most, least = 0, 1
  for _, steps in ipairs { length, length + 1 } do
    local counts = {}
    for class = 1, task.classes do counts[class] = 0 end
    for _, labels in ipairs(task:sequences(steps, 3000).y:reshape({ -1, steps }):totable()) do
      counts[labels[steps]] = counts[labels[steps]] + 1
    end
    for _, count in ipairs(counts) do most, least = math.max(most, count / 3000), math.min(least, count / 3000) end
  end
  return most, least
end

describe("every task", function()
  it("is here", function()
    assert.are.same({ "a5", "aa_star", "cycle_navigation", "dyck1", "dyck2", "even_pairs", "flip_flop",
      "modular_arithmetic", "modular_arithmetic_brackets", "parity", "s5" }, names)
  end)

  for _, name in ipairs(names) do
    it("gives symbols as numbers and one-hot: " .. name, function()
      local ids = pl.task[name] { size = 5, seed = 3, inputs = "ids" }
      local one_hot = pl.task[name] { size = 5, seed = 3 }
      local a, b = ids:batch(9), one_hot:batch(9)
      assert.are.equal("int64", a.x.dtype)
      assert.are.equal("float32", b.x.dtype)
      assert.are.equal(#ids.symbols, ids.vocabulary)
      assert.are.same({ 5, a.x.shape[2], ids.vocabulary }, b.x.shape)
      assert.are.same(a.x:totable(), b.x:argmax(-1):totable())
      assert.are.same(a.y:totable(), b.y:totable())
      assert.is_true(a.y:min():item() >= 1 and a.y:max():item() <= ids.classes)
    end)

    it("labels the last position as it labels all of them: " .. name, function()
      local given = { size = 20, ragged = true, seed = 8, min = 1, max = 12 }
      local every = pl.task[name](given):batch(2)
      given.labels = "last"
      local last = pl.task[name](given):batch(2)
      assert.are.same(every.x:totable(), last.x:totable())
      local y, lengths, different = every.y:totable(), last.lengths:totable(), false
      for i, label in ipairs(last.y:totable()) do
        assert.are.equal(y[i][lengths[i]], label)
        for t = 1, #y[i] do assert.are.equal(t > lengths[i], y[i][t] == 0) end
        different = different or lengths[i] ~= lengths[1]
      end
      assert.is_true(different)
    end)

    it("gives the same for the same seed, step and set: " .. name, function()
      local given = { size = 30, min = 20, max = 20, seed = 5 }
      local a, b = pl.task[name](given), pl.task[name](given)
      b:batch(1)
      assert.are.same(a:batch(3).x:totable(), b:batch(3).x:totable())
      assert.are_not.same(a:batch(3).x:totable(), a:batch(4).x:totable())
      assert.are.same(a:sequences(9, 30).x:totable(), b:sequences(9, 30, 1).x:totable())
      assert.are_not.same(a:sequences(9, 30).x:totable(), a:sequences(9, 30, 2).x:totable())
      given.seed = 6
      assert.are_not.same(a:batch(3).x:totable(), pl.task[name](given):batch(3).x:totable())
    end)

    it("knows the share of its most frequent label: " .. name, function()
      local task = pl.task[name] { inputs = "ids" }
      local most, least = shares_of(task, 60)
      local error_of_shares = 5 * math.sqrt(task.chance / 3000)
      assert.is_true(math.abs(most - task.chance) < error_of_shares, ("%g for %g"):format(most, task.chance))
      if task.chance == 1 / task.classes then
        assert.is_true(math.abs(least - task.chance) < error_of_shares, ("%g for %g"):format(least, task.chance))
      end
      assert.are.equal(0, task:scaled(task.chance))
      assert.are.equal(1, task:scaled(1))
    end)
  end

  it("measures accuracy from numbers of symbols", function()
    local task = pl.task.s5 { inputs = "ids" }
    local last, every = task:accuracy(function(ids) return pl.one_hot(ids, 120) end, 1, 200)
    assert.are.same({ 1, 1 }, { last, every })
    last = task:accuracy(function(ids) return pl.one_hot(ids, 120) end, 2, 200)
    assert.is_true(last < 0.1)
  end)

  it("says what is wrong with an option", function()
    assert.matches("task.s5: inputs: expected one of one_hot, ids, got 'id'", message_of(pl.task.s5, { inputs = "id" }))
    assert.matches("task.dyck1: step: expected an integer of at least 1, got 0", message_of(function()
      return pl.task.dyck1():batch(0)
    end))
  end)
end)
