-- The kernels of attention on a GPU against the plain composition in float64 on the CPU: values and gradients for every
-- width of heads that the kernels treat in a way of its own, sizes about the tiles, memory that was full of NaN before.
local pl = require "perilune"
local attention = require "tests.attention"
local devices = require "tests.devices"

local missing <const> = devices.missing "cuda:0"
local tolerance <const> = { bfloat16 = 2e-2, float16 = 4e-3, float32 = 2e-5, float64 = 1e-12 }

-- So many bytes of the GPU's cache of freed memory hold NaN afterwards.
local function poison(bytes)
  local scope <close> = pl.scope() -- luacheck: ignore
  while bytes >= 512 do
    pl.full({ bytes // 4, device = "cuda:0" }, 0 / 0)
    pl.full({ bytes // 4, device = "cuda:0" }, 0 / 0)
    bytes = bytes // 2
  end
end

local function operand(dtype, batch, heads, positions, features)
  -- As layers make them: heads are views of [B,T,H D].
  return pl.randn({ batch, positions, heads * features, dtype = "float64" }):to(dtype)
    :reshape({ batch, positions, heads, features }):transpose(2, 3)
end

local function compare(q, k, v, option, what)
  local arriving = operand(q.dtype, q.shape[1], q.shape[2], q.shape[3], q.shape[4])
  local expected = attention.results(attention.plain, q:double(), k:double(), v:double(), arriving, option)
  poison(1 << 22)
  local first = attention.results(pl.scaled_dot_product_attention, q:to "cuda:0", k:to "cuda:0", v:to "cuda:0",
    arriving, option)
  poison(1 << 22)
  local second = attention.results(pl.scaled_dot_product_attention, q:to "cuda:0", k:to "cuda:0", v:to "cuda:0",
    arriving, option)
  for i, t in ipairs(expected) do
    local name = ("%s, %s %s"):format(what, q.dtype, attention.names[i])
    local distance = attention.distance(t, first[i])
    assert.is_true(distance <= tolerance[q.dtype], ("%s: distance %.3g"):format(name, distance))
    assert.equal(0, first[i]:ne(second[i]):sum():item(), name .. ": not the same bits again")
  end
end

if missing then
  describe("attention on the GPU", function() pending(missing) end)
end

(missing and function() end or describe)("attention on the GPU", function()
  before_each(function() pl.seed(41) end)

  local sizes <const> = { { 1, 1 }, { 15, 17 }, { 64, 64 }, { 65, 127 }, { 200, 200 }, { 1, 300 }, { 63, 321 } }

  for _, dtype in ipairs { "bfloat16", "float16" } do
    for _, features in ipairs { 16, 32, 48, 64, 80, 96, 112, 128 } do
      it(("is the plain composition for %d features in %s"):format(features, dtype), function()
        for _, size in ipairs(sizes) do
          for _, causal in ipairs { true, false } do
            compare(operand(dtype, 2, 3, size[1], features), operand(dtype, 2, 3, size[2], features),
              operand(dtype, 2, 3, size[2], features), { causal = causal },
              ("%d queries, %d keys, %d features, causal %s"):format(size[1], size[2], features, causal))
          end
        end
      end)
    end

    it("takes more queries than keys, other scales and large scores in " .. dtype, function()
      compare(operand(dtype, 1, 2, 333, 64), operand(dtype, 1, 2, 30, 64), operand(dtype, 1, 2, 30, 64), {}, "few keys")
      for _, scale in ipairs { 0.3, -0.2, 0, 1 } do
        compare(operand(dtype, 1, 2, 70, 32), operand(dtype, 1, 2, 90, 32), operand(dtype, 1, 2, 90, 32),
          { causal = true, scale = scale }, "scale " .. scale)
      end
      local q = operand(dtype, 1, 1, 130, 64)
      local y = pl.scaled_dot_product_attention((q * 100):to "cuda:0", (q * 100):to "cuda:0", q:to "cuda:0")
      assert.is_true(attention.distance(q:double(), y:to("cpu", "float64")) < tolerance[dtype], "large scores")
    end)
  end

  it("reads views of one [B,T,3 W], heads that repeat and starts that are not aligned", function()
    local x = pl.randn({ 2, 150, 3 * 128, device = "cuda:0" }):to "bfloat16"
    local part = {}
    for i = 1, 3 do part[i] = x:narrow(3, 128 * (i - 1) + 1, 128):reshape({ 2, 150, 2, 64 }):transpose(2, 3) end
    local expected = attention.plain(part[1]:to("cpu", "float64"), part[2]:to("cpu", "float64"),
      part[3]:to("cpu", "float64"), { causal = true })
    local y = pl.scaled_dot_product_attention(part[1], part[2], part[3], { causal = true })
    assert.is_true(y:transpose(2, 3):is_contiguous())
    assert.is_true(attention.distance(expected, y:to("cpu", "float64")) < tolerance.bfloat16)

    local q, k, v = part[1], x:narrow(3, 4, 64):unsqueeze(2):expand { 2, 2, 150, 64 }, part[3]:narrow(2, 1, 1)
    v = v:expand { 2, 2, 150, 64 }
    expected = attention.plain(q:to("cpu", "float64"), k:to("cpu", "float64"), v:to("cpu", "float64"), {})
    y = pl.scaled_dot_product_attention(q, k, v)
    assert.is_true(attention.distance(expected, y:to("cpu", "float64")) < tolerance.bfloat16)
  end)

  it("gives only the gradients that are asked for", function()
    local given = {}
    for i = 1, 3 do given[i] = operand("bfloat16", 1, 2, 70, 32):to "cuda:0" end
    local arriving = operand("bfloat16", 1, 2, 70, 32):to "cuda:0"
    local all = attention.results(pl.scaled_dot_product_attention, given[1], given[2], given[3], arriving, {})
    for i = 1, 3 do
      local leaf, operands = given[i]:clone():requires_grad(), table.move(given, 1, 3, 1, {})
      operands[i] = leaf
      pl.scaled_dot_product_attention(table.unpack(operands)):backward(arriving)
      assert.equal(0, leaf.grad:to("cpu", "float64"):ne(all[i + 1]):sum():item())
    end
  end)

  it("is made of other operations for the types and widths that the kernels do not take", function()
    for dtype, features in pairs { float32 = 64, float64 = 20, bfloat16 = 24, float16 = 160 } do
      local k, v = operand(dtype, 1, 2, 50, features), operand(dtype, 1, 2, 50, features)
      compare(operand(dtype, 1, 2, 40, features), k, v, { causal = true }, features .. " features")
    end
  end)

  it("goes a sequence step by step in nn.Attention as all at once", function()
    local layer = pl.nn.Attention(128, 2):to("cuda:0"):to "bfloat16"
    local x = pl.randn({ 2, 70, 128, device = "cuda:0" }):to "bfloat16"
    local whole, part, state = layer(x), {}, nil
    for _, piece in ipairs { { 1, 33 }, { 34, 1 }, { 35, 36 } } do
      part[#part + 1], state = layer:step(x:narrow(2, piece[1], piece[2]), state)
    end
    local difference = (pl.cat(part, 2):float() - whole:float()):abs():max():item()
    assert.is_true(difference < 0.03, "difference " .. difference)
  end)

  it("holds no scores of all queries", function()
    local q = pl.randn({ 1, 4, 4096, 64, device = "cuda:0" }):to("bfloat16"):requires_grad()
    collectgarbage()
    pl.reset_peak_memory("cuda:0")
    local before = pl.memory()["cuda:0"].live
    pl.scaled_dot_product_attention(q, q, q, { causal = true }):sum():backward()
    assert.is_true(pl.memory()["cuda:0"].peak - before < 4 * 4096 * 4096 * 2 / 4)
  end)
end)
