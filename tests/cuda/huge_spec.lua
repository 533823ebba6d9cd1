-- Tensors of more than 2^31 elements on a GPU: filled, added, summed, converted, indexed, reordered and multiplied at
-- places that 32 bits cannot count. Skips itself where there is no GPU or too little of its memory is free.

local pl = require "perilune"
local devices = require "tests.devices"

if not devices.has("cuda", "tensors past 2^31 elements") then return end

local half <const> = 2 ^ 31 // 1 | 0
local size <const> = half + 1001
-- Around the places where a signed and an unsigned number of 32 bits would turn, as far as there are any, and the ends.
local places <const> = { 1, 2, half - 1, half, half + 1, half + 2, size - 1, size }

-- Whether so many bytes can be had at once, now.
local function room(bytes)
  local _ <close> = pl.scope()
  local there, why_not = pcall(pl.zeros, { bytes // 1 | 0, dtype = "uint8", device = "cuda" })
  assert(there or why_not:find "out of memory", why_not)
  return there
end

-- A test that needs `bytes` of memory, in a scope of its own.
local function with_memory(name, bytes, test)
  if not room(bytes) then
    pending(("%s: skipped, for %.0f GB of GPU memory are not free"):format(name, bytes / 1e9))
    return
  end
  it(name, function()
    local _ <close> = pl.scope()
    test()
  end)
end

-- Zeros with 1, 2, ... at `places`.
local function marked(dtype)
  local t = pl.zeros { size, dtype = dtype, device = "cuda" }
  for i, at in ipairs(places) do t[at] = i end
  return t
end

local function check_places(t, expected)
  for i, at in ipairs(places) do
    assert(t[at]:item() == expected(i), ("at %d: expected %s, got %s"):format(at, expected(i), t[at]:item()))
  end
end

local total = #places * (#places + 1) // 2

describe("tensors past 2^31 elements", function()
  with_memory("of uint8 are filled, indexed and summed", 3 * size, function()
    local t = marked "uint8"
    check_places(t, function(i) return i end)
    assert.equal(total, t:sum():item())
    assert.equal(size - #places, pl.eq(t, 0):sum():item())
    assert.equal(#places, t:max():item())
    assert.equal(size, t:argmax():item())
    local picked = t:index_select(1, pl.tensor(places, { dtype = "int64", device = "cuda" }))
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8 }, picked:totable())
    assert.same({ 7, 8 }, t:narrow(1, size - 1, 2):totable())
    t:fill_(1)
    assert.equal(size, t:sum():item())
  end)

  with_memory("of uint8 are added, and added in place", 5 * size, function()
    local t = marked "uint8"
    check_places(t + t, function(i) return 2 * i end)
    assert.equal(total + size, (t + 1):sum():item())
    t:add_(t)
    check_places(t, function(i) return 2 * i end)
    assert.equal(2 * total, t:sum():item())
  end)

  with_memory("of bfloat16 are converted both ways, and copied", 8 * size, function()
    local t = marked "uint8":to "bfloat16"
    check_places(t, function(i) return i end)
    local copy = t:clone()
    check_places(copy, function(i) return i end)
    check_places(copy:to "uint8", function(i) return i end)
  end)

  with_memory("of bfloat16 are added and summed", 8 * size, function()
    local t = marked "bfloat16"
    check_places(t * 2 + 1, function(i) return 2 * i + 1 end)
    assert.equal(total, t:sum():item())
    assert.equal(8, t:max():item())
    assert.equal(size, t:argmax():item())
    -- Ones: the sum is 2^31 to the 8 bits of the type.
    assert.equal(half, t:fill_(1):sum():item())
  end)

  with_memory("as matrices are turned, and summed along either axis", 3 * size, function()
    local rows, columns = 65537, 32768 + 8
    local t = pl.zeros { rows, columns, dtype = "uint8", device = "cuda" }
    t[1][2], t[2][1], t[rows][columns], t[rows][1], t[40000][12345] = 1, 2, 3, 4, 5
    local turned = t:t():contiguous()
    assert.same({ columns, rows }, turned.shape)
    assert.same({ 1, 2, 3, 4, 5 }, { turned[2][1]:item(), turned[1][2]:item(), turned[columns][rows]:item(),
      turned[1][rows]:item(), turned[12345][40000]:item() })
    assert.equal(15, turned:sum():item())
    local by_row, by_column = t:sum(2), t:sum(1)
    assert.same({ 1, 2, 7, 5 }, { by_row[1]:item(), by_row[2]:item(), by_row[rows]:item(), by_row[40000]:item() })
    assert.same({ 6, 1, 3, 5 }, { by_column[1]:item(), by_column[2]:item(), by_column[columns]:item(),
      by_column[12345]:item() })
    assert.equal(15, by_row:sum():item())
    assert.equal(15, by_column:sum():item())
  end)

  with_memory("broadcast a row and a column", 5 * size, function()
    local rows, columns = 65537, 32768 + 8
    local row, column = pl.zeros { 1, columns, dtype = "uint8", device = "cuda" },
      pl.zeros { rows, 1, dtype = "uint8", device = "cuda" }
    row[1][columns], column[rows][1] = 3, 4
    local t = row + column
    assert.same({ 0, 3, 4, 7 },
      { t[1][1]:item(), t[1][columns]:item(), t[rows][1]:item(), t[rows][columns]:item() })
    assert.equal(3 * rows + 4 * columns, t:sum():item())
  end)

  with_memory("are multiplied when each size fits 32 bits", 3 * size, function()
    local rows, columns = 65537, 32768 + 8
    local t = pl.zeros { rows, columns, dtype = "bfloat16", device = "cuda" }
    t[1][1], t[rows][columns], t[40000][8] = 1, 2, 3
    local product = t:matmul(pl.ones { columns, 2, dtype = "bfloat16", device = "cuda" })
    assert.same({ { 1, 1 }, { 3, 3 }, { 2, 2 }, { 0, 0 } },
      { product[1]:totable(), product[40000]:totable(), product[rows]:totable(), product[65535]:totable() })
    assert.equal(12, product:sum():item())
  end)

  with_memory("refuse to be multiplied when a size does not", 3 * size, function()
    local t = pl.zeros { 1, size, dtype = "bfloat16", device = "cuda" }
    assert.error_matches(function() t:matmul(t:t()) end, "matmul: sizes past 2%^31 are not supported")
    assert.equal(0, t:sum():item())
  end)

  with_memory("are Wx of a recurrence, a row beginning past 2^31", 5 * size, function()
    local steps, dim = 1 << 20, 520
    local whole = pl.zeros { 2, steps, 4, 1, dim, dtype = "bfloat16", device = "cuda" }
    local Wx = whole:narrow(2, 1, 4)
    Wx[2]:fill_(1)
    local R, b = pl.zeros { 4, 1, dim, dim, device = "cuda" }, pl.zeros { 4, 1, dim, device = "cuda" }
    local _, last = pl.no_grad(pl.rnn, Wx, R, b, { cell = "lstm" })
    local gate, new, c = pl.sigmoid(1), pl.tanh(1), 0
    for _ = 1, 4 do c = gate * c + gate * new end
    assert.equal(0, last[2][1]:abs():max():item())
    assert.is_true((last[2][2] - c):abs():max():item() < 1e-5)
  end)
end)
