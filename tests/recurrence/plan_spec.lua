-- Which backend runs a recurrence, and why: for GPUs that need not be here, and for the CPU.

local pl = require "perilune"
local chips = require "perilune.rnn.chips"
local plan = require "perilune.rnn.plan"

local function problem(changes)
  local given = { cell = pl.cells.lstm, batch = 16, heads = 1, head_dim = 64, dtype = "bfloat16", product = "bfloat16",
                  device = "H200", chip = chips.named "H200" }
  for name, value in pairs(changes) do given[name] = value end
  return given
end

describe("the choice of a backend", function()
  local before

  before_each(function() before = pl.tuning(false) end)
  after_each(function() pl.tuning(before) end)

  it("takes the one that is predicted to be the quicker", function()
    local function is(backend, other, changes)
      local chosen = plan.choose(problem(changes))
      assert.equal(backend, chosen.backend)
      assert.is_table(chosen[backend])
      assert.is_nil(chosen[other])
      local us = chosen.reason():match("not " .. other .. ": predicted ([%d.]+) us a step\n" .. backend .. ": ")
      assert.is_true(tonumber(us) > (chosen[backend].predicted_us))
    end
    is("fused", "alternating", { heads = 12 })
    is("fused", "alternating", { heads = 12, batch = 1024 })
    is("fused", "alternating", { batch = 64, head_dim = 768 })
    is("alternating", "fused", { batch = 512, head_dim = 768 })
    is("alternating", "fused", { batch = 64, head_dim = 2048 })
    is("alternating", "fused", { batch = 256, head_dim = 768, dtype = "float32", product = "float32" })
  end)

  it("passes over those that cannot run a problem, and says why", function()
    local chosen = plan.choose(problem { head_dim = 60 })
    assert.equal("alternating", chosen.backend)
    assert.matches("^not fused: it takes a head_dim that is a multiple of 8, got 60", chosen.reason())
    chosen = plan.choose { cell = pl.cells.lstm, batch = 1, heads = 1, head_dim = 8, dtype = "float32",
                           product = "float32", device = "cpu" }
    assert.equal("reference", chosen.backend)
    assert.equal("not fused: it runs on cuda only, and the device is cpu\n"
      .. "not alternating: it runs on cuda only, and the device is cpu\n"
      .. "reference: all time steps in C, the cell's programs over blocks of elements", chosen.reason())
  end)

  it("is the one that is asked for, whatever takes less time", function()
    assert.equal("alternating", plan.choose(problem { heads = 12 }, "alternating").backend)
    assert.equal("fused", plan.choose(problem { batch = 512, head_dim = 768 }, "fused").backend)
    assert.equal("fused", plan.choose(problem { batch = 512, head_dim = 768 }, "auto", { rows = 8 }).backend)
  end)

  it("is remembered, for each problem", function()
    local first = plan.choose(problem { batch = 7 })
    assert.equal(first, plan.choose(problem { batch = 7 }))
    assert.not_equal(first, plan.choose(problem { batch = 7, dtype = "float16", product = "float16" }))
    assert.not_equal(first, plan.choose(problem { batch = 7, forward_clip = 0.5 }))
    assert.not_equal(first, plan.choose(problem { batch = 7, cell = pl.cells.gru }))
    assert.not_equal(first, plan.choose(problem { batch = 7 }, "alternating"))
  end)
end)
