-- What constrint finds, beside what trying everything finds, on random small problems.
local random_problem = require "constrint.random_problem"

local copy, each = random_problem.copy, random_problem.each

local function everything(p)
  local found = {}
  each(p.domains, p.tests, function(at)
    found[#found + 1] = copy(at)
    return false
  end)
  return found
end

-- The domains in another order of variables and values.
local function shuffled(p)
  local order, values, domains = {}, {}, {}
  for _, domain in ipairs(p.domains) do table.insert(domains, p.random(1, #domains + 1), domain) end
  for k, domain in ipairs(domains) do
    order[k] = domain.name
    local list, way = table.move(domain.values, 1, #domain.values, 1, {}), p.random(1, 3)
    if way == 2 then
      values[domain.name] = "descending"
      table.sort(list, function(a, b) return a > b end)
    elseif way == 3 then
      local preferred = { list[p.random(1, #list)], 1000, list[p.random(1, #list)] }
      values[domain.name] = preferred
      local rank = { [preferred[1]] = 1 }
      rank[preferred[3]] = rank[preferred[3]] or 2
      table.sort(list, function(a, b)
        local rank_a, rank_b = rank[a] or 3, rank[b] or 3
        return rank_a < rank_b or rank_a == rank_b and a < b
      end)
    end
    domains[k] = { name = domain.name, values = list }
  end
  return order, values, domains
end

-- Whether some assignment of `domains` passes the tests.
local function solvable(domains, tests) return each(domains, tests, function() return true end) end

-- The tests and domains that the words of a list name; a domain that is not named is as wide as `wide`.
local function named(p, words, wide)
  local is_named, tests, domains = {}, {}, {}
  for _, word in ipairs(words) do is_named[word] = true end
  for _, test in ipairs(p.tests) do
    if is_named[test.words] then tests[#tests + 1] = test end
  end
  for k, domain in ipairs(p.domains) do
    local used = false
    for _, test in ipairs(tests) do used = used or test.uses[domain.name] end
    domains[k] = is_named["range of " .. domain.name] and domain
      or { name = domain.name, values = used and wide or { 0 } }
  end
  return domains, tests
end

local function without(words, left_out)
  local rest = {}
  for k, word in ipairs(words) do
    if k ~= left_out then rest[#rest + 1] = word end
  end
  return rest
end

-- 0, 1, -1, ...: where a solution is usually soon found among numbers without a range.
local wide <const> = {}
for k = 0, 15 do
  wide[2 * k + 1], wide[2 * k + 2] = k, -k - 1
end

describe("constrint and trying everything agree on", function()
  local problems <const> = 2000
  local fewer <const> = 500 -- of what takes long: numbers without ranges are many

  it("all solutions", function()
    local some, none = 0, 0
    for seed = 1, problems do
      local p = random_problem.new(seed, 4, 7)
      local expected = everything(p)
      local found, message = p.problem:all()
      assert.is_nil(message)
      assert.are.same(expected, found, "seed " .. seed)
      if #found > 0 then some = some + 1 else none = none + 1 end
    end
    assert.is_true(some > problems / 5 and none > problems / 5)
  end)

  it("all solutions where ranges are too large for lists", function()
    for seed = 1, problems do
      local p = random_problem.new(seed, 4, 7, true)
      assert.are.same(everything(p), p.problem:all(), "seed " .. seed)
    end
  end)

  it("the first solutions in any order of variables and values", function()
    local several = 0
    for seed = 1, problems do
      local p = random_problem.new(seed, 3, 6)
      local order, values, domains = shuffled(p)
      local expected = {}
      each(domains, p.tests, function(at)
        expected[#expected + 1] = copy(at)
        return #expected == 3
      end)
      local options = { order = order, values = values }
      local found, message = p.problem:first(options)
      assert.are.same(expected[1], found, "seed " .. seed)
      assert.are.equal(not expected[1] and "no solution; conflict() tells which constraints exclude them all" or nil,
        message)
      options.limit = 3
      assert.are.same(expected, p.problem:all(options), "seed " .. seed)
      if #expected == 3 then several = several + 1 end
    end
    assert.is_true(several > problems / 5)
  end)

  it("the best solution, by an expression, a function, and functions with bounds", function()
    local pruned = 0
    for seed = 1, problems do
      local p = random_problem.new(seed, 3, 6)
      local order, values, domains = shuffled(p)
      local x, y = p.variables[1], p.variables[2]
      local a, b, c = p.random(-3, 3), p.random(-3, 3), p.random(-2, 2)
      local function cost(at) return a * at.x1 + b * at.x1 * at.x2 + c * at.x2 * at.x2 end
      local best, least
      each(domains, p.tests, function(at)
        if not least or cost(at) < least then best, least = copy(at), cost(at) end
        return false
      end)
      local e = a * x + b * x * y + c * y ^ 2
      if type(e) == "number" then e = 0 * x end
      local function options(more)
        more.order, more.values = order, values
        return more
      end
      local found, price = p.problem:best(options { cost = e })
      assert.are.same(best, found, "seed " .. seed)
      assert.are.equal(least, found and price)
      local bounded = p.problem.nodes
      found, price = p.problem:best(options { cost = cost })
      assert.are.same(best, found, "seed " .. seed)
      assert.are.equal(least, found and price)
      assert.is_true(bounded <= p.problem.nodes)
      if bounded < p.problem.nodes then pruned = pruned + 1 end
      -- A cost that is no integer, and what it is at least.
      local function more(at) return cost(at) + 0.25 end
      found = p.problem:best(options { cost = more, bound = e })
      assert.are.same(best, found, "seed " .. seed)
      found, price = p.problem:best(options { cost = more, bound = function(low, high)
        local least_of_all = math.huge
        for x1 = low.x1, high.x1 do
          for x2 = low.x2, high.x2 do least_of_all = math.min(least_of_all, cost { x1 = x1, x2 = x2 }) end
        end
        return least_of_all
      end })
      assert.are.same(best, found, "seed " .. seed)
      assert.are.equal(least and least + 0.25, found and price)
    end
    assert.is_true(pruned > problems / 10)
  end)

  it("which values are left", function()
    for seed = 1, problems do
      local p = random_problem.new(seed, 3, 6)
      local domains = p.problem:domains()
      each(p.domains, p.tests, function(at)
        for name, value in pairs(at) do
          local domain = domains[name]
          assert(value >= domain.least and value <= domain.most)
          assert(value == 0 or value % domain.step == 0)
          local listed = false
          for _, other in ipairs(domain.values) do listed = listed or other == value end
          assert(listed, "seed " .. seed)
        end
        return false
      end)
    end
  end)

  -- Whether the words exclude everything, and none of them could be missing. A range may stay because without it a
  -- divisor may be 0, because the solution is far away, or because option nodes was too few to find that there is none
  -- ("x does not divide x * x"): returns how many of the words were seen to be needed.
  local function minimal(p, words, given)
    local function fixed(domains, named_words)
      local is_named = {}
      for _, word in ipairs(named_words) do is_named[word] = true end
      local copies = {}
      for k, domain in ipairs(domains) do
        local value = given[domain.name]
        local listed = not is_named["range of " .. domain.name]
        for _, other in ipairs(domain.values) do listed = listed or other == value end
        copies[k] = value == nil and domain or { name = domain.name, values = listed and { value } or {} }
      end
      return copies
    end
    local seen = 0
    for k, word in ipairs(words) do
      local rest = without(words, k)
      local domains, tests = named(p, rest, wide)
      local ok, is_solvable = pcall(solvable, fixed(domains, rest), tests) -- an error: a divisor was 0
      if ok and is_solvable then seen = seen + 1 end
      assert(ok and is_solvable or word:find "^range", word .. " could be missing")
    end
    -- Ranges that are not named do not matter: neither the declared ones nor a few others let a solution in.
    local domains, tests = named(p, words, { -30, -7, -2, -1, 0, 1, 2, 3, 8, 50 })
    local ok, is_solvable = pcall(solvable, fixed(domains, words), tests)
    assert(not ok or not is_solvable, "what is named excludes not everything")
    return seen
  end

  it("what makes a problem unsolvable", function()
    local conflicts, words, needed = 0, 0, 0
    for seed = 1, fewer do
      local p = random_problem.new(seed, 7, 6)
      local conflict = p.problem:conflict()
      assert.are.equal(not solvable(p.domains, p.tests), conflict.excluded, "seed " .. seed)
      if conflict.excluded then
        conflicts, words = conflicts + 1, words + #conflict
        needed = needed + minimal(p, conflict, {})
      else
        assert.are.equal(0, #conflict)
      end
    end
    assert.is_true(conflicts > fewer / 5)
    assert.is_true(needed > 0.8 * words, ("%d of %d"):format(needed, words))
  end)

  it("what excludes a value", function()
    local excluded, words, needed = 0, 0, 0
    for seed = 1, fewer do
      local p = random_problem.new(seed, 4, 6)
      local domain = p.domains[p.random(1, #p.domains)]
      local value = p.random(-5, 8)
      local possible = each(p.domains, p.tests, function(at) return at[domain.name] == value end)
      local reasons = p.problem:explain(domain.name, value)
      assert.are.equal(not possible, reasons.excluded, "seed " .. seed)
      if reasons.excluded then
        excluded, words = excluded + 1, words + #reasons
        needed = needed + minimal(p, reasons, { [domain.name] = value })
      end
    end
    assert.is_true(excluded > fewer / 5)
    assert.is_true(needed > 0.8 * words, ("%d of %d"):format(needed, words))
  end)

  it("what an assignment breaks", function()
    for seed = 1, problems do
      local p = random_problem.new(seed, 4, 6)
      local at, expected = {}, {}
      for _, domain in ipairs(p.domains) do
        local value = p.random(1, 9) -- positive, as divisors must be
        at[domain.name] = value
        local listed = false
        for _, other in ipairs(domain.values) do listed = listed or other == value end
        if not listed then expected[#expected + 1] = "range of " .. domain.name end
      end
      for _, test in ipairs(p.tests) do
        if not test.holds(at) then expected[#expected + 1] = test.words end
      end
      assert.are.same(expected, p.problem:broken(at), "seed " .. seed)
    end
  end)

  it("problems without a family of constraints, and with given values", function()
    for seed = 1, problems do
      local p = random_problem.new(seed, 4, 5)
      local tests, name = {}, p.domains[1].name
      for k, test in ipairs(p.tests) do
        if k % 2 == 0 then tests[#tests + 1] = test end
      end
      local given = p.random(-3, 6)
      local expected = {}
      each(p.domains, tests, function(at)
        if at[name] == given then expected[#expected + 1] = copy(at) end
        return false
      end)
      local found = p.problem:all { without = { "family 1" }, given = { [name] = given } }
      assert.are.same(expected, found, "seed " .. seed)
    end
  end)
end)
