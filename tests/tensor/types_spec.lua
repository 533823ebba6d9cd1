-- Element types: creation, promotion, conversion and rounding, integer arithmetic, truth values, indices; and empty and
-- dimensionless tensors of them.
local pl = require "perilune"
local check = require "tests.tensor.check"

local types <const> = { "bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64" }
local rank <const> = {}
for i, name in ipairs(types) do rank[name] = i end

local function int(data, dtype) return pl.tensor(data, { dtype = dtype or "int64" }) end
local function double(data) return pl.tensor(data, { dtype = "float64" }) end

describe("creation", function()
  it("gives every type", function()
    for _, dtype in ipairs(types) do
      local t = pl.tensor({ { 0, 1 }, { 1, 1 } }, { dtype = dtype })
      assert.equal(dtype, t.dtype)
      check.near({ { 0, 1 }, { 1, 1 } }, t)
      assert.equal(dtype, pl.zeros({ 2, dtype = dtype }).dtype)
      check.near({ 1, 1 }, pl.ones { 2, dtype = dtype })
      assert.equal(dtype, pl.ones_like(t).dtype)
      assert.equal(dtype, pl.eye(3, { dtype = dtype }).dtype)
      assert.equal(dtype, pl.full({ 2 }, 1, { dtype = dtype }).dtype)
      assert.equal(dtype, pl.arange(0, 1, { dtype = dtype }).dtype)
      assert.matches("^tensor %[2, 2%] " .. dtype .. " cpu", tostring(t))
    end
    assert.equal("float32", pl.tensor({ 1 }).dtype)
    assert.equal("bool", pl.tensor({ true, false }).dtype)
    assert.equal("int64", pl.randint(1, 6, { 3 }).dtype)
    assert.equal("integer", math.type(int({ 5 })[1]:item()))
    assert.equal("float", math.type(double({ 5 })[1]:item()))
    check.near({ 1, 0 }, pl.tensor { true, false })
    check.near({ 1, 0 }, double { true, false })
  end)

  it("takes single numbers, empty tables and nested ones", function()
    assert.same({}, pl.tensor(5).shape)
    assert.equal(5, pl.tensor(5):item())
    assert.same({ 0 }, pl.tensor({}).shape)
    assert.same({ 2, 0 }, pl.tensor({ {}, {} }).shape)
    assert.same({ 1, 2, 1, 2 }, pl.tensor({ { { { 1, 2 } }, { { 3, 4 } } } }).shape)
    assert.same({}, pl.zeros({}).shape)
    assert.same({}, pl.tensor({}):totable())
    assert.same({ {}, {} }, pl.zeros({ 2, 0 }):totable())
    assert.equal(3, pl.tensor(3):totable())
  end)

  it("holds integers for integer types", function()
    check.near({ 2, -3 }, int { 2.0, -3 })
    assert.matches("tensor: data: expected an integer for int64, got 1.5", check.message(int, { 1.5 }))
    assert.matches("tensor: data: 256 is out of the range of uint8", check.message(int, { 256 }, "uint8"))
    assert.matches("tensor: data: %-1 is out of the range of uint8", check.message(int, { -1 }, "uint8"))
    assert.matches("tensor: data: 2147483648 is out of the range of int32", check.message(int, { 1 << 31 }, "int32"))
    assert.matches("full: value: expected an integer for int32, got 1e%+300",
      check.message(pl.full, { 2 }, 1e300, { dtype = "int32" }))
    assert.matches("expected an integer for int64, got %-?nan",
      check.message(pl.full, { 2 }, 0 / 0, { dtype = "int64" }))
    check.near({ math.maxinteger, math.mininteger }, int { math.maxinteger, math.mininteger })
    check.near({ 2, 2 }, pl.full({ 2 }, 2.0, { dtype = "int64" }))
  end)

  it("of ranges includes the last number", function()
    check.near({ 1, 2, 3 }, pl.arange(1, 3))
    check.near({ 0, 0.25, 0.5 }, pl.arange(0, 0.5, 0.25))
    check.near({ 3, 1 }, pl.arange(3, 0, -2))
    assert.same({ 0 }, pl.arange(1, 0).shape)
    check.near({ 0, 0.1, 0.2, 0.3 }, pl.arange(0, 0.3, 0.1, { dtype = "float64" }), 1e-15)
    check.near({ 5, 6 }, pl.arange(5, 6, { dtype = "int64" }))
    check.near({ 0, 0.5, 1 }, pl.linspace(0, 1, 3))
    check.near({ 7 }, pl.linspace(7, 9, 1))
    check.near({ { 1, 0 }, { 0, 1 } }, pl.eye(2))
    check.near({ { 1, 0, 0 }, { 0, 1, 0 } }, pl.eye { 2, 3 })
    check.near({ { 1 }, { 0 } }, pl.eye { 2, 1, dtype = "int64" })
    assert.equal("int64", pl.eye({ 2, 1, dtype = "int64" }).dtype)
    assert.same({ 0, 0 }, pl.eye(0).shape)
  end)
end)

describe("promotion", function()
  it("follows the order of types; float16 with bfloat16 is float32", function()
    for _, a in ipairs(types) do
      for _, b in ipairs(types) do
        local sum = pl.ones { 2, dtype = a } + pl.ones { 2, dtype = b }
        local expected = rank[a] > rank[b] and a or b
        if a ~= b and rank[a] + rank[b] == rank.float16 + rank.bfloat16 and rank[a] >= rank.float16 - 1
          and a:find "16" and b:find "16" then
          expected = "float32"
        end
        if expected == "bool" then expected = "int64" end
        assert.equal(expected, sum.dtype, a .. " + " .. b)
        check.near({ 2, 2 }, sum)
        local joined = pl.cat { pl.ones { 2, dtype = a }, pl.ones { 2, dtype = b } }
        assert.equal(expected == "int64" and rank[a] + rank[b] == 2 and "bool" or expected, joined.dtype)
      end
    end
  end)

  it("lets a number follow the tensor, but a fraction makes integers float32", function()
    for _, dtype in ipairs(types) do
      local t = pl.ones { 2, dtype = dtype }
      local float = dtype:find "float"
      assert.equal(dtype == "bool" and "int64" or dtype, (t + 1).dtype)
      assert.equal(float and dtype or "float32", (t + 1.5).dtype)
      assert.equal(float and dtype or "float32", (1.5 - t).dtype)
      assert.equal(float and dtype or "float32", (t / 2).dtype)
      assert.equal("bool", pl.lt(t, 2.5).dtype)
      check.near({ 1, 1 }, pl.lt(t, 1.5))
      check.near({ 1, 1 }, 2 - t)
    end
  end)

  it("of where looks at what is chosen, not at the condition", function()
    local yes = pl.tensor { true, false }
    local function dtype_of(...) return pl.where(yes, ...).dtype end
    assert.equal("int64", dtype_of(1, 2))
    assert.equal("float32", dtype_of(1, 2.5))
    assert.equal("float32", dtype_of(1.0, 2.0))
    assert.equal("bool", dtype_of(yes, yes))
    assert.equal("int64", dtype_of(yes, 3))
    assert.equal("uint8", dtype_of(int({ 1, 2 }, "uint8"), 3))
    assert.equal("float16", dtype_of(pl.ones { 2, dtype = "float16" }, 3.5))
    assert.equal("float64", dtype_of(int { 1, 2 }, double { 1, 2 }))
    check.near({ 1, 2.5 }, pl.where(yes, 1, 2.5))
    local big = (1 << 53) + 1
    check.near({ big, -big }, pl.where(pl.tensor { 0.5, 0 }, int { big, big }, int { -big, -big }))
    check.near({ big, big }, pl.where(0.5, int { big, big }, 0))
    check.near({ 1, 2 }, pl.where(double { 0 / 0, 0 }, 1, 2))
  end)

  it("of sums and means: integers sum to int64 and average to float32", function()
    for _, dtype in ipairs(types) do
      local t, float = pl.ones { 3, dtype = dtype }, dtype:find "float"
      assert.equal(float and dtype or "int64", t:sum().dtype)
      assert.equal(float and dtype or "float32", t:mean().dtype)
      assert.equal(float and dtype or "int64", t:cumsum(1).dtype)
      assert.equal(dtype, t:max().dtype)
      assert.equal("int64", t:argmax().dtype)
    end
    assert.equal(255 * 300, pl.full({ 300 }, 255, { dtype = "uint8" }):sum():item())
    assert.equal(255 * 300, pl.full({ 300, 2 }, 255, { dtype = "uint8" }):sum(1)[2]:item())
    assert.equal((1 << 60) + 1, int({ 1 << 60, 1 }):sum():item())
    assert.equal(1000, pl.full({ 80000 }, 1000, { dtype = "float16" }):mean():item()) -- its sum would be infinite
    assert.equal(math.huge, pl.full({ 80000 }, 1000, { dtype = "float16" }):sum():item())
  end)
end)

-- Rounding of a double (exact in float32) to a format with `digits` bits of mantissa, by its definition.
local function rounded(x, digits, least, greatest)
  if x ~= x or math.abs(x) == math.huge or x == 0 then return x end
  local exponent = math.max(math.floor(math.log(math.abs(x), 2) + 1e-12), least)
  local unit = 2.0 ^ (exponent - digits)
  local scaled = x / unit
  local below = math.floor(scaled)
  local rest = scaled - below
  local whole = (rest > 0.5 or (rest == 0.5 and below % 2 == 1)) and below + 1 or below
  local y = whole * unit
  if math.abs(y) > greatest then return x > 0 and math.huge or -math.huge end
  return y
end

local formats <const> = {
  float16 = { digits = 10, least = -14, greatest = 65504 },
  bfloat16 = { digits = 7, least = -126, greatest = 2 ^ 127 * (2 - 2 ^ -7) },
}

describe("16-bit floats", function()
  for dtype, f in pairs(formats) do
    it(dtype .. " rounds to nearest, ties to even, in every range", function()
      local unit, list = 2.0 ^ -f.digits, {}
      for _, exponent in ipairs { -149, -140, -133, -127, -126, -125, -25, -24, -20, -15, -14, -13, -1, 0, 1, 9, 15,
        16, 127 } do
        for _, mantissa in ipairs { 1, 1 + unit, 1 + unit / 2, 1 + unit * 1.5, 1 + unit * 0.75, 2 - unit, 2 - unit / 2,
          1.7 } do
          local x = pl.tensor({ mantissa * 2.0 ^ exponent }):item() -- as float32 has it
          list[#list + 1], list[#list + 2] = x, -x
        end
      end
      table.move({ 0, math.huge, -math.huge, 0 / 0, 65504, 65519.99, 65520, 3.3895e38 }, 1, 8, #list + 1, list)
      local single = pl.tensor(list)
      local got, expected = single:to(dtype), {}
      for i, x in ipairs(single:totable()) do expected[i] = rounded(x, f.digits, f.least, f.greatest) end
      check.near(expected, got)
      check.near(expected, got:to "float64")
      check.near(expected, double(single:totable()):to(dtype))
      check.near(expected, got:clone():reshape({ 2, -1 }):t():contiguous():t():reshape { -1 })
    end)

    it(dtype .. " keeps every one of its numbers through float32 and back", function()
      local bits = pl.arange(0, 65535, { dtype = "int64" })
      -- Numbers by their bit patterns: sign, exponent, fraction.
      local fraction, width = 2.0 ^ f.digits, 2 ^ (15 - f.digits)
      local list = {}
      for _, b in ipairs(bits:narrow(1, 1, 32768):totable()) do
        local e, m = b // (1 << f.digits), b % (1 << f.digits)
        if e < width - 1 then
          list[#list + 1] = e == 0 and m / fraction * 2.0 ^ f.least or (1 + m / fraction) * 2.0 ^ (e - 1 + f.least)
        end
      end
      local narrow = pl.tensor(list):to(dtype)
      check.near(list, narrow)
      check.near(list, -(-narrow))
    end)
  end

  it("keep the sign of zero", function()
    for _, dtype in ipairs { "float16", "bfloat16", "float32" } do
      local zero = pl.tensor({ -0.0, -1e-46 }):to(dtype)
      assert.equal(-math.huge, 1 / zero[1]:item())
      assert.equal(-math.huge, 1 / zero[2]:item())
    end
  end)
end)

describe("conversion", function()
  it("between all types keeps small whole numbers", function()
    for _, a in ipairs(types) do
      for _, b in ipairs(types) do
        local t = pl.tensor({ { 0, 1 }, { 1, 0 } }, { dtype = a })
        local u = t:t():to(b)
        assert.equal(b, u.dtype)
        check.near({ { 0, 1 }, { 1, 0 } }, u)
        assert.equal(b, t:to { dtype = b }.dtype)
      end
    end
    assert.equal("float64", pl.ones({ 1 }):double().dtype)
    assert.equal("float32", pl.ones({ 1, dtype = "bool" }):float().dtype)
    assert.equal("int64", pl.ones({ 1 }):long().dtype)
  end)

  it("to integers cuts fractions, saturates at int64, wraps below it, and makes nan 0", function()
    check.near({ 1, -1, 0, 2 }, double({ 1.9, -1.9, 0.5, 2 }):long())
    check.near({ math.maxinteger, math.mininteger, 0, math.maxinteger },
      double({ 1e300, -1e300, 0 / 0, math.huge }):long())
    check.near({ 44, 255 }, int({ 300, -1 }):to "uint8")
    check.near({ -2147483648 }, int({ 1 << 31 }):to "int32")
    check.near({ 1, 0, 1, 1 }, double({ 0.5, 0, -3, 0 / 0 }):to "bool")
    check.near({ 1, 0, 1 }, int({ 256, 0, -1 }):to "bool")
  end)

  it("to float rounds large integers", function()
    check.near({ 2.0 ^ 53 }, int({ (1 << 53) + 1 }):double())
    check.near({ 16777216 }, int({ 16777217 }):float())
  end)

  it("names what it does not know", function()
    local t = pl.ones { 1 }
    assert.matches("to: 'float8' is neither a type nor a device here", check.message(t.to, t, "float8"))
    assert.matches("to: expected the name of a type or a device, got number", check.message(t.to, t, 1))
    assert.matches("to: expected the name", check.message(t.to, t))
  end)
end)

describe("integer arithmetic", function()
  local big <const> = (1 << 53) + 1

  it("is exact above 2^53 and wraps at the ends", function()
    local t = int { big, -big, math.maxinteger }
    check.near({ big + 2, 2 - big, math.mininteger + 1 }, t + 2)
    check.near({ big * 3, -big * 3, math.maxinteger * 3 }, t * 3)
    check.near({ -big, big, -math.maxinteger }, -t)
    check.near({ big * big, big * big, 1 }, t:square())
    check.near({ math.mininteger }, -int { math.mininteger })
    check.near({ math.mininteger }, int({ math.mininteger }):abs())
    check.near({ big, big, math.maxinteger }, t:abs())
    check.near({ 1, -1, 1 }, t:sign())
    check.near({ 1, 0, 0 }, pl.eq(t, big))
    check.near({ 0, 1, 0 }, pl.lt(t, big))
    assert.equal(math.maxinteger, t:max():item())
    assert.equal(2, t:argmin(1):item())
    check.near({ big, big - 1, math.maxinteger }, pl.maximum(t, big - 1))
    check.near({ 0, 0, 5 }, pl.clamp(t, 0, 5) * int { 0, 1, 1 })
  end)

  it("wraps in the narrow types", function()
    check.near({ 0, 254 }, int({ 255, 127 }, "uint8") * 2 + int({ 2, 0 }, "uint8"))
    check.near({ -2147483648 }, int({ 2147483647 }, "int32") + 1)
    check.near({ 246 }, -int({ 10 }, "uint8"))
  end)

  it("gives remainders the divisor's sign, as Lua", function()
    local a, b = { 7, -7, 7, -7, 0, math.mininteger, 6 }, { 3, 3, -3, -3, 5, -1, -3 }
    local expected = {}
    for i = 1, #a do expected[i] = a[i] % b[i] end
    check.near(expected, int(a) % int(b))
    check.near({ 1, 2 }, int { 7, -7 } % 3)
    check.near({ 1.5, 0.5, -0.5 }, double { 5.5, -1.5, 1.5 } % double { 2, 2, -2 })
    check.near({ 1, 2 }, int({ 7, 254 }, "uint8") % 3 + int({ 0, 0 }, "uint8"))
  end)

  it("refuses division by zero", function()
    assert.matches("remainder: integer division by zero", check.message(function()
      return int { 1, 2 } % int { 1, 0 } end))
    assert.matches("remainder: integer division by zero", check.message(function() return int { 1, 2 } % 0 end))
    check.near({ math.huge, -math.huge }, int { 1, -1 } / 0)
    assert.is_true((int { 1 } % 0.0):item() ~= (int { 1 } % 0.0):item())
    check.near({}, int {} % 0)
  end)

  it("in place holds to the type", function()
    local t = int({ 1, 2 }, "int32")
    t:add_(2):mul_(3.0)
    check.near({ 9, 12 }, t)
    t:add_(int { 1, 1 }, 2)
    check.near({ 11, 14 }, t)
    t:add_(5, 2)
    check.near({ 21, 24 }, t)
    t:fill_(7.0)
    t[1] = 8.0
    check.near({ 8, 7 }, t)
    t:copy_(double { 1.7, -1.7 })
    check.near({ 1, -1 }, t)
    assert.matches("add_: value: expected an integer for int32, got 1.5", check.message(t.add_, t, 1.5))
    assert.matches("fill_: value: expected an integer for int32, got 0.5", check.message(t.fill_, t, 0.5))
    assert.matches("mul_: a int32 tensor cannot take a float32 value in place", check.message(t.mul_, t, pl.ones { 2 }))
    assert.matches("add_: alpha: expected an integer", check.message(t.add_, t, t, 0.5))
    check.near({ 1, -1 }, t)
    local flags = pl.tensor { true, false }
    flags[2] = true
    flags[1] = 0
    check.near({ 0, 1 }, flags)
  end)
end)

describe("truth values", function()
  it("count in arithmetic and come from comparisons", function()
    local b = pl.tensor { true, true, false }
    check.near({ 2, 2, 0 }, b + b)
    check.near({ -1, -1, 0 }, -b)
    check.near({ 1, 1, 0 }, b * b)
    assert.equal(2, b:sum():item())
    check.near({ 0.5, 0.5, 0 }, b / 2)
    local x = pl.tensor { 1, 2, 0 / 0 }
    for name, expected in pairs { eq = { 1, 0, 0 }, ne = { 0, 1, 1 }, lt = { 0, 0, 0 }, le = { 1, 0, 0 },
      gt = { 0, 1, 0 },
      ge = { 1, 1, 0 } } do
      local result = pl[name](x, 1)
      assert.equal("bool", result.dtype)
      check.near(expected, result, 0, name)
    end
    assert.equal(1.0, pl.lt(1, 2))
    assert.matches("use pl.lt, le, gt or ge", check.message(function() return x < x end))
    assert.matches("use pl.lt, le, gt or ge", check.message(function() return x <= 1 end))
  end)
end)

describe("nan", function()
  local nan <const> = 0 / 0
  it("is not hidden by extremes, relu or clamp", function()
    for _, dtype in ipairs { "float16", "bfloat16", "float32", "float64" } do
      local t = pl.tensor({ 1, nan, 3, nan }, { dtype = dtype })
      check.near({ nan, nan }, pl.cat { t:max():reshape { 1 }, t:min():reshape { 1 } })
      assert.equal(2, t:argmax(1):item())
      assert.equal(2, t:argmin():item())
      check.near({ 1, nan, 3, nan }, t:relu())
      check.near({ 2, nan, 3, nan }, pl.maximum(t, 2))
      check.near({ 2, nan, 3, nan }, pl.maximum(2, t))
      check.near({ 1, nan, 2, nan }, pl.minimum(t, 2))
      check.near({ 1, nan, 2, nan }, pl.minimum(2, t))
      check.near({ 1, nan, 2, nan }, pl.clamp(t, 0, 2))
    end
  end)

  it("does not come from infinities that logsumexp can take", function()
    assert.equal(-math.huge, pl.full({ 3 }, -math.huge):logsumexp():item())
    assert.equal(math.huge, pl.tensor({ 1, math.huge }):logsumexp():item())
    check.near({ 0, 1 }, pl.tensor({ -math.huge, 5 }):softmax())
    check.near({ 0, 1, 0.5 }, pl.tensor({ -1000, 1000, 0 }):sigmoid())
    check.near({ -1000, 0 }, pl.tensor({ -1000, 1000 }):logsigmoid())
    check.near({ 0, 1000 }, pl.tensor({ -1000, 1000 }):softplus())
  end)
end)

describe("indices", function()
  local t = pl.tensor { { 1, 2, 3 }, { 4, 5, 6 } }

  it("count from 1, or from the end when negative", function()
    assert.equal(3, t[1][3]:item())
    assert.equal(6, t[-1][-1]:item())
    assert.equal(4, t[2.0][1]:item())
    check.near({ 3, 6 }, t:select(2, 3))
    check.near({ { 2, 3 }, { 5, 6 } }, t:narrow(-1, 2, 2))
  end)

  it("out of range name the place and the range", function()
    assert.is_nil(t[3]) -- where ipairs ends
    assert.matches("select: index 4 is outside dimension 1 of size 2", check.message(function() return t[4] end))
    assert.matches("select: index 0 is outside dimension 1 of size 2", check.message(function() return t[0] end))
    assert.matches("select: index %-3 is outside", check.message(function() return t[-3] end))
    assert.matches("select: index: expected an integer", check.message(function() return t[1.5] end))
    for _, wrong in ipairs { 0, 4, -1 } do
      local index = int { 1, wrong }
      local pattern = ("index: value %s at position 2 is outside 1..3"):format(tostring(wrong):gsub("%-", "%%-"))
      assert.matches(pattern, check.message(t.index_select, t, 2, index))
      assert.matches(pattern, check.message(t.gather, t, 2, index:unsqueeze(1)))
      assert.matches(pattern, check.message(t.scatter_add, t, 2, index:unsqueeze(1), pl.ones { 1, 2 }))
      assert.matches(pattern, check.message(pl.embedding, t:t():contiguous(), index))
      assert.matches(pattern, check.message(pl.one_hot, index, 3))
      assert.matches(pattern, check.message(pl.cross_entropy, t, index))
    end
  end)

  it("are integers of any width", function()
    for _, dtype in ipairs { "uint8", "int32", "int64" } do
      check.near({ { 3, 1 }, { 6, 4 } }, t:index_select(2, int({ 3, 1 }, dtype)))
    end
    assert.matches("index_select: index: expected int64, int32 or uint8, got float32",
      check.message(t.index_select, t, 1, pl.ones { 1 }))
    assert.matches("gather: index: .* got bool", check.message(t.gather, t, 1, pl.ones { 1, 1, dtype = "bool" }))
    assert.matches("labels: expected int64 class numbers from 1, got float32",
      check.message(pl.cross_entropy, t, pl.ones { 2 }))
  end)
end)

describe("empty and dimensionless tensors", function()
  it("pass through everything that has a meaning for them", function()
    for _, dtype in ipairs { "float32", "int64", "bool" } do
      local none = pl.zeros { 0, 3, dtype = dtype }
      assert.same({ 0, 3 }, (none + 1).shape)
      assert.same({ 0, 3 }, (none * pl.ones { 3, dtype = dtype }).shape)
      assert.same({ 3, 0 }, none:t():contiguous().shape)
      assert.same({ 0, 3 }, none:to("float64").shape)
      assert.equal(0, none:sum():item())
      check.near({ 0, 0, 0 }, none:sum(1))
      assert.same({ 0 }, none:sum(2).shape)
      assert.same({ 0 }, none:argmax(2).shape)
      assert.same({ 0, 3 }, none:cumsum(1).shape)
      assert.same({ 2, 3 }, pl.cat({ none, pl.zeros { 2, 3, dtype = dtype } }).shape)
      assert.same({ 0 }, none:reshape({ -1 }).shape)
      assert.same({ 0, 7 }, none:reshape({ 0, 7 }).shape)
      assert.same({ 4, 0, 3 }, none:expand({ 4, 0, 3 }).shape)
      assert.same({ 0, 2 }, none:index_select(2, int { 1, 3 }).shape)
      assert.same({ 0, 3 }, none:index_select(1, int {}).shape)
      assert.matches("max, min, argmax and argmin need at least one element", check.message(none.max, none))
      none:fill_(1)
      none:add_(none)
      assert.matches("^tensor %[0, 3%]", tostring(none))
    end
    local none = pl.zeros { 0, 3 }
    for _, f in ipairs { "softmax", "log_softmax", "layer_norm", "rms_norm" } do assert.same({ 0, 3 },
      none[f](none).shape) end
    assert.same({ 0, 2 }, none:matmul(pl.zeros { 3, 2 }).shape)
    check.near({ { 0, 0 }, { 0, 0 } }, pl.zeros({ 2, 0 }):matmul(pl.zeros { 0, 2 }))
    check.near({ { { 0 } } }, pl.zeros({ 1, 1, 0 }):matmul(pl.zeros { 1, 0, 1 }))
    assert.same({ 0 }, pl.cross_entropy(none, int {}, { reduction = "none" }).shape)
    assert.equal(0, pl.cross_entropy(none, int {}, { reduction = "sum" }):item())
    assert.same({ 0, 3 }, none:dropout(0.5).shape)
    assert.is_true(none:mean():item() ~= none:mean():item())
    assert.same({ 0, 3 }, pl.rand({ 0, 3 }).shape)
    assert.equal(0, #none)
    local leaf = pl.zeros({ 0, 3 }):requires_grad();
    (leaf * 2):sum():backward()
    assert.same({ 0, 3 }, leaf.grad.shape)
  end)

  it("of no dimensions are numbers in a tensor", function()
    local t = double(3)
    assert.equal(9, (t * t):item())
    assert.equal(3, t:sum():item())
    assert.equal(3, t:max():item())
    assert.equal(1, t:argmax():item())
    assert.equal(3, t:mean():item())
    assert.equal(3, t:logsumexp():item())
    assert.same({ 1 }, t:unsqueeze(1).shape)
    assert.same({ 1 }, t:reshape({ 1 }).shape)
    assert.same({}, t:squeeze().shape)
    assert.same({}, t:permute({}).shape)
    assert.same({ 2, 2 }, t:expand({ 2, 2 }).shape)
    assert.same({ 2 }, pl.stack({ t, t }).shape)
    assert.equal(0, #t)
    assert.matches("a tensor without dimensions has no dimension", check.message(t.softmax, t))
    assert.matches("dimension 1 is outside 1..0", check.message(function() return t[1] end))
    t:add_(1)
    assert.equal(4, t:item())
    assert.equal("tensor [] float64 cpu 4.0000", tostring(t))
  end)

  it("too large to exist are an error, whatever the other sizes", function()
    local huge <const> = 1 << 62
    for _, shape in ipairs { { huge, huge }, { huge, huge, 0 }, { 0, huge, huge }, { huge } } do
      assert.matches("too many elements", check.message(pl.zeros, shape))
    end
    local one = pl.ones { 1 }
    assert.matches("expand: .* too many elements", check.message(one.expand, one, { huge, huge }))
    assert.matches("reshape: .* too many elements", check.message(one.reshape, one, { huge, huge, -1 }))
    assert.matches("narrow: ", check.message(one.narrow, one, 1, 1, math.maxinteger))
    assert.matches("narrow: ", check.message(one.narrow, one, 1, math.maxinteger, 1))
    assert.matches("select: ", check.message(one.select, one, 1, math.mininteger))
    assert.matches("sum: dim: dimension", check.message(one.sum, one, math.mininteger))
    assert.matches("elements are too many", check.message(pl.arange, 1, math.huge))
    assert.matches("elements are too many", check.message(pl.arange, 0 / 0, 1))
  end)
end)
