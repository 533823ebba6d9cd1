-- Labels of S5 and A5 by moving five items about, as the symbols' text says, and by matrices.
local pl = require "perilune"
local rows = require "tests.task.rows"

-- The text of a permutation after the places of `items` were moved: what is at place p goes on to place symbol[p].
local function moved(items, symbol)
  local result = {}
  for item, place in ipairs(items) do result[item] = math.tointeger(symbol:sub(place, place)) end
  return result
end

local function matrix(symbol)
  local list = {}
  for i = 1, 5 do
    list[i] = { 0, 0, 0, 0, 0 }
    list[i][math.tointeger(symbol:sub(i, i))] = 1
  end
  return pl.tensor(list)
end

for name, order in pairs { s5 = 120, a5 = 60 } do
  describe("the word problem " .. name, function()
    local names = pl.task[name]().symbols

    it("has each permutation once, in lexicographic order", function()
      assert.are.equal(order, #names)
      for i, symbol in ipairs(names) do
        local items = {}
        for item in symbol:gmatch "%d" do items[#items + 1] = item end
        table.sort(items)
        assert.are.equal("12345", table.concat(items))
        assert.is_true(i == 1 or names[i - 1] < symbol)
      end
      assert.are.equal("12345", names[1])
    end)

    it("is labelled with the places of five items that are moved about", function()
      local count = rows(name, function(text, labels, symbols)
        local items = { 1, 2, 3, 4, 5 }
        for t, symbol in ipairs(symbols) do
          items = moved(items, symbol)
          assert(table.concat(items) == names[labels[t]], text)
        end
      end)
      assert.are.equal(2020, count)
    end)

    it("is the product of matrices, of determinant 1 for even permutations", function()
      local checked = 0
      rows(name, function(_, labels, symbols)
        if #symbols > 12 then return end
        local product = pl.eye(5)
        for _, symbol in ipairs(symbols) do product = product:matmul(matrix(symbol)) end
        assert.are.same(matrix(names[labels[#labels]]):totable(), product:totable())
        checked = checked + 1
      end)
      assert.is_true(checked > 100)
    end)
  end)
end

describe("the word problem a5", function()
  it("has the permutations that are made of cycles of odd length or of two even ones", function()
    for _, symbol in ipairs(pl.task.a5().symbols) do
      local even_cycles, seen = 0, {}
      for start = 1, 5 do
        local length, place = 0, start
        while not seen[place] do
          seen[place], length, place = true, length + 1, math.tointeger(symbol:sub(place, place))
        end
        if length > 0 and length % 2 == 0 then even_cycles = even_cycles + 1 end
      end
      assert.are.equal(0, even_cycles % 2, symbol)
    end
  end)
end)
