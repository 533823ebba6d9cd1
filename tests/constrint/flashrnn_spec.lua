-- How FlashRNN cuts the forward pass of a fused recurrence, stated for constrint: 12 variables, whose relations are
-- those of github.com/NX-AI/flashrnn, flashrnn/flashrnn/flashrnn.py (results of sums and products, which are variables
-- there, are expressions here). Beside an enumeration in plain arithmetic.
local constrint = require "perilune.constrint"
local divides, eq, ge, le = constrint.divides, constrint.eq, constrint.ge, constrint.le

-- The order in which FlashRNN's search fixes them, and that of their values.
local order <const> = {
  "tile_batch", "tile_gate", "heads_at_once", "blocks_gate", "blocks_hidden", "blocks_batch", "loops_batch",
  "loops_gate", "warps_hidden", "warps_batch", "cached", "warps",
}
local values = {}
for _, name in ipairs(order) do values[name] = "descending" end
values.blocks_hidden, values.loops_gate, values.warps = "ascending", "ascending", "ascending"

-- With 16-bit operands and 32-bit sums: a tile takes 16 elements of h at a time, and 2 registers of 16 bits for every
-- sum; R, of gates * dim rows, and the sums are padded by 8 elements. Shared memory is counted in bytes.
local function stated(s)
  local problem, v = constrint.problem(), {}
  local function integer(name, ...) v[name] = problem:integer(name, ...) end
  integer("tile_batch", { 8, 16, 32 })
  integer("tile_gate", { 8, 16, 32 })
  integer("heads_at_once", 1, s.heads)
  integer("blocks_gate", 1, s.processors)
  integer("blocks_hidden", 1, s.processors)
  integer("blocks_batch", 1, s.batch)
  integer("loops_batch", 1, s.batch)
  integer("loops_gate", 1, s.gates * s.dim // 8)
  integer("warps_hidden", 1, s.dim // 16)
  integer("warps_batch", 1, s.batch)
  integer("cached", 1, s.dim // 16)
  integer("warps", 1, 32)
  local rows = s.gates * s.dim
  local batch_parts = v.blocks_batch * v.warps_batch * v.loops_batch
  local blocks = v.blocks_gate * v.blocks_hidden * v.blocks_batch * v.heads_at_once
  local in_registers = 16 * v.tile_gate * v.cached * v.warps // v.warps_batch
  local of_r = 2 * v.blocks_batch * rows * (s.dim + 8) + 64
    - 2 * v.blocks_batch * v.blocks_gate * v.blocks_hidden * in_registers
  local of_sums = 4 * v.warps_hidden * v.blocks_hidden * batch_parts * v.tile_batch * (rows + v.blocks_gate * 8)

  problem:require("a tile has 256 sums", eq(v.tile_batch * v.tile_gate, 256))
  problem:require("a warp loops 4 times over the batch at most", le(v.loops_batch, 4))
  problem:require("warps cover the rows of a block",
    eq(v.warps_hidden * v.warps_batch * rows, v.warps * v.blocks_gate * v.loops_gate * v.tile_gate))
  problem:require("h is split evenly", divides(v.blocks_hidden * v.warps_hidden * 16, s.dim))
  problem:require("the rows of R are split evenly", divides(v.loops_gate * v.blocks_gate * v.tile_gate, rows))
  problem:require("a block has enough threads", le(32 * v.warps, s.threads))
  problem:require("the batch is split evenly", divides(batch_parts * v.tile_batch, s.batch))
  problem:require("all blocks run at once", le(blocks, s.processors))
  problem:require("heads are split evenly", divides(v.heads_at_once, s.heads))
  problem:require("warps share what registers hold of R",
    divides(v.warps_batch, 16 * v.tile_gate * v.cached * v.warps))
  problem:require("registers hold no more of R than there is",
    le(v.blocks_hidden * v.cached * v.warps_hidden * 16, s.dim))
  problem:require("registers hold part of R and the sums", le(in_registers
    + v.warps * v.tile_batch * (2 * v.tile_gate * v.loops_batch + 16), s.registers))
  problem:require("shared memory holds the rest of R", ge(of_r, 1))
  problem:require("shared memory holds it, and the sums",
    le(v.heads_at_once * (of_r + of_sums), s.shared * blocks))
  return problem, blocks
end

-- The same in plain arithmetic: what does not hold of a solution `a`.
local function violated(s, a)
  local rows = s.gates * s.dim
  if a.tile_batch * a.tile_gate ~= 256 then return "tile" end
  if a.loops_batch > 4 then return "loops" end
  local covered = a.warps * a.blocks_gate * a.loops_gate * a.tile_gate
  if a.warps_hidden * a.warps_batch * rows ~= covered then return "warps" end
  if s.dim % (a.blocks_hidden * a.warps_hidden * 16) ~= 0 then return "h" end
  if rows % (a.loops_gate * a.blocks_gate * a.tile_gate) ~= 0 then return "rows" end
  if a.warps * 32 > s.threads then return "threads" end
  local parts = a.blocks_batch * a.warps_batch * a.loops_batch
  if s.batch % (parts * a.tile_batch) ~= 0 then return "batch" end
  local blocks = a.blocks_gate * a.blocks_hidden * a.blocks_batch * a.heads_at_once
  if blocks > s.processors then return "blocks" end
  if s.heads % a.heads_at_once ~= 0 then return "heads" end
  local held = 16 * a.tile_gate * a.cached * a.warps / a.warps_batch
  if held ~= math.floor(held) then return "share" end
  if a.blocks_hidden * a.cached * a.warps_hidden * 16 > s.dim then return "cached" end
  local sums = a.warps * a.tile_batch * a.tile_gate * a.loops_batch * 2
  if held + sums + a.warps * a.tile_batch * 16 > s.registers then return "registers" end
  local r = 2 * s.gates * a.blocks_batch * s.dim * s.dim + 2 * s.dim * s.gates * 8 * a.blocks_batch + 64
    - 2 * held * a.blocks_batch * a.blocks_gate * a.blocks_hidden
  if r < 1 then return "rest" end
  local state = 4 * a.warps_hidden * a.blocks_hidden * s.gates * parts * a.tile_batch * s.dim
    + 4 * a.warps_hidden * a.blocks_gate * a.blocks_hidden * parts * a.tile_batch * 8
  if a.heads_at_once * (r + state) > s.shared * blocks then return "shared" end
end

-- All solutions of a small statement, in FlashRNN's order, by loops over what divides.
local function enumerated(s)
  local found, rows = {}, s.gates * s.dim
  local function down(most, of)
    local list = {}
    for value = most, 1, -1 do
      if of % value == 0 then list[#list + 1] = value end
    end
    return list
  end
  local function up(most, of)
    local list = down(most, of)
    table.sort(list)
    return list
  end
  for _, tile_batch in ipairs { 32, 16, 8 } do
    local a = { tile_batch = tile_batch, tile_gate = 256 // tile_batch }
    local function go(k, loops)
      local name = order[k]
      if not name then
        if not violated(s, a) then
          local copy = {}
          for key, value in pairs(a) do copy[key] = value end
          found[#found + 1] = copy
        end
        return
      end
      for _, value in ipairs(loops[name]) do
        a[name] = value
        go(k + 1, loops)
      end
    end
    local any_cached, any_warps = {}, {}
    for value = s.dim // 16, 1, -1 do any_cached[#any_cached + 1] = value end
    for value = 1, s.threads // 32 do any_warps[value] = value end
    go(3, {
      heads_at_once = down(s.heads, s.heads), blocks_gate = down(s.processors, rows),
      blocks_hidden = up(s.processors, s.dim), blocks_batch = down(s.batch // tile_batch, s.batch),
      loops_batch = down(math.min(4, s.batch // tile_batch), s.batch), loops_gate = up(rows // a.tile_gate, rows),
      warps_hidden = down(s.dim // 16, s.dim), warps_batch = down(s.batch // tile_batch, s.batch),
      cached = any_cached, warps = any_warps,
    })
  end
  return found
end

local function sizes(dim, heads, batch, processors, threads, registers, shared)
  return { gates = 4, dim = dim, heads = heads, batch = batch, processors = processors, threads = threads,
    registers = registers, shared = shared }
end

describe("FlashRNN's statement", function()
  local options = { order = order, values = values }

  it("has the solutions that loops find", function()
    local total = 0
    for _, s in ipairs {
      sizes(32, 2, 8, 8, 128, 16384, 12000), sizes(48, 1, 16, 16, 128, 8192, 9000),
      sizes(64, 1, 16, 6, 64, 6000, 40000), sizes(32, 1, 32, 4, 128, 9000, 20000),
    } do
      local problem, blocks = stated(s)
      local expected = enumerated(s)
      assert.are.same(expected, problem:all(options))
      assert.are.same(expected[1], (problem:first(options)))
      total = total + #expected
      -- Fewest blocks, then the fewest warps.
      local best, least
      for _, a in ipairs(expected) do
        local cost = 100 * a.blocks_gate * a.blocks_hidden * a.blocks_batch * a.heads_at_once + a.warps
        if not least or cost < least then best, least = a, cost end
      end
      local found, cost = problem:best {
        order = order, values = values, bound = 100 * blocks, cost = function(a)
          return 100 * a.blocks_gate * a.blocks_hidden * a.blocks_batch * a.heads_at_once + a.warps
        end,
      }
      assert.are.same(best, found)
      assert.are.equal(least, cost)
    end
    assert.is_true(total > 100, total)
  end)

  it("is solved at the sizes of language models", function()
    for _, size in ipairs { { 64, 12 }, { 128, 6 }, { 256, 3 }, { 768, 1 }, { 1024, 1 }, { 2048, 1 } } do
      local s = sizes(size[1], size[2], 16, 132, 256, 131072, 227000)
      local problem = stated(s)
      local found = problem:all { order = order, values = values, limit = 200 }
      assert.are.equal(200, #found)
      for _, a in ipairs(found) do assert.is_nil(violated(s, a)) end
      assert.are.same({}, problem:broken(found[1]))
    end
  end)

  it("says what excludes a head that is too large", function()
    local problem = stated(sizes(4096, 1, 16, 132, 256, 131072, 227000))
    local found, message = problem:first(options)
    assert.is_nil(found)
    assert.are.equal("no solution; conflict() tells which constraints exclude them all", message)
    local conflict = problem:conflict()
    assert.is_true(conflict.excluded)
    assert.matches("shared memory holds it, and the sums", tostring(conflict), 1, true)
  end)
end)
