-- How the steps of alternating recurrences are cut, for chips that need not be here: what is chosen, that it keeps to
-- what the kernels can do, and how it is explained. tests/cuda/recurrence_text_test.c compiles such cuts.

local pl = require "perilune"
local chips = require "perilune.rnn.chips"
local steps = require "perilune.rnn.steps"
local zoo = require "tests.recurrence.zoo"

local ways <const> = { "forward", "backward" }

local function choose(changes, chip)
  local given = { cell = pl.cells.lstm, batch = 16, heads = 1, head_dim = 64, dtype = "bfloat16" }
  for name, value in pairs(changes) do given[name] = value end
  given.product = given.product or given.dtype
  return steps.choose(given, chips.named(chip or "H200")), given
end

local function shown(plan)
  if plan.product ~= "inside" then return plan.product end
  return ("%d warps, %d x %d tiles"):format(plan.warps, plan.rows, plan.unit_tiles)
end

-- What kernels/recurrence.cuh asserts, and what a launch can have.
local function check_inside(plan, given, way, where)
  local gates, bytes = given.cell:count "recurrent", given.product == "float32" and 4 or 2
  local depth = way == "forward" and given.head_dim or gates * given.head_dim
  local columns = (way == "forward" and gates or 1) * plan.unit_tiles
  assert.is_true(plan.rows * 16 * 8 * plan.unit_tiles <= 32 * plan.warps, where)
  assert.is_true(plan.warps * plan.rows * 16 * 8 * (columns | 1) * 4 <= 48 * 1024, where)
  assert.is_true(math.ceil(depth * bytes / 64) <= 512, where)
  assert.is_true(given.heads <= 65535 and math.ceil(given.batch / 16 / plan.rows) <= 65535, where)
  assert.is_true(given.product ~= "float64", where)
end

describe("the cut of a step", function()
  it("is one that was measured to be the quickest, or within 8 % of it", function()
    local function is(changes, forward, backward)
      local found, given = choose(changes)
      local where = ("%s, B=%d N=%d D=%d"):format(given.dtype, given.batch, given.heads, given.head_dim)
      assert.equal(forward, shown(found.forward), "forward, " .. where)
      assert.equal(backward, shown(found.backward), "backward, " .. where)
    end
    is({ heads = 12 }, "8 warps, 1 x 1 tiles", "8 warps, 1 x 2 tiles")
    is({ heads = 3, head_dim = 256 }, "8 warps, 1 x 1 tiles", "16 warps, 1 x 2 tiles")
    is({ head_dim = 768 }, "8 warps, 1 x 1 tiles", "16 warps, 1 x 2 tiles")
    is({ batch = 64, heads = 12 }, "8 warps, 1 x 2 tiles", "8 warps, 1 x 2 tiles")
    is({ batch = 64, head_dim = 768 }, "8 warps, 2 x 1 tiles", "16 warps, 2 x 2 tiles")
    is({ batch = 256, heads = 12 }, "blas", "8 warps, 1 x 2 tiles")
    is({ batch = 256, head_dim = 768 }, "blas", "blas")
    is({ batch = 1024, heads = 12 }, "blas", "blas")
    is({ head_dim = 2048 }, "8 warps, 1 x 2 tiles", "blas")
    is({ heads = 12, dtype = "float32" }, "8 warps, 1 x 1 tiles", "16 warps, 1 x 1 tiles")
    is({ batch = 64, head_dim = 768, dtype = "float32" }, "8 warps, 2 x 1 tiles", "16 warps, 2 x 2 tiles")
    is({ batch = 256, heads = 12, dtype = "float32" }, "8 warps, 2 x 1 tiles", "8 warps, 1 x 2 tiles")
  end)

  it("is predicted to take what was measured, within 14 %", function()
    local function takes(us, changes)
      local found = choose(changes)
      assert.is_true(math.abs(found.predicted_us / us - 1) < 0.14, ("%.2f us, not %.2f"):format(found.predicted_us, us))
      assert.equal(found.predicted_us, found.forward_us + found.backward_us)
    end
    takes(4.33, { heads = 12 })
    takes(7.29, { head_dim = 768 })
    takes(5.78, { head_dim = 768, batch = 1 })
    takes(6.21, { batch = 64, heads = 12 })
    takes(39.6, { batch = 512, head_dim = 768 })
    takes(6.74, { cell = pl.cells.gru, head_dim = 768 })
    takes(4.69, { cell = pl.cells.elman, head_dim = 1024 })
    takes(15.8, { head_dim = 768, dtype = "float32" })
  end)

  it("keeps to what the kernels can do, for every cell, type, size and chip", function()
    local inside = 0
    for _, entry in ipairs(zoo) do
      for _, types in ipairs { { "float64" }, { "float32" }, { "float16" }, { "float32", "bfloat16" } } do
        for i, dim in ipairs { 1, 12, 100, 768, 3000, 40000 } do
          local found, given = choose({
            cell = entry.cell, dtype = types[1], product = types[2], head_dim = dim,
            batch = ({ 1, 17, 64, 1 << 21 })[i % 4 + 1], heads = i % 3 == 0 and 70000 or 2,
          }, chips.list[i % #chips.list + 1].name)
          for _, way in ipairs(ways) do
            local plan, where = found[way], ("%s of %s, D=%d"):format(way, entry.name, dim)
            assert.equal(entry.cell:count "recurrent" == 0, plan.product == "none", where)
            if plan.product == "inside" then
              inside = inside + 1
              check_inside(plan, given, way, where)
            end
            assert.is_true(found[way .. "_us"] > 0, where)
          end
        end
      end
    end
    assert.is_true(inside > 100, ("%d cuts with a product inside"):format(inside))
  end)

  it("is found for sizes that no launch can have", function()
    local found = choose { batch = 1 << 40, heads = 1 << 40, head_dim = math.maxinteger }
    assert.equal("blas blas", found.forward.product .. " " .. found.backward.product)
    assert.is_true(found.predicted_us < math.huge)
  end)

  it("gives core.recurrence the products by their numbers", function()
    local found = choose { batch = 256, heads = 12 }
    assert.same({ forward = { product = 2, warps = 8, rows = 1, unit_tiles = 1 },
                  backward = { product = 1, warps = 8, rows = 1, unit_tiles = 2 } }, found.arguments)
  end)
end)

describe("a plan of an alternating recurrence", function()
  local function says(said, words) assert.matches(words, said, 1, true) end

  local function text(given)
    given.cell, given.backend, given.chip = given.cell or "lstm", "alternating", given.chip or "A100"
    return tostring(pl.rnn_plan(given))
  end

  it("says how the steps are cut, and what they are predicted to take", function()
    local said = text { head_dim = 64, heads = 12, batch = 16, dtype = "bfloat16", chip = "H200" }
    says(said, "alternating: asked for; one kernel, or a matrix product and a kernel, per time step")
    assert.matches("predicted 4%.%d%d us a step, both ways", said)
    says(said, "forward: a kernel that multiplies, in blocks of 16 batch rows, 8 units and 8 warps; predicted 2.")
    assert.matches(" us %(not blas: predicted 4%.%d+ us%)\n", said)
    says(said, "backward: a kernel that multiplies, in blocks of 16 batch rows, 16 units and 8 warps")
  end)

  it("says why the step's own kernel does not multiply", function()
    says(text { head_dim = 12, dtype = "float64" },
      "(not inside: product: the step's own takes 16 bits and float32, not float64)")
    says(text { head_dim = 20000 }, "(not inside: product: the step's own adds up at most 512 chunks of 64 bytes)")
    says(text { head_dim = 8, heads = 1 << 16 }, "(not inside: product: the step's own takes at most 65535 heads)")
    says(text { head_dim = 8, batch = 1 << 24 }, "(not inside: rows: at most 65535 blocks share the batch)")
    assert.matches("a product of cuBLAS, then a kernel; predicted [%d.]+ us %(not inside: predicted [%d.]+ us%)",
      text { head_dim = 768, batch = 512 })
    local cell
    for _, entry in ipairs(zoo) do
      if entry.cell:count "recurrent" == 0 then cell = entry.cell end
    end
    assert.matches("forward: no product; predicted [%d.]+ us\n", text { cell = cell, head_dim = 8 })
  end)
end)
