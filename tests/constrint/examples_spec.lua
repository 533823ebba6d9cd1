-- constrint at work, away from recurrent networks: the examples that its documentation names.
local constrint = require "perilune.constrint"
local eq, ne, le, ge, lt, divides = constrint.eq, constrint.ne, constrint.le, constrint.ge, constrint.lt,
  constrint.divides

describe("an example of constrint:", function()
  -- Each letter is a digit, no two the same, and SEND + MORE = MONEY.
  it("a puzzle of letters", function()
    local problem = constrint.problem()
    local letters, digit = { "S", "E", "N", "D", "M", "O", "R", "Y" }, {}
    for _, letter in ipairs(letters) do digit[letter] = problem:integer(letter, 0, 9) end

    local function number(word)
      local value = 0
      for letter in word:gmatch "." do value = 10 * value + digit[letter] end
      return value
    end
    problem:require("the sum is right", eq(number "SEND" + number "MORE", number "MONEY"))
    problem:require("S begins with no 0", ne(digit.S, 0))
    problem:require("M begins with no 0", ne(digit.M, 0))
    for i = 1, #letters do
      for j = i + 1, #letters do
        local a, b = letters[i], letters[j]
        problem:require(a .. " and " .. b .. " differ", ne(digit[a], digit[b]))
      end
    end

    local solutions = problem:all()
    assert.are.same({ { S = 9, E = 5, N = 6, D = 7, M = 1, O = 0, R = 8, Y = 2 } }, solutions)
    assert.are.equal("the sum is right", problem:explain("M", 2)[1])
    assert.are.equal("M begins with no 0", problem:explain("M", 0)[1])
  end)

  -- Change gears of a lathe. Its leadscrew has 8 threads per inch; a thread of 1.75 mm is to be cut. The pitch cut is
  -- 25.4/8 mm * a/b * c/d, with gears a to d of the set, each there once. An inch is 127/5 mm: it takes the gear of 127
  -- teeth, as `conflict` finds out.
  it("change gears", function()
    local set = { 20, 24, 28, 30, 35, 40, 45, 48, 50, 55, 60, 70, 80, 100, 127 }
    local problem = constrint.problem()
    local a, b = problem:integer("a", set), problem:integer("b", set)
    local c, d = problem:integer("c", set), problem:integer("d", set)
    -- 25.4/8 * a/b * c/d = 175/100, without fractions.
    problem:require("the pitch is 1.75 mm", eq(254 * 100 * a * c, 80 * 175 * b * d))
    for _, pair in ipairs { { a, b }, { a, c }, { a, d }, { b, c }, { b, d }, { c, d } } do
      problem:require("every gear is there once", ne(pair[1], pair[2]))
    end
    problem:require("b clears the shaft of c", ge(a + b, c + 15))
    problem:require("c clears the shaft of b", ge(c + d, b + 15))

    local gears, teeth = problem:best { cost = a + b + c + d }
    assert.are.equal(254 * 100 * gears.a * gears.c, 80 * 175 * gears.b * gears.d)
    assert.are.equal(gears.a + gears.b + gears.c + gears.d, teeth)
    assert.is_true(gears.b == 127 or gears.d == 127)

    problem:require("the large gear is lost", constrint.none { eq(b, 127), eq(d, 127) })
    assert.are.same({ "the pitch is 1.75 mm", "the large gear is lost" },
      table.move(problem:conflict(), 1, 2, 1, {}))
  end)

  -- Shelves of equal length are cut from planks of 240 cm, the saw taking 1 cm, and stand one above the other in a
  -- frame. Its height must be whole bricks of 6 cm, and books of 28 cm must fit between two shelves of 2 cm.
  it("shelves from planks", function()
    local problem = constrint.problem()
    local length = problem:integer("length", 40, 120)
    local shelves = problem:integer("shelves", 2, 8)
    local gap = problem:integer("gap", 20, 40)
    local height = shelves * 2 + (shelves - 1) * gap
    local per_plank = (240 + 1) // (length + 1)
    local planks = constrint.ceil_div(shelves, per_plank)
    problem:require("the frame is whole bricks", divides(6, height))
    problem:require("books fit", ge(gap, 28))
    problem:require("it stands under the ceiling", le(height, 220))
    problem:require("there is room for 4.5 m of books", ge((shelves - 1) * length, 450))
    problem:require("long shelves need a third support, and there are only short ones",
      constrint.implies(lt(90, length), le(shelves, 4)))

    local best, cost = problem:best {
      cost = 1000 * planks + height, -- few planks first, then a low frame
      order = { "shelves", "gap", "length" }, values = { length = "descending" },
    }
    assert.are.same({ length = 90, shelves = 6, gap = 30 }, best)
    assert.are.equal(3000 + 6 * 2 + 5 * 30, cost)
    assert.are.same({}, problem:broken(best))
    assert.are.same({ "the frame is whole bricks", "it stands under the ceiling" },
      problem:broken { length = 80, shelves = 8, gap = 30 })
  end)
end)
