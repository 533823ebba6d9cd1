-- Random numbers: Philox4x32-10 by its published test vectors, the same numbers whatever the threads, and the moments
-- of every distribution.
local pl = require "perilune"
local check = require "tests.tensor.check"

-- Philox4x32-10 as in Salmon et al. (SC 2011), in Lua's integers: the oracle.
local function philox(counter, key)
  local a, b, c, d = table.unpack(counter)
  local k0, k1 = key[1], key[2]
  for _ = 1, 10 do
    local p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
    a, b, c, d = (q >> 32) ~ b ~ k0, q & 0xFFFFFFFF, (p >> 32) ~ d ~ k1, p & 0xFFFFFFFF
    k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
  end
  return { a, b, c, d }
end

-- Lanes for the elements 1..n of the tensor drawn when `offset` blocks were used up.
local function lanes(seed, offset, n)
  local list = {}
  for block = 0, (n - 1) // 4 do
    local at = offset + block
    local four = philox({ at & 0xFFFFFFFF, at >> 32, 0, 0 }, { seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF })
    table.move(four, 1, 4, #list + 1, list)
  end
  return list
end

local function unit(bits) return (bits >> 8) * 2.0 ^ -24 end

describe("Philox4x32-10", function()
  it("has the published answers", function() -- Random123, tests/kat_vectors
    assert.same({ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 }, philox({ 0, 0, 0, 0 }, { 0, 0 }))
    local ones <const> = 0xFFFFFFFF
    assert.same({ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd }, philox({ ones, ones, ones, ones }, { ones, ones }))
    assert.same({ 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 },
      philox({ 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, { 0xa4093822, 0x299f31d0 }))
  end)

  it("is what rand draws", function()
    pl.seed(0)
    local first = pl.rand({ 4, dtype = "float64" }):totable()
    check.near({ unit(0x6627e8d5), unit(0xe169c58d), unit(0xbc57ac4c), unit(0x9b00dbd8) }, first)
    for _, seed in ipairs { 1, -1, 0x0123456789ABCDEF, math.mininteger } do
      pl.seed(seed)
      pl.rand { 6 } -- two blocks
      local expected = {}
      for i, bits in ipairs(lanes(seed, 2, 1500)) do expected[i] = unit(bits) end
      check.near(expected, pl.rand { 1500 }) -- longer than a block of the loops
    end
  end)

  it("makes normal numbers by Box and Muller, two lanes each", function()
    pl.seed(7)
    local bits, expected = lanes(7, 0, 700), {}
    for i = 1, 700, 2 do
      local radius, angle = math.sqrt(-2 * math.log(1 - unit(bits[i]))), 2 * math.pi * unit(bits[i + 1])
      expected[i], expected[i + 1] = radius * math.cos(angle), radius * math.sin(angle)
    end
    check.near(expected, pl.randn { 700, dtype = "float64" }, 1e-12)
  end)
end)

describe("a seed", function()
  local function draw()
    return { pl.rand { 40000 }, pl.randn { 3, 33333 }, pl.randint(-3, 9, { 40000 }), pl.bernoulli(0.3, { 50001 }),
      pl.rand({ 50000, dtype = "float16" }), pl.randperm(50) }
  end
  local function same(a, b) for i, t in ipairs(a) do assert.is_true(pl.eq(t, b[i]):sum():item() == t:numel()) end end

  it("gives the same numbers again, with any number of threads", function()
    local threads = pl.threads()
    pl.seed(5)
    local first = draw()
    for n = 1, 4 do
      assert.equal(n, pl.threads(n))
      pl.seed(5)
      same(first, draw())
    end
    pl.threads(threads)
  end)

  it("gives the same numbers in every float type, rounded", function()
    pl.seed(5)
    local wide = pl.randn { 1000, dtype = "float64" }
    for _, dtype in ipairs { "float32", "float16", "bfloat16" } do
      pl.seed(5)
      check.near(wide:to(dtype):totable(), pl.randn { 1000, dtype = dtype })
    end
  end)

  it("does not mind whether options stand among the sizes or behind them", function()
    local double = { dtype = "float64" }
    local function both(first, second)
      pl.seed(3)
      local expected = first()
      pl.seed(3)
      local got = second()
      assert.same({ expected.dtype, expected.shape, expected:totable() }, { got.dtype, got.shape, got:totable() })
    end
    both(function() return pl.rand { 2, 3, dtype = "float64" } end, function() return pl.rand({ 2, 3 }, double) end)
    both(function() return pl.randn { 2, dtype = "float64" } end, function() return pl.randn({ 2 }, double) end)
    both(function() return pl.bernoulli(0.5, { 9, dtype = "float64" }) end,
      function() return pl.bernoulli(0.5, { 9 }, double) end)
    both(function() return pl.randint(1, 9, { 4, dtype = "int32" }) end,
      function() return pl.randint(1, 9, { 4 }, { dtype = "int32" }) end)
    both(function() return pl.zeros { 2, dtype = "float64" } end, function() return pl.zeros({ 2 }, double) end)
    both(function() return pl.ones { 2, dtype = "float64" } end, function() return pl.ones({ 2 }, double) end)
  end)

  it("moves on with every draw", function()
    pl.seed(5)
    local a, b = pl.rand { 100 }, pl.rand { 100 }
    assert.is_true(pl.eq(a, b):sum():item() < 5)
    pl.seed(6)
    assert.is_true(pl.eq(a, pl.rand { 100 }):sum():item() < 5)
    pl.seed(5)
    check.near(a:totable(), pl.rand_like(a))
  end)
end)

describe("the moments of", function()
  local n <const> = 200000
  local function moments(t)
    t = t:double()
    local mean = t:mean():item()
    local c = t - mean
    return mean, (c ^ 2):mean():item(), (c ^ 3):mean():item(), (c ^ 4):mean():item()
  end
  local function within(expected, got, spread) assert.is_true(math.abs(got - expected) < 5 * spread / math.sqrt(n)) end
  before_each(function() pl.seed(21) end)

  it("rand", function()
    local t = pl.rand { n }
    local mean, variance = moments(t)
    within(0.5, mean, math.sqrt(1 / 12))
    within(1 / 12, variance, math.sqrt(1 / 180))
    assert.is_true(t:min():item() >= 0 and t:max():item() < 1)
  end)

  it("randn", function()
    local mean, variance, skew, fourth = moments(pl.randn { n })
    within(0, mean, 1)
    within(1, variance, math.sqrt(2))
    within(0, skew, math.sqrt(15))
    within(3, fourth, math.sqrt(96))
    local t = pl.randn { n // 2, 2 }
    within(0, (t:select(2, 1) * t:select(2, 2)):mean():item(), math.sqrt(2)) -- the pair is uncorrelated
  end)

  it("bernoulli", function()
    for _, p in ipairs { 0, 0.25, 1 } do
      local t = pl.bernoulli(p, { n })
      within(p, t:mean():item(), math.sqrt(p * (1 - p)) + 1e-9)
      assert.equal(0, (t * (1 - t)):sum():item())
    end
  end)

  it("dropout", function()
    local t = pl.ones({ n }):dropout(0.25)
    within(1, t:mean():item(), math.sqrt(0.25 / 0.75))
    assert.is_true(pl.eq(t, 0):float():mean():item() > 0.24)
  end)

  it("randint", function()
    local t = pl.randint(-2, 3, { n })
    assert.equal("int64", t.dtype)
    for value = -2, 3 do
      within(1 / 6, pl.eq(t, value):double():mean():item(), math.sqrt(5 / 36))
    end
    assert.equal(-2, t:min():item())
    assert.equal(3, t:max():item())
    check.near({ 4, 4 }, pl.randint(4, 4, { 2 }))
    local wide = pl.randint(-(1 << 53), 1 << 53, { 1000 })
    assert.is_true(wide:min():item() < -(1 << 51) and wide:max():item() > 1 << 51)
    assert.is_true((wide % 2):sum():item() > 300)
    assert.equal("uint8", pl.randint(0, 255, { 3, dtype = "uint8" }).dtype)
  end)
end)

describe("randperm", function()
  it("is a permutation, and not always the same", function()
    for _, n in ipairs { 0, 1, 2, 257 } do
      local list = pl.randperm(n):totable()
      table.sort(list)
      for i = 1, n do assert.equal(i, list[i]) end
      assert.equal(n, #list)
    end
    local first = {}
    for _ = 1, 600 do
      local i = pl.randperm(3)[1]:item()
      first[i] = (first[i] or 0) + 1
    end
    for i = 1, 3 do assert.is_true(first[i] > 140 and first[i] < 260) end
  end)
end)
