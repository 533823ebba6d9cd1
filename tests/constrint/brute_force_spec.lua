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

describe("constrint and trying everything agree on", function()
  local problems <const> = 3000

  it("all solutions", function()
    local solvable, unsolvable = 0, 0
    for seed = 1, problems do
      local p = random_problem.new(seed, 4, 7)
      local expected = everything(p)
      local found, message = p.problem:all()
      assert.is_nil(message)
      assert.are.same(expected, found, "seed " .. seed)
      if #found > 0 then solvable = solvable + 1 else unsolvable = unsolvable + 1 end
    end
    assert.is_true(solvable > problems / 5 and unsolvable > problems / 5, solvable .. " solvable")
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
end)
