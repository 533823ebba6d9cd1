-- constrint: what rules find, limits of values and work, options, errors.
local constrint = require "perilune.constrint"
local message_of = require "message_of"
local any, divides, eq, ge, gt, implies, le, lt, ne, no = constrint.any, constrint.divides, constrint.eq, constrint.ge,
  constrint.gt, constrint.implies, constrint.le, constrint.lt, constrint.ne, constrint.no

local function line() return debug.getinfo(2, "l").currentline end

describe("constrint's rules", function()
  it("bring bounds in line with divisors", function()
    local problem = constrint.problem()
    problem:require("whole tiles", divides(16, problem:integer("x", 3, 100)))
    problem:require("whole tiles, too", divides(16, problem:integer("far", -5000, 5000)))
    local domains = problem:domains()
    assert.are.same({ least = 16, most = 96, step = 1, values = { 16, 32, 48, 64, 80, 96 } }, domains.x)
    assert.are.same({ least = -4992, most = 4992, step = 16 }, domains.far)
  end)

  it("know the divisors of products and sums", function()
    local problem = constrint.problem()
    local x, y, z = problem:integer("x", 1, 10000), problem:integer("y", 1, 10000), problem:integer("z", 1, 100000)
    problem:require("eights", divides(8, x))
    problem:require("threes", divides(3, y))
    problem:require("z", eq(z, 4 * x * y + 6 * y))
    assert.are.equal(6, problem:domains().z.step)
    problem:require("it all divides", divides(x * y, 960))
    local domains = problem:domains()
    assert.are.same({ 8, 320 }, { domains.x.least, domains.x.most })
    assert.are.same({ 3, 120 }, { domains.y.least, domains.y.most })
  end)

  it("know powers", function()
    local problem = constrint.problem()
    local k, x, y = problem:integer("k", 0, 40), problem:integer("x", -2000, 2000), problem:integer("y", 2, 300)
    problem:require("a power of two", eq(2 ^ k, 16 * x))
    problem:require("a cube", le(y ^ 3, 1000))
    local domains = problem:domains()
    assert.are.same({ 4, 14 }, { domains.k.least, domains.k.most })
    assert.are.same({ 1, 1024 }, { domains.x.least, domains.x.most })
    assert.are.equal(10, domains.y.most)
  end)

  it("apply what is said of one variable to each of its values", function()
    local problem = constrint.problem()
    local x = problem:integer("x", { 60, 5, 12, 7, 20, 30, 30 })
    problem:require("one more than a multiple of 3, or a divisor of 60", any { eq(x % 3, 1), divides(x, 60) })
    problem:require("not 20", ne(x, 20))
    assert.are.same({ 5, 7, 12, 30, 60 }, problem:domains().x.values)
  end)

  it("stop where they would take turns for ever", function()
    local problem = constrint.problem()
    local far <const> = 1000000000
    local x, y = problem:integer("x", -far, far), problem:integer("y", -far, far)
    problem:require("less", lt(x, y))
    problem:require("more", any { lt(y, x), eq(x, 7) })
    local found = problem:first { order = { "x" }, values = { x = { 8, 7 }, y = "descending" } }
    assert.are.same({ x = 7, y = far }, found)
    problem:require("more, indeed", lt(y, x))
    local none, message = problem:first { nodes = 50 }
    assert.is_nil(none)
    assert.are.equal("stopped after trying 50 values (option 'nodes'), without a solution", message)
  end)
end)

describe("constrint's values", function()
  it("beyond 2^60 are refused, with the expression that reaches them", function()
    local problem = constrint.problem()
    local x, y, z = problem:integer("x", 1, 1 << 40), problem:integer("y", 1, 1 << 40), problem:integer("z", 0, 9)
    problem:require("the area", ge(x * y, 5))
    local message, here = message_of(function() problem:first() end), line()
    assert.matches("^tests/constrint/solve_spec.lua:" .. here .. ": first: the area: 'x %* y' can reach 1.21e%+24",
      message)
    assert.matches("narrow its variables' ranges", message)
    -- Other constraints may narrow them, wherever they stand.
    problem:require("x is small", le(x, 1000))
    assert.are.same({ x = 1, y = 5, z = 0 }, (problem:first()))
    message = message_of(function() problem:best { cost = x * y ^ 2 } end)
    assert.matches("best: option 'cost': 'y^2' can reach", message, 1, true)
    problem:require("a sum", ge((1 << 58) * z + (1 << 50) * y, 0))
    assert.matches("a sum: ", message_of(function() problem:all() end), 1, true)
  end)

  it("wrap around nowhere", function()
    local half = 1 << 29
    local problem = constrint.problem()
    local x, y = problem:integer("x", half - 2, half), problem:integer("y", -half, 2 - half)
    problem:require("far apart", le(x * y, -half * half))
    assert.are.same({ { x = half, y = -half } }, problem:all())
    assert.matches("constants 2 %* 1152921504606846976 are beyond 2^60",
      message_of(function() return 2 * ((1 << 60) * x) end))
    assert.matches("beyond 2^60", message_of(function() return x + math.maxinteger end), 1, true)
    assert.matches("beyond 2^60", message_of(function() problem:integer("far", 0, math.maxinteger) end), 1, true)
    -- A difference of extremes, a power, and the values of one variable.
    local whole = constrint.problem()
    local a, b = whole:integer("a", -(1 << 60), 1 << 60), whole:integer("b", 1, 900)
    whole:require("far", ge(a - b, 0))
    assert.matches("'a - b' can reach", message_of(function() whole:first() end), 1, true)
    whole = constrint.problem()
    whole:require("large", ge(whole:integer("c", 1, 900) ^ 7, 0))
    assert.matches("'c^7' can reach", message_of(function() whole:first() end), 1, true)
    assert.matches("'c^7' can reach", message_of(function() whole:broken { c = 900 } end), 1, true)
    assert.are.same({}, whole:broken { c = 300 })
  end)

  it("have no divisor 0", function()
    local problem = constrint.problem()
    local x, y = problem:integer("x", 0, 9), problem:integer("y", 0, 9)
    problem:require("a share", eq(x // y, 2))
    assert.matches("a share: the divisor of 'x // y' can be 0", message_of(function() problem:first() end), 1, true)
    problem:require("someone is there", gt(y, 0))
    assert.are.same({ x = 2, y = 1 }, problem:first())
    assert.matches("operand 2 of %: expected a divisor other than 0, got the number 0",
      message_of(function() return x % 0 end), 1, true)
  end)
end)

describe("constrint's search", function()
  local function queens(size)
    local problem, column = constrint.problem(), {}
    for row = 1, size do column[row] = problem:integer("q" .. row, 1, size) end
    for i = 1, size do
      for j = i + 1, size do
        problem:require("columns", ne(column[i], column[j]))
        problem:require("diagonals", ne(column[i] - column[j], j - i), "diagonals")
        problem:require("other diagonals", ne(column[i] - column[j], i - j), "diagonals")
      end
    end
    return problem
  end

  it("finds the 92 ways of 8 queens, and 8! without the diagonals", function()
    assert.are.equal(92, #queens(8):all())
    assert.are.equal(40320, #queens(8):all { without = { "diagonals" } })
  end)

  it("is the same every time", function()
    local problem = queens(8)
    local first, nodes = problem:all(), problem.nodes
    assert.are.same(first, queens(8):all())
    assert.are.equal(nodes, problem.nodes)
    assert.are.same(first, problem:all())
  end)

  it("says when it stops early", function()
    local problem = queens(8)
    local found, message = problem:all { nodes = 200 }
    assert.is_true(#found > 0 and #found < 92)
    assert.are.equal(("stopped after trying 200 values (option 'nodes'), with %d solutions"):format(#found), message)
    assert.are.equal(200, problem.nodes)
    local none, why = problem:first { nodes = 3 }
    assert.is_nil(none)
    assert.are.equal("stopped after trying 3 values (option 'nodes'), without a solution", why)
    local best, cost, early = problem:best { nodes = 300, cost = function(at) return at.q8 end }
    assert.are.equal(cost, best.q8)
    assert.are.equal("stopped after trying 300 values (option 'nodes'), so there may be a better solution", early)
    assert.matches("conflict: stopped after trying 2 values",
      message_of(function() queens(3):conflict { nodes = 2 } end))
  end)

  it("tells what is wrong with three queens, and why a value is excluded", function()
    local conflict = queens(3):conflict()
    assert.is_true(conflict.excluded)
    assert.matches("^every solution is excluded by\n  %- ", tostring(conflict))
    local problem = queens(4)
    assert.is_true(problem:explain("q1", 1).excluded)
    assert.are.equal("q1 = 2 is not excluded", tostring(problem:explain("q1", 2)))
    assert.are.equal("q1 = 5 is excluded by\n  - q1 is in 1..4", tostring(problem:explain("q1", 5)))
    assert.are.equal("every solution is not excluded", tostring(problem:conflict()))
    assert.is_true(problem:explain("q2", 4, { given = { q1 = 1 } }).excluded)
  end)
end)

describe("constrint complains at the caller's line of", function()
  local problem = constrint.problem()
  local x, y = problem:integer("x", 1, 9), problem:integer("y", { 1, 2 })
  local stranger = constrint.problem():integer("z", 1, 9)

  local function refused(expected, f)
    local message = message_of(f)
    local place = ("tests/constrint/solve_spec.lua:%d: "):format(debug.getinfo(f, "S").linedefined)
    assert.are.equal(place .. expected, message)
  end

  it("comparisons that Lua makes", function()
    refused("'<' does not work on expressions; use constrint.lt(a, b), or constrint.gt(a, b) for '>'",
      function() return x < y end)
    refused("'<=' does not work on expressions; use constrint.le(a, b), or constrint.ge(a, b) for '>='",
      function() return x <= 3 end)
    refused("'==' does not work on expressions; use constrint.eq(a, b), or constrint.ne(a, b) for '~='",
      function() return x == y end)
    refused("require: argument 2: expected a constraint (== and ~= make none; write constrint.eq or ne), got false",
      function() problem:require("three", x == 3) end)
    refused("any: constraint 2 of the list: expected a constraint (== and ~= make none; write constrint.eq or ne), "
      .. "got false", function() local _ = any { lt(x, 2), x == 3 } end)
    refused("'/' does not work on expressions; use a // b, constrint.ceil_div(a, b), or constrint.divides(b, a)",
      function() return x / 2 end)
    refused("constraints are no numbers; use constrint.when(c, 1, 0)", function() return lt(x, 2) + 1 end)
  end)

  it("wrong operands", function()
    refused('operand 2 of +: expected an expression or an integer, got the string "a"', function() return x + "a" end)
    refused("operand 1 of *: expected an expression or an integer, got the number 0.5", function() return 0.5 * x end)
    refused("le: argument 2: expected an expression or an integer, got nil", function() local _ = le(x) end)
    refused("eq: argument 1: expected an expression or an integer, got a constraint",
      function() local _ = eq(lt(x, y), 1) end)
    refused("the exponent of ^: expected an integer of at least 0, got the number -1", function() return x ^ -1 end)
    refused("the exponent of ^: expected an integer, unless the base is one, got an expression",
      function() return x ^ y end)
    refused("no: argument 1: expected a constraint, got an expression", function() local _ = no(x) end)
    refused("implies: argument 2: expected a constraint, got nil", function() local _ = implies(lt(x, y)) end)
    refused("all: argument 1: expected a list of constraints, got a constraint",
      function() local _ = constrint.all(lt(x, y)) end)
    refused("when: argument 3: expected an expression or an integer, got nil",
      function() local _ = constrint.when(lt(x, y), 1) end)
  end)

  it("wrong variables and constraints", function()
    refused("integer: there is a variable 'x' already", function() problem:integer("x", 1, 2) end)
    refused("integer: argument 1: expected a name, got the number 3", function() problem:integer(3, 1, 2) end)
    refused("integer: argument 3: expected an integer, got nil", function() problem:integer("w", 1) end)
    refused("integer: argument 3: expected at least 5, the least value, got the number 4",
      function() problem:integer("w", 5, 4) end)
    refused("integer: argument 2: expected a list with at least one value, got a table",
      function() problem:integer("w", {}) end)
    refused("integer: value 2 of the list: expected an integer, got the number 1.5",
      function() problem:integer("w", { 1, 1.5 }) end)
    refused("require: argument 1: expected the constraint in words, got a constraint",
      function() problem:require(lt(x, y)) end)
    refused("require: the variable 'z' belongs to another problem",
      function() problem:require("mixed", lt(x, stranger)) end)
    refused("require: argument 3: expected a family's name, got the number 1",
      function() problem:require("words", lt(x, y), 1) end)
  end)

  it("wrong options", function()
    refused('first has no option the string "node"; it has given, without, order, values, nodes',
      function() problem:first { node = 3 } end)
    refused("first: option 'nodes': expected an integer of at least 1, got the number 0",
      function() problem:first { nodes = 0 } end)
    refused('first: option \'order\', name 2: expected the name of a variable, got the string "v"',
      function() problem:first { order = { "x", "v" } } end)
    refused("all: option 'values' of 'x': expected \"ascending\", \"descending\" or a list of integers, "
      .. 'got the string "down"', function() problem:all { values = { x = "down" } } end)
    refused("best: option 'cost': expected an expression or a function, got nil", function() problem:best() end)
    refused("best: what option 'cost' returned: expected a number, got nil",
      function() problem:best { cost = function() end } end)
    refused("best: option 'bound': the variable 'z' belongs to another problem",
      function() problem:best { cost = x, bound = stranger } end)
    refused('first: option \'without\', name 1: expected a family that some constraint has, got the string "f"',
      function() problem:first { without = { "f" } } end)
    refused("first: option 'given' of 'x': expected an integer, got a table",
      function() problem:first { given = { x = {} } } end)
    refused('explain: argument 1: expected the name of a variable, got the string "q"',
      function() problem:explain("q", 1) end)
    refused("broken: the value of 'y': expected an integer, got nil", function() problem:broken { x = 1 } end)
  end)
end)

describe("a conflict of large numbers", function()
  it("names the range that a large value breaks", function()
    local p = constrint.problem()
    local bytes = p:integer("bytes", 0, 1 << 32, "the disk has 4 GiB")
    p:require("a file of 5 GB must fit", constrint.ge(bytes, 5000000000))
    assert.same({ "a file of 5 GB must fit", "the disk has 4 GiB" }, { table.unpack(p:conflict()) })
    assert.same({ "the disk has 4 GiB" }, { table.unpack(p:explain("bytes", 5000000000)) })
    local q = constrint.problem()
    local x = q:integer("x", 0, 10)
    q:require("x is large", constrint.ge(x * x, 1 << 50))
    assert.same({ "x is large", "x is in 0..10" }, { table.unpack(q:conflict()) })
  end)
end)
