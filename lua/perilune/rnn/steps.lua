-- Chooses how the steps of an alternating recurrence, which are launched one by one, are cut: for each way, of the cuts
-- that keep to constraints on integers, the one that a model of its time predicts to be the quickest. What the kernels
-- do with a cut is kernels/recurrence.cuh's; host/cuda/recurrence_text.c checks it once more.

local constrint = require "perilune.constrint"
local sizes = require "perilune.rnn.sizes"

local any, eq, implies, le = constrint.any, constrint.eq, constrint.implies, constrint.le

local steps = {}

-- As host/device/recurrence.h numbers them.
local NONE <const>, INSIDE <const>, BLAS <const> = 0, 1, 2
local products <const> = { [NONE] = "none", [INSIDE] = "inside", [BLAS] = "blas" }

local LANES <const>, TILE_UNITS <const>, TILE_ROWS <const>, CHUNK_BYTES <const> = 32, 8, 16, 64
local SHARED_MAX <const>, CHUNKS_MAX <const>, GRID_MAX <const> = 48 << 10, 512, 65535

-- ---- sizes ----------------------------------------------------------------------------------------------------------

local SIZE_MAX <const> = 1 << 31 -- past this no launch can be, and numbers would overflow

-- What of a problem the cuts follow from.
local function problem_of(given)
  local q = sizes.problem(given)
  for _, name in ipairs { "batch", "heads", "dim" } do q[name] = math.min(q[name], SIZE_MAX) end
  q.added = given.cell:count "bias" + #given.cell.params -- gradients that are added up over the steps
  q.arithmetic = math.max(4, q.stored)
  q.depth = { q.dim, q.recurrents * q.dim } -- that a sum runs over
  return q
end

local function divide_up(a, b) return (a + b - 1) // b end

-- Sizes of a cut for way 1 (forward) or 2 (backward): in numbers, or as expressions on the variables of a problem of
-- perilune.constrint.
local function sizes_of(q, way, plan)
  local s = { gates = way == 1 and q.recurrents or 1, chunks = divide_up(q.depth[way] * q.multiplied, CHUNK_BYTES) }
  s.columns = s.gates * plan.unit_tiles
  s.elements = TILE_ROWS * TILE_UNITS * plan.rows * plan.unit_tiles
  s.shared_bytes = 4 * TILE_ROWS * TILE_UNITS * plan.warps * plan.rows * (s.columns // 2 * 2 + 1)
  s.row_blocks = divide_up(q.batch, TILE_ROWS * plan.rows)
  s.blocks = divide_up(q.dim, TILE_UNITS * plan.unit_tiles) * q.heads
  return s
end

-- ---- constraints ----------------------------------------------------------------------------------------------------

-- The problem of all cuts for a way.
local function state(q, way)
  local p = constrint.problem()
  local sources = q.recurrents > 0 and { INSIDE, BLAS } or { NONE }
  local plan = {
    product = p:integer("product", sources, "product: the step's own or that of cuBLAS; none without recurrent gates"),
    warps = p:integer("warps", { 8, 16 }, "warps is tried as 8, 16"),
    rows = p:integer("rows", { 1, 2, 4 }, "rows is tried as 1, 2, 4"),
    unit_tiles = p:integer("unit_tiles", { 1, 2 }, "unit_tiles is tried as 1, 2"),
  }
  local s, inside = sizes_of(q, way, plan), eq(plan.product, INSIDE)
  local function must(family, words, constraint) p:require(words, implies(inside, constraint), family) end
  must("type", "product: the step's own takes 16 bits and float32, not float64", le(q.multiplied, 4))
  must("block", "rows times unit_tiles: every element of a block must have a thread of its own",
    le(s.elements, LANES * plan.warps))
  must("block", ("warps, rows, unit_tiles: the partial sums of a block must fit %d bytes of shared memory")
    :format(SHARED_MAX), le(s.shared_bytes, SHARED_MAX))
  must("block", ("product: the step's own adds up at most %d chunks of %d bytes"):format(CHUNKS_MAX, CHUNK_BYTES),
    le(s.chunks, CHUNKS_MAX))
  must("grid", ("product: the step's own takes at most %d heads"):format(GRID_MAX), le(q.heads, GRID_MAX))
  must("grid", ("rows: at most %d blocks share the batch"):format(GRID_MAX), le(s.row_blocks, GRID_MAX))
  must("use", "rows: no more than the batch fills",
    any { eq(plan.rows, 1), le(TILE_ROWS * plan.rows, 2 * q.batch - 1) })
  for _, field in ipairs { { "warps", 8 }, { "rows", 1 }, { "unit_tiles", 1 } } do
    p:require(field[1] .. ": cuts the step's own product only", any { inside, eq(plan[field[1]], field[2]) }, "use")
  end
  return p
end

-- ---- the model ------------------------------------------------------------------------------------------------------

local WARPS_AT_ONCE <const> = 16 -- of a multiprocessor, as far as its registers go
local TILE_BYTES <const> = TILE_UNITS * CHUNK_BYTES -- that a warp reads at once

-- Values of an element that a step moves: of the type of Wx, and of the arithmetic's.
local function values_of(q, way)
  if way == 1 then return q.inputs + q.states, q.saved + 2 * q.states end
  return 2 * q.inputs, q.saved + 2 * q.states + 2 * q.added
end

-- What a step does: counts of all blocks, or of the multiprocessor that has the most of them, or of one warp where
-- warps work beside each other.
local function counts(q, way, plan, chip)
  local s, elements = sizes_of(q, way, plan), 1.0 * q.batch * q.heads * q.dim
  local stored, computed = values_of(q, way)
  local done = {
    step = 1,
    moved = elements * (stored * q.stored + computed * q.arithmetic) / 1e6, -- MB
    products = elements * q.recurrents * q.dim / 1e9, -- 10^9 multiplications: of the step, and as many for dR
  }
  if plan.product == BLAS then
    done.depth = q.depth[way] / 1e3
    done.R = 1.0 * q.heads * q.recurrents * q.dim * q.dim * q.multiplied / 1e6 -- MB
    done.result = elements * q.recurrents * q.arithmetic / 1e6 -- MB
  elseif plan.product == INSIDE then
    local blocks = 1.0 * s.blocks * s.row_blocks
    local turns = math.ceil(blocks * plan.warps / (WARPS_AT_ONCE * chip.multiprocessors))
    local left = 2 * plan.rows * s.chunks * TILE_BYTES -- of h, or of gates' gradients, that a block reads
    done.again = (turns - 1) * plan.warps / 8
    done.chunks = turns * divide_up(s.chunks, plan.warps) -- of a warp
    done.left = math.ceil(blocks / chip.multiprocessors) * left / 1e3 -- KB
    done.sums = turns * plan.warps * s.gates -- partial ones that a thread adds up
    done.mma = done.chunks * plan.rows * s.columns * (q.multiplied == 4 and 3 or 1) -- one behind the other
    done.read = blocks * (left + s.columns * s.chunks * TILE_BYTES) / 1e6 -- MB, of R and of what it is multiplied by
    done.pieces = elements * (stored + computed) / (TILE_UNITS * plan.unit_tiles) / 1e6 -- 10^6, in memory
  end
  return done
end

-- Microseconds for each count, { forward, backward }, in an order that fixes every sum, for products in 16 bits and in
-- others: fitted to 25 sizes of lstm, gru and elman (20 in bfloat16, five in float32) on one H200, each cut in six
-- ways, with weights that favour what is near the best of its size; three, backward, are set by hand (products of the
-- step's own kernel, depth). At those sizes the cut with the least time of the model takes at most 8 % longer than the
-- best that was measured, and that time, both ways, is off by at most 14 %; fitted without a size of bfloat16 it is off
-- there by at most 19 %. Float32 has too few sizes to say as much. On other chips it is the order that is to be
-- trusted.
local own_16 <const> = {
  { { "step", 0.855 }, { "again", 0.0678 }, { "chunks", 0.266 }, { "left", 0.00363 }, { "sums", 0.0142 },
    { "mma", 0.0129 }, { "read", 0.0647 }, { "moved", 0.585 }, { "pieces", 0.96 } },
  { { "step", 1.17 }, { "again", 0.624 }, { "chunks", 0.244 }, { "sums", 0.0335 }, { "mma", 0.00779 },
    { "read", 0.0217 }, { "moved", 0.198 }, { "products", 16 } },
}
local own_32 <const> = {
  { { "step", 1.52 }, { "left", 0.0137 }, { "sums", 0.0027 }, { "mma", 0.0137 }, { "read", 0.183 },
    { "moved", 0.505 } },
  { { "step", 1.28 }, { "again", 0.23 }, { "chunks", 0.0841 }, { "left", 0.00483 }, { "sums", 0.0171 },
    { "mma", 0.0519 }, { "read", 0.0943 }, { "moved", 0.671 }, { "products", 33 } },
}
local blas_16 <const> = {
  { { "step", 4.2 }, { "depth", 1.54 }, { "R", 0.0827 }, { "result", 1.64 }, { "products", 0.29 } },
  { { "step", 5.13 }, { "depth", 0.57 }, { "moved", 0.32 }, { "products", 4.15 } },
}
local blas_32 <const> = {
  { { "step", 6.25 }, { "R", 0.505 }, { "moved", 0.364 }, { "products", 47.6 } },
  { { "step", 8.1 }, { "R", 0.456 }, { "moved", 0.725 }, { "products", 65.8 } },
}

-- The predicted us of a step of training, one way.
local function step_us(q, way, plan, chip)
  local own, blas = own_32, blas_32
  if q.multiplied == 2 then own, blas = own_16, blas_16 end
  local done, us = counts(q, way, plan, chip), 0
  for _, entry in ipairs((plan.product == BLAS and blas or own)[way]) do
    us = us + entry[2] * (done[entry[1]] or 0) -- a step without a product does less
  end
  return us
end

-- ---- choosing -------------------------------------------------------------------------------------------------------

-- The quickest cut for a way and its time, and the time of the quickest for each source of the product.
local function quickest(q, way, chip)
  local us_of = {}
  local plan, us = state(q, way):best {
    cost = function(plan)
      local us = step_us(q, way, plan, chip)
      us_of[plan.product] = math.min(us, us_of[plan.product] or us)
      return us
    end,
  }
  return plan, us, us_of
end

local function named(plan)
  return { product = products[plan.product], warps = plan.warps, rows = plan.rows, unit_tiles = plan.unit_tiles }
end

--- How the steps of problem = { cell =, batch =, heads =, head_dim =, dtype = (of Wx), product = (of the products),
-- forward_clip = } are cut on chip = { multiprocessors = (core.fused_chip), scale = (perilune.rnn.probe), or nil }.
-- Returns { forward =, backward =,
-- forward_us =, backward_us = (predicted, of a step of training), predicted_us = (of both), backend = "alternating",
-- arguments = (for core.recurrence), passed() = for each way why the product does not come from elsewhere, or nil }.
-- Each way is { product = "inside" (the step's kernel multiplies, on tensor cores), "blas" (cuBLAS does, in front of
-- it) or "none" (no gate has one), and for inside, of a block, warps =, rows = tiles of 16 batch rows, unit_tiles =
-- tiles of 8 units }.
function steps.choose(problem, chip)
  local q, passed = problem_of(problem), {}
  local found = { backend = "alternating", predicted_us = 0, arguments = {} }
  local scale = chip.scale and chip.scale.alternating or 1
  for way, name in ipairs { "forward", "backward" } do
    local plan, us, us_of = quickest(q, way, chip)
    found[name], found[name .. "_us"], found.arguments[name] = named(plan), scale * us, plan
    found.predicted_us = found.predicted_us + scale * us
    passed[way] = function()
      local other = plan.product == INSIDE and BLAS or INSIDE
      if plan.product == NONE then return nil end
      if us_of[other] then return ("predicted %.2f us"):format(scale * us_of[other]) end
      local reasons = {}
      for _, words in ipairs(state(q, way):explain("product", other)) do
        if not words:find " is tried " then reasons[#reasons + 1] = words end
      end
      return table.concat(reasons, "; ")
    end
  end
  found.passed = function() return passed[1](), passed[2]() end
  return found
end

-- ---- explaining -----------------------------------------------------------------------------------------------------

local function of_way(name, plan, us, passed)
  local what = ({
    none = "no product",
    blas = "a product of cuBLAS, then a kernel",
    inside = ("a kernel that multiplies, in blocks of %d batch rows, %d units and %d warps"):format(
      TILE_ROWS * plan.rows, TILE_UNITS * plan.unit_tiles, plan.warps),
  })[plan.product]
  local other = plan.product == "inside" and "blas" or "inside"
  return ("%s: %s; predicted %.2f us%s"):format(name, what, us,
    passed and (" (not %s: %s)"):format(other, passed) or "")
end

--- What steps.choose returned, in lines.
function steps.explain(found)
  local forward, backward = found.passed()
  return table.concat({
    ("predicted %.2f us a step, both ways"):format(found.predicted_us),
    of_way("forward", found.forward, found.forward_us, forward),
    of_way("backward", found.backward, found.backward_us, backward),
  }, "\n")
end

return steps
