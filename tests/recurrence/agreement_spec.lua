-- Every cell on every backend against the oracle, vanilla: results and all gradients, with and without options.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"
local zoo = require "tests.recurrence.zoo"

local backends = { "reference" }
local TOLERANCE = 1e-10

local function each_shape(visit)
  for _, B in ipairs { 1, 3, 8 } do
    for _, T in ipairs { 1, 2, 17 } do
      for _, N in ipairs { 1, 3 } do
        for _, D in ipairs { 1, 5, 16, 33 } do visit { B = B, T = T, N = N, D = D } end
      end
    end
  end
end

local shape = { B = 3, T = 6, N = 2, D = 5 }

-- name -> options, or a function of the cell
local options = {
  ["lengths"] = { lengths = { 6, 0, 3 } },
  ["lengths, h only"] = { lengths = { 1, 5, 2 }, outputs = "h" },
  ["last only"] = { outputs = "last" },
  ["lengths, last only"] = { lengths = { 4, 6, 0 }, outputs = "last" },
  ["recurrent cut"] = { recurrent_grad_cut = true },
  ["recurrent clip"] = { recurrent_grad_clip = 0.05 },
  ["forward clip"] = { forward_clip = 0.2 },
  ["everything"] = { lengths = { 2, 6, 5 }, recurrent_grad_clip = 0.1, forward_clip = 0.3, outputs = "h" },
}

before_each(function() pl.seed(7) end)

for _, backend in ipairs(backends) do
  describe(backend .. " agrees with vanilla", function()
    for _, entry in ipairs(zoo) do
      it(("for %s over all shapes"):format(entry.name), function()
        each_shape(function(s) compare.with_vanilla(backend, entry.cell, s, {}, TOLERANCE) end)
      end)

      it(("for %s from its default initial state"):format(entry.name), function()
        compare.with_vanilla(backend, entry.cell, shape, {}, TOLERANCE, true)
      end)

      for name, chosen in pairs(options) do
        it(("for %s with %s"):format(entry.name, name), function()
          compare.with_vanilla(backend, entry.cell, shape, chosen, TOLERANCE)
        end)
      end
    end

    it("in float32", function()
      for _, entry in ipairs(zoo) do
        local _ <close> = pl.scope()
        local given, weights = compare.arguments(entry.cell, shape), {}
        local expected = compare.run(entry.cell, given, { backend = "vanilla" }, weights)
        for key, t in pairs(given) do given[key] = key ~= "params" and t:float() or t end
        for name, t in pairs(given.params) do given.params[name] = t:float() end
        for key, t in pairs(weights) do weights[key] = t:float() end
        local found = compare.run(entry.cell, given, { backend = backend }, weights)
        for key, t in pairs(found) do
          assert.equal("float32", t.dtype)
          found[key] = t:double()
        end
        assert.is_true(compare.difference(found, expected) < 2e-5, entry.name)
      end
    end)

    -- Both round h and R alike, so they differ by float32's rounding and, rarely, by one step of the 16-bit type.
    for _, dtype in ipairs { "bfloat16", "float16" } do
      it("with products in " .. dtype, function()
        for _, entry in ipairs(zoo) do
          local _ <close> = pl.scope()
          local size = entry.decides and compare.with(shape, { T = 2 }) or shape
          local given, weights = compare.arguments(entry.cell, size), {}
          for key, t in pairs(given) do given[key] = key ~= "params" and t:to(dtype) or t end
          for name, t in pairs(given.params) do given.params[name] = t:to(dtype) end
          local function run(way)
            local found = compare.run(entry.cell, given, { backend = way }, weights)
            assert.equal(dtype, found.states.dtype)
            assert.equal("float32", found.last.dtype)
            for key, t in pairs(found) do found[key] = t:double() end
            return found
          end
          local off, where = compare.difference(run(backend), run "vanilla")
          local tolerance = dtype == "bfloat16" and 2e-2 or 3e-3
          assert(off < tolerance, ("%s of %s differs by %g"):format(where, entry.name, off))
        end
      end)
    end
  end)
end
