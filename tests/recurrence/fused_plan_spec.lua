-- How fused recurrences are cut, for chips that need not be here: what fits, what is chosen, forced and refused.

local pl = require "perilune"
local chips = require "perilune.rnn.chips"
local fused = require "perilune.rnn.fused"
local message_of = require "tests.message_of"
local zoo = require "tests.recurrence.zoo"

local function problem(changes)
  local given = { cell = pl.cells.lstm, batch = 16, heads = 1, head_dim = 64, dtype = "bfloat16" }
  for name, value in pairs(changes) do given[name] = value end
  given.product = given.product or given.dtype
  return given
end

local function choose(chip, changes, given) return fused.choose(problem(changes), chips.named(chip), given) end

describe("the choice of a fused plan", function()
  it("takes the scope that a head needs", function()
    local scopes = { [16] = "block", [64] = "block", [128] = "cluster", [256] = "cluster", [512] = "cluster",
                     [768] = "grid", [1024] = "grid" }
    for dim, scope in pairs(scopes) do
      assert.equal(scope, choose("H200", { head_dim = dim }).plan.scope, "D=" .. dim)
      local before = choose("A100", { head_dim = dim }).plan.scope
      assert.equal(dim <= 128 and "block" or "grid", before, "on an A100, D=" .. dim)
    end
  end)

  it("takes plans that were measured to be the quickest, or within 4 % of them", function()
    local function is(changes, expected)
      local plan = choose("H200", changes).plan
      for name, value in pairs(expected) do
        assert.equal(value, plan[name], ("%s of D=%d"):format(name, changes.head_dim))
      end
    end
    is({ heads = 12, head_dim = 64 }, { rows = 4 })
    is({ heads = 12, head_dim = 64, batch = 64 }, { rows = 8 })
    is({ heads = 6, head_dim = 128 }, { blocks = 4, rows = 4, groups = 1 })
    is({ heads = 3, head_dim = 256 }, { blocks = 8, rows = 4, groups = 1 })
    is({ head_dim = 512 }, { blocks = 16, rows = 4, groups = 1 })
    is({ head_dim = 768 }, { blocks = 48, rows = 8, groups = 2, clustered = true })
    is({ head_dim = 768, batch = 1 }, { blocks = 96, rows = 4, groups = 1 })
    is({ head_dim = 768, batch = 64 }, { blocks = 32, rows = 16, groups = 3 })
    is({ head_dim = 1024 }, { blocks = 64, rows = 8, groups = 2, clustered = false })
    is({ head_dim = 2048, batch = 8 }, { blocks = 128, rows = 8, groups = 2, parts = 16, writers_forward = 0 })
  end)

  it("finds one for every cell in float32, too", function()
    for _, entry in ipairs(zoo) do
      for _, dim in ipairs { 8, 24, 64, 104, 128, 256, 264, 448 } do
        local found, why_not = choose("H200", { cell = entry.cell, head_dim = dim, dtype = "float32" })
        assert(found, ("%s, D=%d: %s"):format(entry.name, dim, why_not))
        assert.is_true(found.details.padded >= dim)
      end
    end
  end)

  it("prefers few launches", function()
    assert.equal(1, choose("H200", { head_dim = 768, heads = 3 }).details.launches)
    assert.equal(2, choose("H200", { head_dim = 1024, batch = 64 }).details.launches)
  end)

  it("is the first of all that fit, by what they are predicted to take", function()
    local list = fused.ranked(problem { head_dim = 768 }, chips.named "H200", 1000)
    assert.equal(list[1].feasible, #list)
    for i = 2, #list do assert.is_true(list[i - 1].predicted_us <= list[i].predicted_us) end
    assert.same(list[1].plan, choose("H200", { head_dim = 768 }).plan)
    assert.equal(list[1].predicted_us, list[1].forward_us + list[1].backward_us)
  end)

  it("refuses what does not fit, with the limit", function()
    local found, why_not = choose("RTX 4090", { head_dim = 2048 })
    assert.is_nil(found)
    assert.matches("^has no plan that fits sm_89 with 128 multiprocessors; limits of scope block: ", why_not)
    assert.matches("scope grid: .*a multiprocessor has 101376 bytes of shared memory", why_not)
    assert.matches("scope cluster: clusters of blocks are there from sm_90 on, and this is sm_89", why_not, 1, true)
    assert.equal("takes a head_dim that is a multiple of 8, got 12 (alternating takes any)",
      select(2, choose("H200", { head_dim = 12 })))
    assert.matches("alternating computes in float64", select(2, choose("H200", { dtype = "float64" })))
  end)
end)

describe("a forced fused plan", function()
  it("keeps what is given and fills in the rest", function()
    for _, dim in ipairs { 64, 128, 256, 512 } do
      local plan = choose("H200", { head_dim = dim }, { scope = "grid" }).plan
      assert.equal("grid", plan.scope)
      assert.is_true(plan.blocks * plan.groups * 8 >= dim)
    end
    local plan = choose("H200", { head_dim = 256 }, { scope = "cluster", blocks = 16, rows = 8, ring = 4 }).plan
    assert.same({ 16, 16, 8, 4 }, { plan.blocks, plan.parts, plan.rows, plan.ring })
    assert.equal(8, choose("H200", {}, { rows = 8 }).plan.rows)
    assert.equal(32, choose("H200", { head_dim = 768 }, { scope = "grid", blocks = 32 }).plan.blocks)
    local again = choose("H200", { head_dim = 768 }, choose("H200", { head_dim = 768 }).plan)
    assert.same(choose("H200", { head_dim = 768 }).plan, again.plan)
  end)

  it("that is not possible names the limit it breaks", function()
    local function refused(changes, given, pattern, chip)
      local found, why_not = choose(chip or "H200", changes, given)
      assert.is_nil(found)
      assert.matches(pattern, why_not)
    end
    refused({ head_dim = 1024 }, { scope = "block" }, "scope block: warps: at most 1024 threads are in a block")
    refused({ head_dim = 256, dtype = "float32" }, { scope = "cluster", blocks = 2 },
      "scope cluster: .*232448 bytes of shared memory.*blocks = 2 is given")
    refused({}, { rows = 5 }, "scope grid: rows: expected 4, 8 or 16 of a block in the grid scope; rows = 5 is")
    refused({}, { scope = "cluster", blocks = 3 }, "blocks: expected 2, 4, 8 or 16 in a cluster; blocks = 3 is given")
    refused({}, { scope = "cluster" }, "clusters of blocks are there from sm_90 on, and this is sm_80", "A100")
    refused({ head_dim = 2048 }, { scope = "grid", blocks = 256 }, "at once; 132 multiprocessors.*; blocks = 256")
    refused({ head_dim = 768 }, { scope = "grid", clustered = true }, "at most 8 blocks, from sm_90 on", "A100")
    refused({}, { ring = 3 }, "ring: expected 4 or 8; ring = 3 is given")
    refused({}, { registers_forward = 1000 }, "expected %-1 .* to 64 fragments; registers_forward = 1000")
    refused({ batch = 1 << 50, heads = 1 << 20 }, nil, "takes less than 2^31 batch rows of all heads, got batch = ")
  end)

  it("is checked for its names and types", function()
    local function complaint(given) return message_of(choose, "H200", {}, given) end
    assert.matches("plan: expected a table { scope =, blocks =, ... }, got a number", complaint(3), 1, true)
    assert.matches("plan: scope: expected block, cluster or grid, got warp", complaint { scope = "warp" }, 1, true)
    assert.matches("plan: unknown field 'block'; there are blocks, clustered", complaint { block = 3 }, 1, true)
    assert.matches("plan: blocks: expected an integer, got 2.5", complaint { blocks = 2.5 }, 1, true)
    assert.matches("plan: clustered: expected true or false, got 1", complaint { clustered = 1 }, 1, true)
    local far = complaint { blocks = math.maxinteger }
    assert.matches("plan: blocks: expected an integer from -1 to 65536, got 9223372036854775807", far, 1, true)
  end)

  it("is for the GPU", function()
    local function plan(more)
      local all = { cell = "lstm", head_dim = 64, plan = { scope = "block" } }
      for name, value in pairs(more) do all[name] = value end
      return message_of(pl.rnn_plan, all)
    end
    assert.matches("'fused' runs on cuda only, and the device is cpu", plan {})
    assert.matches("plan: forces how backend 'fused' runs, but backend is vanilla", plan { backend = "vanilla" })
  end)
end)

describe("a plan for a chip that is not here", function()
  local function plan(more)
    local all = { cell = "lstm", batch = 16, head_dim = 768, dtype = "bfloat16" }
    for name, value in pairs(more) do all[name] = value end
    return pl.rnn_plan(all)
  end

  it("is made by the chip's name, and says how it was chosen", function()
    for _, name in ipairs { "A100", "RTX 3090", "RTX 4090", "H200", "B200", "RTX 5090" } do
      local made = plan { chip = name }
      assert.equal("fused", made.backend)
      assert.matches(" on " .. name .. "\n", tostring(made))
      assert.matches("chosen by the model: predicted [%d.]+ us a step, of %d+ looked at", tostring(made))
      assert.same(made.fused, plan { device = name }.fused)
    end
    assert.equal("alternating", plan { chip = "A100", head_dim = 4096 }.backend)
    assert.equal("grid", plan { chip = "H200", head_dim = 64, plan = { scope = "grid" } }.fused.scope)
  end)

  it("is refused for a chip that is not known, and for a call", function()
    assert.matches("chip: expected one of A100, RTX 3090, .*, got V100", message_of(plan, { chip = "V100" }))
    assert.matches("chip: give either chip or device, not both", message_of(plan, { chip = "A100", device = "cpu" }))
    local made = plan { chip = "A100", batch = 1, head_dim = 8, dtype = "float32" }
    local Wx, R, b = pl.zeros { 1, 1, 4, 1, 8 }, pl.zeros { 4, 1, 8, 8 }, pl.zeros { 4, 1, 8 }
    assert.matches("it was made for device = A100, but this call has cpu",
      message_of(pl.rnn, Wx, R, b, { cell = "lstm", plan = made }))
  end)
end)

describe("the explanation of a fused plan", function()
  it("tells scope, blocks, rows, memory and what a step moves", function()
    local text = fused.explain(choose("H200", { heads = 12 }))
    for _, part in ipairs { "scope block: ", "48 blocks, each of 4 batch rows, 4 warps that multiply",
                            "forward: R of a block takes 32.0 KiB of registers and 0 bytes of shared memory",
                            "backward: R of a block takes 32.0 KiB of registers",
                            "a step: 3145728 multiplications", "a block sends others 0 bytes" } do
      assert.matches(part, text, 1, true)
    end
    text = fused.explain(choose("H200", { head_dim = 1024, batch = 64 }))
    assert.matches("scope grid: h goes from step to step through the L2 cache, between 32 blocks", text, 1, true)
    assert.matches("not scope block: warps: at most 1024 threads are in a block", text, 1, true)
    assert.matches("in 2 launches one after the other", text, 1, true)
  end)
end)
