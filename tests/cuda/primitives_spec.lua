-- The GPU against the CPU at sizes that take many blocks and all paths of a kernel: values, types, strides, errors that
-- come later, memory. Skips itself where there is no GPU; compile_test.c and cache_test.c need none.
local pl = require "perilune"
local core = require "perilune.core"
local check = require "tests.tensor.check"
local devices = require "tests.devices"

local missing, only_one = devices.missing "cuda:0", devices.missing "cuda:1"
local gpu, second = not missing and "cuda:0" or nil, not only_one and "cuda:1" or nil

local floats <const> = { "float64", "float32", "bfloat16", "float16" }
-- Sums of thousands of terms, equal ones among them; and one rounding of a result.
local of_sums <const> = { float64 = 1e-12, float32 = 1e-5, bfloat16 = 8e-3, float16 = 1e-3 }
local epsilon <const> = { float64 = 1e-15, float32 = 1e-7, bfloat16 = 4e-3, float16 = 5e-4 }

-- Distance of two tensors over the size of the first, both in float64 on the CPU.
local function distance(expected, got)
  expected, got = expected:detach():to("cpu", "float64"), got:detach():to("cpu", "float64")
  assert.same(expected.shape, got.shape)
  local size = expected:norm():item()
  return (expected - got):norm():item() / (size > 0 and size or 1)
end

local function close(expected, got, limit, what)
  local d = distance(expected, got)
  assert.is_true(d <= limit, ("%s: relative distance %.3g, expected at most %.3g"):format(what, d, limit))
end

-- The same numbers on both sides, and the call on each.
local function compare(call, inputs, limit, what)
  local there = {}
  for i, t in ipairs(inputs) do there[i] = t:to(gpu) end
  local expected, got = { call(table.unpack(inputs)) }, { call(table.unpack(there)) }
  for i, t in ipairs(expected) do
    assert.equal(t.dtype, got[i].dtype, what)
    assert.equal(gpu, got[i].device, what)
    close(t, got[i], limit, ("%s, result %d"):format(what, i))
  end
end

local function views(t)
  local last = t:size(-1)
  return { plain = t, transposed = t:transpose(1, -1), narrowed = t:narrow(-1, last // 3 + 1, last // 2 + 1),
    spread = t:narrow(1, 1, 1):expand(t.shape) }
end

if missing then
  describe("on the GPU", function() pending(missing) end)
end

(gpu and describe or function() end)("on the GPU", function()
  before_each(function() pl.seed(5) end)

  it("gradients of two operands at once are the CPU's", function()
    local function gradients(f)
      return function(a, b)
        a, b = a:detach():requires_grad(), b:detach():requires_grad()
        local y = f(a, b);
        (y * y:detach()):sum():backward()
        return a.grad, b.grad
      end
    end
    for _, dtype in ipairs(floats) do
      for _, shapes in ipairs { { { 70001 }, { 70001 } }, { { 64, 1000 }, { 1000 } }, { { 33, 1 }, { 33, 258 } } } do
        local operands = {}
        for i, shape in ipairs(shapes) do
          operands[i] = (pl.rand(table.move(shape, 1, #shape, 1, { dtype = "float64" })) + 0.5):to(dtype)
        end
        for name, f in pairs { mul = pl.mul, div = pl.div, swiglu = pl.swiglu, pow = pl.pow } do
          compare(gradients(f), operands, 20 * epsilon[dtype], ("%s of %s"):format(name, dtype))
        end
      end
    end
  end)

  it("elementwise operations of any strides are the CPU's", function()
    for _, dtype in ipairs(floats) do
      for _, shape in ipairs { { 70001 }, { 100, 1001 }, { 128, 256 }, { 9, 33, 130 } } do
        local a = pl.rand(table.move(shape, 1, #shape, 1, { dtype = "float64" })):to(dtype) + 0.5
        for name, view in pairs(views(a)) do
          local what = ("%s %s of rank %d"):format(name, dtype, #shape)
          compare(function(x) return x * 2 + 1, x:exp(), x:transpose(1, -1):contiguous() end, { view },
            4 * epsilon[dtype], what)
          compare(function(x, y) return x + y, x / y, x:gt(y) end, { view, view:clone() }, 4 * epsilon[dtype], what)
          compare(function(x, y) return x * y, y - x end, { view, a:narrow(-1, 1, 1):reshape { -1 }[1] },
            4 * epsilon[dtype], what .. " with a scalar")
        end
      end
    end
  end)

  it("rows, columns and whole blocks broadcast", function()
    local x, row, column = pl.randn { 65, 1000 }, pl.randn { 1000 }, pl.randn { 65, 1 }
    compare(function(a, b, c) return a + b, a * c, b - c, (a + b):maximum(c) end, { x, row, column }, 1e-7, "broadcast")
    local cube = pl.randn { 12, 31, 64 }
    compare(function(a, b) return a + b, b:unsqueeze(2) * a end, { cube, cube:select(2, 3):unsqueeze(2) }, 1e-7, "cube")
  end)

  it("every type converts to every other", function()
    local types <const> = { "bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64" }
    local values = { 0, 1, 2, 100, 3.5, 7.25, 0.1, 65000, 1e-6 }
    for _, from in ipairs(types) do
      local a = pl.tensor(values, { dtype = "float64" }):to(from)
      for _, to in ipairs(types) do
        check.near(a:to(to):totable(), a:to(gpu):to(to):totable(), 0, from .. " to " .. to)
        local odd = pl.tensor({ 0, -1.5, 3e9, -3e9, 1e19, 1 / 0, -1 / 0, 0 / 0 }, { dtype = "float64" }):to(from)
        check.near(odd:to(to):totable(), odd:to(gpu):to(to):totable(), 0, "odd " .. from .. " to " .. to)
      end
    end
  end)

  it("the variance of values far from 0 keeps its digits", function()
    -- A mean of 1000 is kept to 6e-5 in float32; what squares and subtracts would lose every digit.
    for dtype, limit in pairs { float32 = 1e-4, float64 = 1e-10 } do
      for _, shape in ipairs { { 3, 70000 }, { 70000, 3 }, { 1501, 264 }, { 600, 7, 40 } } do
        local a = (pl.randn(table.move(shape, 1, #shape, 1, { dtype = "float64" })) + 1000):to(dtype)
        for dim = 1, #shape do
          compare(function(x) return x:var(dim), x:transpose(1, -1):var(dim) end, { a }, limit, dtype .. " var")
        end
        compare(function(x) return x:var(), x:std() end, { a }, limit, dtype .. " var of all")
      end
      local equal = pl.full({ 300, 700, device = gpu, dtype = dtype }, 3e18)
      for dim = 1, 2 do assert.is_true(equal:var(dim):max():item() < 1e27, "of equal values") end
    end
  end)

  it("reductions are the CPU's", function()
    for _, dtype in ipairs(floats) do
      for _, shape in ipairs {
        { 83005 }, { 3, 24000 }, { 24000, 1 }, { 24000, 3 }, { 20001, 8 }, { 150, 700 }, { 2000, 40 }, { 8, 40, 257 },
      } do
        local a = pl.randn(table.move(shape, 1, #shape, 1, { dtype = "float64" })):to(dtype)
        local forms = views(a)
        if dtype == "float16" then forms.spread = nil end -- the sum of equals passes what it holds
        for name, view in pairs(forms) do
          local what = ("%s %s [%s]"):format(name, dtype, table.concat(shape, ", "))
          for dim = 1, #shape do
            compare(function(x) return x:sum(dim) end, { view }, of_sums[dtype], "sum of " .. what)
            compare(function(x) return x:mean(dim), x:norm(dim) end, { view }, of_sums[dtype], "mean, norm of " .. what)
            if name ~= "spread" then -- of equals it is 0, or what rounding leaves
              compare(function(x) return x:var { dim = dim, correction = 0 } end, { view }, of_sums[dtype],
                "var of " .. what)
            end
            compare(function(x) return x:max(dim) end, { view }, 0, "max of " .. what)
            compare(function(x) return x:argmin(dim) end, { view }, 0, "argmin of " .. what)
          end
          compare(function(x) return x:min(), x:argmax() end, { view }, 0, "extrema of " .. what)
          -- The terms nearly cancel out: the error is small beside their sizes.
          local error_of_sum = math.abs(view:to(gpu):sum():double():item() - view:sum():double():item())
          assert.is_true(error_of_sum <= of_sums[dtype] * view:double():abs():sum():item(), what)
        end
        if #shape == 3 then
          compare(function(x) return x:sum { 1, 3 }, x:sum { 1, 2 } end, { a }, of_sums[dtype], "two axes")
        end
      end
    end
  end)

  it("whole numbers and truth values add up exactly, NaN wins, the first of equals is found", function()
    local a = (pl.rand { 40, 5000 } * 200 - 100):to "int64"
    for _, dtype in ipairs { "int64", "int32" } do
      compare(function(x) return x:sum(1), x:sum(2), x:sum(), x:max(1), x:argmax(2), x:argmin() end, { a:to(dtype) }, 0,
        dtype)
    end
    compare(function(x) return x:gt(0):sum(), x:gt(0):sum(2) end, { a }, 0, "bool")
    local holes = pl.randn { 3000, 20 }
    holes[77][3] = 0 / 0
    holes[2077][3] = 0 / 0
    local there = holes:to(gpu)
    for _, name in ipairs { "argmax", "argmin" } do
      assert.same(holes[name](holes, 1):totable(), there[name](there, 1):totable())
      assert.same(holes[name](holes):totable(), there[name](there):totable())
    end
    local top = there:max(1):totable()
    assert.is_true(top[3] ~= top[3])
    assert.same(holes:max(1):totable()[4], top[4])
    assert.equal(1, pl.zeros({ 100000, device = gpu }):argmax():item())
  end)

  it("many rows of 16 bits are reduced by warps", function()
    local a = pl.randint(-100, 100, { 8200, 2200 }):to "bfloat16"
    compare(function(x) return x:argmax(2), x:argmin(2), x:max(2) end, { a }, 0, "extrema")
    compare(function(x) return x:var(2), x:norm(2) end, { a }, of_sums.bfloat16, "var, norm")
  end)

  it("large tensors of small elements are turned over", function()
    for _, shape in ipairs { { 4096, 4352 }, { 4099, 4353 } } do
      local a = pl.randint(0, 200, shape)
      for _, dtype in ipairs { "uint8", "float16", "bfloat16" } do
        local x = a:to(dtype)
        local turned = x:to(gpu):t():contiguous():to "cpu"
        assert.equal(x:numel(), pl.eq(x, turned:t()):sum():item(), dtype)
      end
      local turned = a:to("uint8"):to(gpu):t():to("bfloat16"):to "cpu"
      assert.equal(a:numel(), pl.eq(a:to "bfloat16", turned:t()):sum():item(), "with conversion")
    end
  end)

  it("softmax and its gradient are the CPU's", function()
    for _, dtype in ipairs(floats) do
      for _, shape in ipairs { { 500, 3 }, { 70, 100 }, { 9, 5000 }, { 5, 4096 }, { 4, 30, 65 } } do
        local a = pl.randn(table.move(shape, 1, #shape, 1, { dtype = "float64" })):to(dtype) * 3
        for dim = 1, #shape do
          compare(function(x)
            local leaf = x:detach():clone():requires_grad()
            local y = leaf:softmax(dim)
            local z = leaf:log_softmax(dim);
            ((y * y):sum() + (z * x):sum()):backward()
            return y, z, leaf.grad
          end, { a }, 8 * epsilon[dtype], ("softmax of %s along %d"):format(dtype, dim))
        end
      end
    end
    -- A mask of -inf must not spoil what its neighbours add up to.
    for _, shape in ipairs { { 6, 300 }, { 2, 40000 } } do
      local masked = pl.randn(shape)
      for row = 1, shape[1] do masked[row]:narrow(1, 1, shape[2] // 2):fill_(-1 / 0) end
      compare(function(x) return x:softmax(2), x:t():contiguous():softmax(1) end, { masked }, 1e-6, "masked")
    end
  end)

  -- One row in registers of few and of many threads, longer than registers, and in slices for several blocks.
  local row_shapes <const> = { { 700, 2 }, { 300, 7 }, { 33, 64 }, { 9, 513 }, { 5, 2000 }, { 3, 12800 }, { 2, 50304 },
    { 1, 300000 } }

  it("softmax of rows of all lengths is the CPU's, along rows and across them", function()
    for _, dtype in ipairs(floats) do
      for _, shape in ipairs(row_shapes) do
        local x = (pl.randn { dtype = "float64", table.unpack(shape) } * 3):to(dtype)
        for dim = 1, 2 do
          local given = dim == 2 and x or x:t():contiguous()
          compare(function(a)
            local leaf = a:detach():clone():requires_grad()
            local y, z = leaf:softmax(dim), leaf:log_softmax(dim);
            ((y * y):sum() + (z * a):sum()):backward()
            return y, z, leaf.grad
          end, { given }, 10 * epsilon[dtype], ("%s of %d along %d"):format(dtype, shape[2], dim))
        end
      end
    end
  end)

  it("layer norm, RMS norm and their gradients are the CPU's", function()
    local function norms(x, w, b)
      local leaf, weight, bias = x:detach():requires_grad(), w:clone():requires_grad(), b:clone():requires_grad()
      local y = leaf:layer_norm(weight, bias, 1e-2)
      local z = leaf:rms_norm(weight, 1e-2);
      (y * y:detach():tanh() + z * x:sigmoid()):sum():backward()
      return y, z, leaf.grad, weight.grad, bias.grad
    end
    for _, dtype in ipairs(floats) do
      for _, shape in ipairs(row_shapes) do
        local x = pl.randn({ dtype = "float64", table.unpack(shape) }):to(dtype)
        local w, b = pl.randn({ shape[2], dtype = "float64" }):to(dtype), pl.randn({ shape[2] }):to(dtype)
        local what = ("%s of %d"):format(dtype, shape[2])
        compare(norms, { x, w, b }, 40 * epsilon[dtype], what)
        compare(norms, { x:t():contiguous():t(), w, b }, 40 * epsilon[dtype], what .. " transposed")
        compare(norms, { pl.cat({ x, x }, 2):narrow(2, 2, shape[2]), w, b }, 40 * epsilon[dtype], what .. " narrowed")
      end
    end
    local x, w = pl.randn({ 3000, 100 }):to "bfloat16", pl.randn { 100 }
    compare(norms, { x, w, w:to "bfloat16" }, 1e-3, "a weight of another type")
    local there, sums = x:to(gpu), {}
    for i = 1, 2 do sums[i] = select(4, norms(there, w:to(gpu), w:to(gpu))) end
    assert.equal(0, distance(sums[1], sums[2]))
  end)

  it("a norm beside a residual adds its gradient to the other's as the CPU does", function()
    for _, dtype in ipairs(floats) do
      for _, shape in ipairs { { 3000, 768 }, { 70, 4099 }, { 5, 70000 } } do
        local x = pl.randn({ dtype = "float64", table.unpack(shape) }):to(dtype)
        local w, g = pl.randn({ shape[2] }):to(dtype), pl.randn(shape):to(dtype)
        for _, norm in ipairs { "layer_norm", "rms_norm" } do
          compare(function(a, weight, arrived)
            a, weight = a:detach():requires_grad(), weight:detach():requires_grad()
            local b = a * 2;
            ((b + b[norm](b, weight) * 3) * arrived):sum():backward()
            return a.grad, weight.grad
          end, { x, w, g }, 20 * epsilon[dtype], ("%s of %d in %s"):format(norm, shape[2], dtype))
        end
      end
    end
  end)

  it("cross-entropy and its gradient are the CPU's, and keep nothing of the logits' size", function()
    for _, dtype in ipairs(floats) do
      for _, shape in ipairs(row_shapes) do
        local x = (pl.randn { dtype = "float64", table.unpack(shape) } * 3):to(dtype)
        local labels = (pl.rand { shape[1] } * shape[2]):to "int64" + 1
        for _, options in ipairs { {}, { ignore_index = 1 }, { label_smoothing = 0.1, ignore_index = 0 } } do
          compare(function(logits, wanted)
            local leaf = logits:detach():requires_grad()
            local mean = pl.cross_entropy(leaf, wanted, options)
            options.reduction = "none"
            local each = pl.cross_entropy(leaf, wanted, options)
            options.reduction = nil;
            (mean + (each * each:detach():cos()):sum()):backward()
            return each, leaf.grad
          end, { shape[1] > 2 and x:t():contiguous():t() or x, labels }, 60 * epsilon[dtype],
            ("%s of %d classes"):format(dtype, shape[2]))
        end
      end
    end
    local logits = pl.randn({ 64, 50304, device = gpu }):to("bfloat16"):requires_grad()
    local labels = pl.ones { 64, dtype = "int64", device = gpu }
    local _ <close> = pl.scope()
    local before = pl.memory()[gpu].live
    local loss = pl.cross_entropy(logits, labels)
    assert.is_true(pl.memory()[gpu].live - before < 64 * 50304)
    loss:backward()
    assert.is_true(pl.memory()[gpu].live - before < 64 * 50304 * 3)
  end)

  it("the cross-entropy of a linear layer in chunks is that of all its outputs", function()
    for _, dtype in ipairs(floats) do
      local x, labels = pl.randn({ 3000, 96 }):to(gpu, dtype), pl.randint(0, 5003, { 3000 }, { device = gpu })
      local weight = (pl.randn({ 5003, 96 }) * 0.1):to(gpu, dtype)
      local function results(loss)
        local a, w = x:detach():requires_grad(), weight:detach():requires_grad()
        local value = loss(a, w)
        value:backward()
        return { value, a.grad, w.grad }
      end
      -- The gradient of an average over 3000 rows would be lost below the smallest float16.
      local reduction = dtype == "float16" and "sum" or "mean"
      local expected = results(function(a, w)
        return pl.cross_entropy(a:matmul(w:t()), labels, { ignore_index = 0, reduction = reduction })
      end)
      for _, chunk in ipairs { 700, 3000 } do
        local got = results(function(a, w)
          return pl.linear_cross_entropy(a, w, labels, { ignore_index = 0, chunk = chunk, reduction = reduction })
        end)
        for i, t in ipairs(expected) do close(t, got[i], of_sums[dtype], dtype .. ", result " .. i) end
      end
    end
  end)

  it("random numbers are the CPU's", function()
    local function draw(device)
      pl.seed(77)
      return pl.rand { 1003, 7, device = device }, pl.randn { 5001, device = device },
        pl.randn { 33, dtype = "float64", device = device }, pl.rand { 64, dtype = "bfloat16", device = device },
        pl.randint and pl.randint(1, 1000, { 400, device = device }) or nil
    end
    local here, there = { draw "cpu" }, { draw(gpu) }
    for i, t in ipairs(here) do
      close(t, there[i], i == 2 and 1e-8 or i == 3 and 1e-15 or 0, "draw " .. i)
    end
    pl.seed(3)
    local kept = pl.ones({ 10000, device = gpu }):dropout(0.25)
    pl.seed(3)
    close(pl.ones({ 10000 }):dropout(0.25), kept, 1e-7, "dropout")
  end)

  it("products are the CPU's, at full precision, of any strides and batches", function()
    local limit <const> = { float64 = 1e-14, float32 = 1e-6, bfloat16 = 4e-3, float16 = 5e-4 }
    for _, dtype in ipairs(floats) do
      local function m(...) return pl.randn({ dtype = "float64", ... }):to(dtype) end
      local function product(a, b) return a:matmul(b) end
      compare(product, { m(67, 130), m(130, 45) }, limit[dtype], dtype)
      compare(product, { m(130, 67):t(), m(45, 130):t() }, limit[dtype], dtype .. " transposed")
      compare(product, { m(5, 67, 130), m(5, 130, 45) }, limit[dtype], dtype .. " batch")
      compare(product, { m(3, 4, 17, 30), m(4, 30, 9) }, limit[dtype], dtype .. " broadcast batch")
      compare(product, { m(17, 5, 30):transpose(1, 2), m(5, 9, 30):transpose(2, 3) }, limit[dtype], dtype .. " views")
      local spread = m(3, 30, 9):narrow(3, 2, 4):unsqueeze(1):expand { 4, 3, 30, 4 }
      compare(product, { m(3, 4, 30, 17):transpose(1, 2):transpose(3, 4), spread }, limit[dtype], dtype .. " odd views")
      compare(product, { m(20, 30):narrow(2, 3, 20), m(20, 1):expand { 20, 6 } }, limit[dtype], dtype .. " expanded")
      compare(product, { m(1, 300), m(300, 1) }, 4 * limit[dtype], dtype .. " dot")
    end
  end)

  it("products of float32 are rounded to tf32 only when allowed", function()
    local a, b = pl.randn { 200, 300, device = gpu }, pl.randn { 300, 100, device = gpu }
    local exact = a:double():matmul(b:double())
    assert.is_false(pl.tf32())
    close(exact, a:matmul(b), 1e-6, "full precision")
    pl.tf32(true)
    local rounded = a:matmul(b)
    assert.is_true(pl.tf32(false))
    local d = distance(exact, rounded)
    assert.is_true(d > 1e-5 and d < 1e-3, ("tf32: relative distance %.3g"):format(d))
    close(exact, a:matmul(b), 1e-6, "full precision again")
  end)

  it("picks and adds at indices like the CPU, and adds in the same order every time", function()
    for _, dtype in ipairs { "float32", "float64" } do
      local table_, index = pl.randn { 1000, 48, dtype = dtype }, (pl.rand { 70, 50 } * 1000):to "int64" + 1
      local function embed(t, i)
        local leaf = t:detach():clone():requires_grad()
        local rows = pl.embedding(leaf, i);
        (rows * rows):sum():backward()
        return rows, leaf.grad
      end
      compare(embed, { table_, index }, 4 * epsilon[dtype], "embedding of " .. dtype)
      compare(embed, { table_, index:to "int32" }, 4 * epsilon[dtype], "embedding by int32")
      compare(embed, { table_:narrow(1, 1, 3), index:remainder(3) + 1 }, 100 * epsilon[dtype], "few rows")
      compare(function(t, i) return t:index_select(2, i), t:t():index_select(1, i) end,
        { table_, (pl.rand { 333 } * 48):to "int64" + 1 }, 0, "index_select")
      compare(function(t, i) return t:gather(1, i), t:gather(2, i:remainder(48) + 1) end,
        { table_, index:narrow(2, 1, 40) }, 0, "gather")
      local source, place = pl.randn { 4000, dtype = dtype }, (pl.rand { 4000 } * 300):to "int64" + 1
      compare(function(s, p) return pl.zeros_like(s:narrow(1, 1, 300)):scatter_add(1, p, s) end, { source, place },
        10 * epsilon[dtype], "scatter_add")
      compare(function(s, p) return pl.zeros_like(s:narrow(1, 1, 6)):scatter_add(1, p, s) end,
        { source:reshape { 40, 100 }, (pl.rand { 40, 100 } * 6):to "int64" + 1 }, 10 * epsilon[dtype], "lines")
    end
    -- 16-bit types: sums in float32, rounded once; rows that are whole vectors, and such that are not.
    for dtype, limit in pairs { bfloat16 = 3e-3, float16 = 4e-4 } do
      for _, width in ipairs { 64, 12, 7 } do
        for _, rows in ipairs { 2, 5000 } do
          local place = (pl.rand { 20000 } * rows):to "int64" + 1
          local g = (pl.randn { 20000, width } + 1):to(dtype)
          local exact = pl.zeros({ rows, width }):requires_grad();
          (exact:index_select(1, place) * g:float()):sum():backward()
          local leaf = pl.zeros({ rows, width, dtype = dtype, device = gpu }):requires_grad();
          (leaf:index_select(1, place:to(gpu)) * g:to(gpu)):sum():backward()
          assert.equal(dtype, leaf.grad.dtype)
          close(exact.grad, leaf.grad, limit, ("%s, %d rows of %d"):format(dtype, rows, width))
        end
      end
    end
    -- Runs of equals of more than one piece, next to short ones.
    for _, rows in ipairs { 1, 3, 900 } do
      local source, place = pl.randn { 70000, 5 }, (pl.rand { 70000 } ^ 3 * rows):to "int64" + 1
      local function add(s, p)
        local leaf = pl.zeros({ rows, 5, device = s.device }):requires_grad();
        (leaf:index_select(1, p) * s):sum():backward()
        return leaf.grad
      end
      compare(add, { source, place }, 1e-4, ("runs of %d"):format(70000 // rows))
      local there, at = source:to(gpu), place:to(gpu)
      assert.equal(0, distance(add(there, at), add(there, at)))
    end
    local big, where = pl.randn({ 300000, 4, device = gpu }), (pl.rand { 300000, device = gpu } * 70000):to "int64" + 1
    local leaf = pl.zeros({ 70000, 4, device = gpu }):requires_grad()
    local sums = {}
    for i = 1, 3 do
      leaf.grad = nil;
      (leaf:index_select(1, where) * big):sum():backward()
      sums[i] = leaf.grad:to "cpu"
    end
    assert.equal(0, distance(sums[1], sums[2]))
    assert.equal(0, distance(sums[1], sums[3]))
    local here = pl.zeros({ 70000, 4 }):requires_grad();
    (here:index_select(1, where:to "cpu") * big:to "cpu"):sum():backward()
    assert.equal(0, distance(here.grad, sums[1]))
  end)

  it("refuses to add into 16-bit types", function()
    for _, dtype in ipairs { "bfloat16", "float16" } do
      local t = pl.zeros { 3, dtype = dtype, device = gpu }
      local ok, message = pcall(t.scatter_add, t, 1, pl.tensor({ 1 }, { dtype = "int64", device = gpu }),
        pl.ones { 1, dtype = dtype, device = gpu })
      assert.is_false(ok)
      assert.matches("scatter_add: expected float32, float64 or int64, got " .. dtype, tostring(message), 1, true)
    end
  end)

  it("says later which index was wrong, and goes on", function()
    local t = pl.randn { 5, 4, device = gpu }
    for name, spoil in pairs {
      ["value 6 at position 2 is outside 1..5"] = function()
        return t:index_select(1, pl.tensor({ 1, 6, 2 }, { dtype = "int64", device = gpu }))
      end,
      ["value 0 at position 3 is outside 1..4"] = function()
        return t:scatter_add(2, pl.tensor({ { 1, 2, 0 } }, { dtype = "int64", device = gpu }),
          pl.ones { 1, 3, device = gpu })
      end,
      ["value 9 at position 2 is outside 1..4"] = function()
        return pl.cross_entropy(t:narrow(1, 1, 3), { 1, 9, 2 }, { reduction = "none" })
      end,
      ["integer division by zero"] = function()
        local whole = { dtype = "int64", device = gpu }
        return pl.tensor({ 1, 2 }, whole):remainder(pl.tensor({ 3, 0 }, whole))
      end,
    } do
      local ok, message = pcall(function() return spoil():totable() end)
      assert.is_false(ok)
      assert.matches(name, message, 1, true)
      assert.matches("cuda:0", message, 1, true)
      pl.synchronize(gpu)
      assert.equal(20, t:numel())
      assert.equal(2, (pl.ones { 1, device = gpu } * 2):item())
    end
  end)

  it("gradients in every type are those of float64", function()
    local function run(dtype, device)
      pl.seed(8)
      local x, w = pl.randn({ 33, 20 }):to(device, dtype), pl.randn({ 20, 12 }):to(device, dtype):requires_grad()
      local b = pl.randn({ 12 }):to(device, dtype):requires_grad()
      local y = (x:matmul(w) + b):tanh():layer_norm();
      (y * y:sigmoid()):mean():backward()
      return w.grad, b.grad
    end
    local w, b = run("float64", "cpu")
    for dtype, limit in pairs { float64 = 1e-13, float32 = 5e-5, bfloat16 = 8e-2, float16 = 1e-2 } do
      local gw, gb = run(dtype, gpu)
      close(w, gw, limit, "weights in " .. dtype)
      close(b, gb, limit, "bias in " .. dtype)
    end
  end)

  it("Adam's steps over many parameters are the CPU's", function()
    local function train(device, dtype)
      pl.seed(2)
      local list = {}
      for i = 1, 60 do list[i] = pl.randn({ 3 * i, i % 5 * 101 }):to(device, dtype):requires_grad() end
      local optimizer = pl.optim.AdamW(list, { lr = 0.01, weight_decay = 0.1 })
      for step = 1, 3 do
        optimizer:zero_grad()
        for i, w in ipairs(list) do
          if (i + step) % 7 > 0 then (w * w):sum():backward() end
        end
        optimizer:step()
        if step == 2 then list[2]:detach():narrow(1, 2, 3):fill_(0.5) end -- from there a master starts again
      end
      return list, optimizer:state_dict()
    end
    for dtype, limit in pairs { float32 = 1e-6, float64 = 1e-14, bfloat16 = 4e-3, float16 = 5e-4 } do
      local here, state = train("cpu", dtype)
      local there, state_there = train(gpu, dtype)
      for i, w in ipairs(here) do close(w, there[i], limit, dtype .. " parameter " .. i) end
      for name, t in pairs(state) do
        if name:find "master" then
          close(t, state_there[name], 1e-5, dtype .. " " .. name)
          local parameter = there[tonumber(name:match "%d+$")]
          assert.equal(0, pl.ne(state_there[name]:to(dtype), parameter:detach()):sum():item())
        end
      end
    end
  end)

  it("norms over many gradients are the CPU's", function()
    for _, dtype in ipairs(floats) do
      local here, there, exact = {}, {}, 0
      for i = 1, 70 do
        here[i] = pl.randn({ 3, i * i, dtype = "float64" }):to(dtype)
        there[i] = here[i]:to(gpu)
        exact = exact + pl.square(here[i]:double()):sum():item()
      end
      here[71], there[71] = here[70]:t(), there[70]:t()
      exact = exact + pl.square(here[70]:double()):sum():item()
      for name, list in pairs { cpu = here, [gpu] = there } do
        local got = core.sum_of_squares(list):item()
        assert.is_true(math.abs(got - exact) <= 1e-6 * exact,
          ("%s on %s: %g, expected %g"):format(dtype, name, got, exact))
      end
    end
  end)

  it("scaling many gradients is the CPU's", function()
    for _, dtype in ipairs(floats) do
      local here, there = {}, {}
      for i = 1, 70 do
        here[i] = pl.randn({ 5, i * i, dtype = "float64" }):to(dtype)
        there[i] = here[i]:to(gpu)
      end
      here[71], there[71] = pl.randn({ 30, 7 }):to(dtype), nil
      there[71] = here[71]:to(gpu):t()
      core.scale_all(here, 0.3)
      core.scale_all(there, 0.3)
      there[71] = there[71]:t()
      for i, t in ipairs(here) do close(t, there[i], epsilon[dtype], ("%s, tensor %d"):format(dtype, i)) end
    end
  end)

  it("raises when memory runs out, with the numbers, and goes on", function()
    local ok, message = pcall(pl.zeros, { 1 << 42, device = gpu })
    assert.is_false(ok)
    assert.matches("out of memory", message)
    assert.matches("live", message)
    assert.equal(3, pl.ones({ 3, device = gpu }):sum():item())
  end)

  it("keeps its bytes over ten thousand steps", function()
    local w = pl.randn({ 32, 32, device = gpu }):requires_grad()
    local optimizer = pl.optim.AdamW({ w }, { lr = 1e-3 })
    local function steps(n)
      for _ = 1, n do
        local _ <close> = pl.scope()
        optimizer:zero_grad()
        pl.randn({ 16, 32, device = gpu }):matmul(w):tanh():sum():backward()
        optimizer:step()
      end
      collectgarbage() -- what other tests left, too
      collectgarbage()
      return pl.memory()[gpu]
    end
    local before = steps(200)
    local after = steps(10000)
    assert.equal(before.live, after.live)
    assert.equal(before.cached, after.cached)
    assert.equal(before.buffers, after.buffers)
    assert.is_true(after.peak >= after.live)
  end)

  it("gives a scope's tensors back though handles leak", function()
    local leaked, live = {}, nil
    for i = 1, 300 do
      local _ <close> = pl.scope()
      leaked[i] = pl.zeros { 1 << 20, device = gpu } + 1
      live = live or pl.memory()[gpu].live
      assert.is_true(pl.memory()[gpu].live <= live) -- less where the collector took the zeros first
    end
    assert.is_false(pcall(function() return leaked[1] + 1 end))
  end)

  if second then
    it("works on several GPUs in one program", function()
      local a, b = pl.randn { 100, 200 }, pl.randn { 200, 50 }
      local on_first, on_second = a:to(gpu), a:to(gpu):to(second)
      assert.equal(second, on_second.device)
      close(a, on_second, 0, "by way of the first")
      for i = 1, 20 do -- by turns
        close(a:matmul(b), on_first:matmul(b:to(gpu)), 1e-6, "first, turn " .. i)
        close(a:matmul(b), on_second:matmul(b:to(second)), 1e-6, "second, turn " .. i)
      end
      local w = b:to(second):requires_grad();
      (on_second:matmul(w):tanh():to(gpu) * 2):sum():backward()
      local here = b:detach():clone():requires_grad();
      (a:matmul(here):tanh() * 2):sum():backward()
      assert.equal(second, w.grad.device)
      close(here.grad, w.grad, 1e-5, "gradient across devices")
      assert.is_true(pl.memory()[second].live > 0)
      assert.is_false(pcall(function() return on_first + on_second end))
      local index = pl.tensor({ 1, 500 }, { dtype = "int64", device = second })
      local ok, message = pcall(function() return on_second:index_select(1, index):totable() end)
      assert.is_false(ok)
      assert.matches("on cuda:1", message, 1, true)
    end)
  else
    pending("works on several GPUs in one program: " .. only_one)
  end

  it("refuses to mix devices", function()
    local ok, message = pcall(function() return pl.ones { 2 } + pl.ones { 2, device = gpu } end)
    assert.is_false(ok)
    assert.matches("different devices", message)
  end)
end)

it("a name of a GPU that is not there is an error that says why", function()
  local name = gpu and "cuda:77" or "cuda"
  local ok, message = pcall(pl.zeros, { 2, device = name })
  assert.is_false(ok)
  assert.matches(("there is no '%s' here"):format(name), message, 1, true)
  if not gpu then assert.matches("cuda: .", message) end -- the driver's own words, or why this GPU was left out
  assert.is_not_nil(core.methods)
end)
