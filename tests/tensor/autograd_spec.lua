-- The graph: what flows where, what may be done twice, in place or without it, and that nothing stays behind.
local pl = require "perilune"
local core = require "perilune.core"
local check = require "tests.tensor.check"

local function leaf(data) return pl.tensor(data, { dtype = "float64" }):requires_grad() end
local function live() return pl.memory().cpu.live end

describe("gradients", function()
  local before
  before_each(function() before = check.buffers() end)
  after_each(function() assert.equal(before, check.buffers(), "buffers left") end)

  it("are summed over dimensions that broadcast", function()
    local column, row, number = leaf { { 1 }, { 2 } }, leaf { 3, 4, 5 }, leaf(2)
    local y = column * row + number
    assert.same({ 2, 3 }, y.shape)
    y:sum():backward()
    check.near({ { 12 }, { 12 } }, column.grad)
    check.near({ 3, 3, 3 }, row.grad)
    assert.equal(6, number.grad:item())
    assert.same({}, number.grad.shape)
  end)

  it("of a shared value add up", function()
    local x = leaf { 3 }
    local shared = x * x
    local y = shared * shared + shared
    y:backward(pl.ones({ 1 }))
    assert.equal(4 * 27 + 6, x.grad:item())
    local a = leaf { 2 }
    local sum = a + a + a * a
    sum:sum():backward()
    assert.equal(6, a.grad:item())
  end)

  it("take the same tensor as every operand", function()
    local x = leaf { 2, 3 }
    pl.where(x, x, x):sum():backward()
    check.near({ 1, 1 }, x.grad)
    local y = leaf { { 1, 2 }, { 3, 4 } }
    y:matmul(y):sum():backward()
    check.near({ { 7, 11 }, { 9, 13 } }, y.grad)
  end)

  it("accumulate in place until they are cleared", function()
    local x = leaf { 1, 2 };
    (x * 3):sum():backward()
    local held = x.grad;
    (x * x):sum():backward()
    check.near({ 5, 7 }, x.grad)
    check.near({ 5, 7 }, held)
    x.grad = nil
    assert.is_nil(x.grad);
    (x * 2):sum():backward()
    check.near({ 2, 2 }, x.grad)
    check.near({ 5, 7 }, held)
    x.grad = pl.ones { 1, dtype = "float64" }:expand { 2 };
    (x * 2):sum():backward()
    check.near({ 3, 3 }, x.grad)
  end)

  it("do not share memory with the seed or with each other", function()
    local a, b, seed = leaf { 1, 2 }, leaf { 3, 4 }, pl.ones { 2, dtype = "float64" };
    (a + b):backward(seed)
    a.grad:add_(10)
    check.near({ 1, 1 }, b.grad)
    check.near({ 1, 1 }, seed)
    local c = leaf { 1, 2 }
    c:backward(seed)
    c.grad:mul_(5)
    check.near({ 1, 1 }, seed)
  end)

  it("flow through views", function()
    local x = leaf { { 1, 2, 3 }, { 4, 5, 6 } }
    local y = x:t():narrow(1, 2, 2):reshape { 4 } * pl.tensor({ 1, 2, 3, 4 }, { dtype = "float64" })
    y:sum():backward()
    check.near({ { 0, 1, 3 }, { 0, 2, 4 } }, x.grad)
    x.grad = nil
    local z = x[2][3] * 2 + x[1]:sum() + x:select(2, 1):sum()
    z:backward()
    check.near({ { 2, 1, 1 }, { 1, 0, 2 } }, x.grad)
    x.grad = nil
    x:expand({ 5, 2, 3 }):transpose(1, 3):sum():backward()
    check.near({ { 5, 5, 5 }, { 5, 5, 5 } }, x.grad)
  end)

  it("of pieces that meet in one operation are one tensor without another copy", function()
    local _ <close> = pl.scope()
    for _, case in ipairs { { { 300, 128 }, 2 }, { { 4, 100, 64 }, 3 }, { { 128, 200 }, 1 } } do
      local shape, dim = case[1], case[2]
      local half = shape[dim] // 2
      local x = pl.randn(shape):requires_grad()
      local a, b = table.unpack(x:split(half, dim))
      local y = pl.swiglu(a, b)
      local seed = pl.randn_like(y)
      collectgarbage()
      pl.reset_peak_memory()
      local held = pl.memory().cpu.live
      y:backward(seed)
      if dim == #shape then assert.is_true(pl.memory().cpu.peak - held < 1.5 * x:numel() * 4) end
      local apart = { a:detach():clone():requires_grad(), b:detach():clone():requires_grad() }
      pl.swiglu(apart[1], apart[2]):backward(seed)
      assert.are.equal(0, (pl.cat({ apart[1].grad, apart[2].grad }, dim) - x.grad):abs():max():item())
    end
    -- The other way round, and pieces that leave some of the tensor out.
    local x = pl.randn({ 6, 12 }):requires_grad()
    local first, second, third = table.unpack(x:split(4, 2))
    local y = pl.swiglu(second, first):sum() + (second * third):sum()
    y:backward()
    local apart = {}
    for i, piece in ipairs { first, second, third } do apart[i] = piece:detach():clone():requires_grad() end
    local z = pl.swiglu(apart[2], apart[1]):sum() + (apart[2] * apart[3]):sum()
    z:backward()
    for i, piece in ipairs(apart) do
      assert.is_true((piece.grad - x.grad:narrow(2, 4 * i - 3, 4)):abs():max():item() < 1e-6)
    end
  end)

  it("reach several results of one operation", function()
    local x = leaf { { 1, 5 }, { 7, 2 } }
    local value, index = x:max(2)
    assert.is_false(index:needs_grad());
    (value * pl.tensor({ 2, 3 }, { dtype = "float64" })):sum():backward()
    check.near({ { 0, 2 }, { 3, 0 } }, x.grad)
  end)

  it("of equal extremes are shared when no dimension is named", function()
    local x = leaf { 4, 4, 1, 4 }
    x:max():backward()
    check.near({ 1 / 3, 1 / 3, 0, 1 / 3 }, x.grad, 1e-15)
    x.grad = nil
    x:max(1):backward()
    check.near({ 1, 0, 0, 0 }, x.grad)
  end)

  it("of a norm is zero at zero", function()
    local x = leaf { { 3, 4 }, { 0, 0 } }
    x:norm(2):sum():backward()
    check.near({ { 0.6, 0.8 }, { 0, 0 } }, x.grad, 1e-15)
    local y = leaf { 0, 0 }
    y:norm():backward()
    check.near({ 0, 0 }, y.grad)
  end)

  it("keep the type of their leaf", function()
    for _, dtype in ipairs { "float16", "bfloat16", "float32", "float64" } do
      local x = pl.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = dtype }):requires_grad()
      local w = pl.ones({ 2, dtype = "float64" }):requires_grad()
      local y = (x * w):layer_norm(w):sum() + x:max(1):sum() + x:layer_norm(w):sum() + x:to("float64"):sum()
        + x:gather(2, pl.ones { 2, 2, dtype = "int64" }):sum() + x:mean() + x:softmax():sum()
      y:backward()
      assert.equal(dtype, x.grad.dtype)
      assert.equal("float64", w.grad.dtype)
    end
  end)
end)

describe("backward", function()
  it("starts from one element, or from a seed of the tensor's shape", function()
    local x = leaf { 1, 2 }
    assert.matches("backward: a tensor of shape %[2%] needs a seed", check.message(x.backward, x * 2))
    assert.matches("backward: seed has shape %[3%], expected %[2%]",
      check.message(x.backward, x * 2, pl.ones { 3 }))
    assert.matches("backward: seed: expected a tensor, got number", check.message(x.backward, x * 2, 1));
    (x * 2):backward(pl.tensor { 1, 10 }) -- float32: converted
    check.near({ 2, 20 }, x.grad);
    (x:sum():reshape { 1, 1 } * 1):backward()
    check.near({ 3, 21 }, x.grad)
  end)

  it("takes a seed that is itself part of a graph", function()
    local x, s = leaf { 1, 2 }, leaf { 3, 4 };
    (x * 2):backward(s * 1)
    check.near({ 6, 8 }, x.grad)
    assert.is_false(x.grad:needs_grad())
    x.grad = nil
    x:backward(s * 1)
    assert.is_true(x.grad.is_leaf)
    assert.is_nil(s.grad)
  end)

  it("happens once", function()
    local x = leaf { 2 }
    local y = (x * x):exp()
    y:backward()
    assert.matches("backward: the graph through 'exp' was used up by an earlier backward", check.message(y.backward, y))
    check.near({ 4 * math.exp(4) }, x.grad, 1e-12)
  end)

  it("needs something that wants a gradient", function()
    local x = pl.ones { 1 }
    assert.matches("backward: this tensor does not depend on any", check.message(x.backward, x))
    local y = leaf { 1 };
    (y * 2):detach()
    assert.matches("does not depend", check.message(x.backward, (y * 2):detach()))
  end)

  it("gives saved buffers back while it passes", function()
    local before = check.buffers()
    local x = pl.ones { 1000, dtype = "float64" }:requires_grad()
    local base = live()
    local y = x
    for _ = 1, 20 do y = (y * 0.5):tanh() end
    local loss = y:sum()
    collectgarbage()
    assert.is_true(live() - base >= 20 * 8000) -- the results that tanh saved
    loss:backward()
    y = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_true(live() - base < 3 * 9000, "saved buffers are still held")
    loss, x = nil, nil -- luacheck: ignore
    assert.equal(before, check.buffers())
  end)

  it("refuses a value that was changed in place after it was used", function()
    local x, w = leaf { 1, 2 }, pl.tensor({ 3, 4 }, { dtype = "float64" })
    local y = (x * w):sum()
    w:add_(1)
    assert.matches("backward: a tensor that 'mul' needs was changed in place", check.message(y.backward, y))
    assert.is_nil(x.grad)
    local z = (x + w):sum() -- needs no value of w
    w:zero_()
    z:backward()
    check.near({ 1, 1 }, x.grad)
    local view, u = leaf { 1, 2 }, pl.tensor({ { 3, 4 } }, { dtype = "float64" })
    local v = (view * u[1]):sum()
    u[1] = 7 -- through another view of the same memory
    assert.matches("changed in place", check.message(v.backward, v))
  end)

  it("leaves a used parameter changeable afterwards, as optimisers do", function()
    local w = leaf { 1, 2 }
    for _ = 1, 3 do
      w.grad = nil;
      (w * w):sum():backward()
      pl.no_grad(function() w:add_(w.grad, -0.25) end)
    end
    check.near({ 0.125, 0.25 }, w)
    local y = (w * w):sum()
    pl.no_grad(function() w:zero_() end)
    assert.matches("changed in place", check.message(y.backward, y))
  end)

  it("of one result leaves another one's way open", function()
    local x = leaf { 2 }
    local a, b = x * 3, x * 4
    a:backward()
    b:backward()
    assert.equal(7, x.grad:item())
  end)

  it("passes and releases chains of 100,000 nodes without recursion", function()
    local before = check.buffers()
    local x = leaf { 1 }
    local y = x
    for _ = 1, 100000 do y = y + 1 end
    y:backward()
    assert.equal(1, x.grad:item())
    y = x
    for _ = 1, 100000 do y = y * 1 end
    y = nil -- luacheck: ignore
    collectgarbage()
    x = nil -- luacheck: ignore
    assert.equal(before, check.buffers())
  end)

  it("of a wide graph visits every node once", function()
    local x = leaf { 1 }
    local y = x
    for _ = 1, 40 do y = y + y end -- 2^40 ways through 40 nodes
    y:backward()
    assert.equal(2 ^ 40, x.grad:item())
  end)

  it("fails without leaving buffers behind", function()
    local before = check.buffers()
    do
      local x, w = leaf { 1, 2 }, pl.tensor({ 3, 4 }, { dtype = "float64" })
      local y = ((x * w):exp() + x):sum()
      w:add_(1)
      check.message(y.backward, y)
      check.message(y.backward, y)
    end
    assert.equal(before, check.buffers())
  end)
end)

describe("leaves", function()
  it("are switched on and off, others are not", function()
    local x = pl.ones { 2 }
    assert.is_true(x.is_leaf)
    assert.is_false(x:needs_grad())
    assert.equal(x, x:requires_grad())
    assert.is_true(x:needs_grad())
    local y = x * 2
    assert.is_false(y.is_leaf)
    assert.matches("requires_grad: this tensor was computed by 'mul'", check.message(y.requires_grad, y, false))
    x:requires_grad(false)
    assert.is_true((x * 2).is_leaf)
    assert.matches("requires_grad: only floating%-point tensors, got int64", check.message(function()
      pl.ones({ 2, dtype = "int64" }):requires_grad()
    end))
  end)

  it("are not changed in place while recording", function()
    local x = leaf { 1, 2 }
    for name, value in pairs { add_ = 1, mul_ = 2, fill_ = 3, copy_ = 4 } do
      assert.matches(name .. ": in%-place change of a tensor that needs a gradient", check.message(x[name], x, value))
    end
    assert.matches("in%-place change", check.message(function() x[1] = 5 end))
    pl.no_grad(function() x[1] = 5 end)
    x:detach():add_(1)
    check.near({ 6, 3 }, x)
    local y = x * 2
    assert.matches("in%-place change of a tensor computed by 'mul'", check.message(pl.no_grad, y.zero_, y))
  end)

  it("take a gradient of their own shape, type and device only", function()
    local x = pl.ones({ 2 }):requires_grad()
    x.grad = pl.tensor { 3, 4 }
    check.near({ 3, 4 }, x.grad)
    assert.matches("grad: expected float32 %[2%], got float32 %[3%]",
      check.message(function() x.grad = pl.ones { 3 } end))
    assert.matches("grad: expected float32 %[2%], got float64", check.message(function()
      x.grad = pl.ones { 2, dtype = "float64" }
    end))
    assert.matches("outside the graph", check.message(function() x.grad = x * 1 end))
    assert.matches("outside the graph", check.message(function() x.grad = x end))
    assert.matches("only a leaf that requires", check.message(function() (x * 1).grad = pl.ones { 2 } end))
    assert.matches("expected a tensor, got number", check.message(function() x.grad = 1 end))
  end)
end)

describe("no_grad", function()
  it("records nothing and returns what f returns", function()
    local x = leaf { 1 }
    local a, b, c = pl.no_grad(function(t, u)
      assert.is_false(pl.grad_enabled())
      return t * 2, u, nil
    end, x, "u")
    assert.is_true(a.is_leaf)
    assert.equal("u", b)
    assert.is_nil(c)
    assert.is_true(pl.grad_enabled())
    assert.equal(0, select("#", pl.no_grad(function() end)))
  end)

  it("ends when f errors, whose message and traceback pass through", function()
    local traceback
    local function inner_function() error { code = 7 } end
    local ok, message = xpcall(pl.no_grad, function(e)
      traceback = debug.traceback()
      return e
    end, function() inner_function() return 1 end)
    assert.is_false(ok)
    assert.equal(7, message.code)
    assert.matches("inner_function", traceback)
    assert.is_true(pl.grad_enabled())
  end)

  it("nests, and does not let f yield, for others would run without recording", function()
    pl.no_grad(function()
      pl.no_grad(function() end)
      assert.is_false(pl.grad_enabled())
    end)
    local co = coroutine.wrap(function() return pl.no_grad(function() return coroutine.yield(1) + 1 end) end)
    assert.matches("attempt to yield across a C%-call boundary", check.message(co))
    assert.is_true(pl.grad_enabled())
    local whole = coroutine.wrap(function()
      local one = pl.no_grad(function() return 1 end)
      coroutine.yield(one)
    end)
    assert.equal(1, whole())
  end)

  it("wants a function", function()
    assert.matches("no_grad: f: expected a function, got number", check.message(pl.no_grad, 1))
  end)
end)

describe("a gradient that the user sets", function()
  it("is added to, but not in the user's tensor", function()
    local w, g = pl.ones { 2 }:requires_grad(), pl.ones { 2 }
    w.grad = g
    local seen = w.grad
    pl.sum(w * 2):backward()
    check.near({ 1, 1 }, g)
    check.near({ 3, 3 }, w.grad)
    check.near({ 3, 3 }, seen)
  end)
end)

describe("detach", function()
  it("shares the memory and stops the gradient", function()
    local x = leaf { 1, 2 }
    local d = x:detach()
    assert.is_false(d:needs_grad())
    d:add_(1)
    check.near({ 2, 3 }, x);
    (x * x:detach()):sum():backward()
    check.near({ 2, 3 }, x.grad)
    check.near({ 2, 3 }, pl.stop_gradient(x))
  end)
end)

describe("scopes and the graph", function()
  it("keep what backward needs although the handles are dropped", function()
    local before = check.buffers()
    local x = leaf { 1, 2 }
    local loss
    do
      local s <close> = pl.scope() -- luacheck: ignore
      loss = (x:exp() * x):sum():keep()
    end
    loss:backward()
    check.near({ 2 * math.exp(1), 3 * math.exp(2) }, x.grad, 1e-12)
    loss, x = nil, nil -- luacheck: ignore
    assert.equal(before, check.buffers())
  end)

  it("leave a gradient that arrived inside with its leaf", function()
    local x = leaf { 1, 2 }
    do
      local s <close> = pl.scope(); -- luacheck: ignore
      (x * 3):sum():backward()
      assert.is_not_nil(x.grad)
    end
    check.near({ 3, 3 }, x.grad)
  end)

  it("free a graph that is never passed", function()
    local before = check.buffers()
    local x = leaf { 1, 2 }
    do
      local s <close> = pl.scope() -- luacheck: ignore
      local y = x
      for _ = 1, 1000 do y = (y * 1.5):tanh() end
    end
    assert.equal(before + 1, check.live())
    assert.is_not_nil(x)
  end)
end)

describe("a norm beside a residual", function()
  -- x + f(norm(x)), where the norm's gradient is added in place to that of the sum.
  local function block(norm)
    return function(a, w)
      local x = a * 2
      return x + (x[norm](x, w) * 3):tanh()
    end
  end

  it("has the sum of both gradients, in all types", function()
    for _, norm in ipairs { "layer_norm", "rms_norm" } do
      local a, w = pl.randn { 4, 9, dtype = "float64" }, pl.randn { 9, dtype = "float64" }
      assert.is_true(check.gradients(block(norm), { a, w }, 1e-6, norm))
      local exact = check.first_gradients(block(norm), { a, w })
      for dtype, limit in pairs { float32 = 1e-5, bfloat16 = 0.1, float16 = 2e-2 } do
        local got = check.first_gradients(block(norm), { a:to(dtype), w:to(dtype) })
        for i, g in ipairs(exact) do check.same(g, got[i]:double(), limit, norm .. " in " .. dtype) end
      end
    end
  end)
end)

describe("products of one matrix", function()
  it("add their gradients up in place, in all types", function()
    local function call(a, u, v)
      local x = a * 2
      return x:matmul(u):tanh() + x:matmul(v) + x:matmul(v:t():contiguous():t())
    end
    local given = {}
    for i, shape in ipairs { { 6, 5 }, { 5, 7 }, { 5, 7 } } do
      given[i] = pl.randn { dtype = "float64", table.unpack(shape) }
    end
    assert.is_true(check.gradients(call, given, 1e-6, "products"))
    local exact = check.first_gradients(call, given)
    for dtype, limit in pairs { float32 = 1e-5, bfloat16 = 0.1, float16 = 2e-2 } do
      local narrow = {}
      for i, t in ipairs(given) do narrow[i] = t:to(dtype) end
      for i, g in ipairs(check.first_gradients(call, narrow)) do
        check.same(exact[i], g:double(), limit * exact[i]:abs():max():item(), ("gradient %d in %s"):format(i, dtype))
      end
    end
  end)
end)

describe("columns of one matrix", function()
  -- The second lies behind the first by as many elements as it has, as the halves of a row do.
  it("have the gradients of their product, however many rows there are", function()
    local function call(a)
      local x = a * 2
      return x:select(2, 1) * x:select(2, x.shape[1] + 1)
    end
    for rows = 1, 9 do
      assert.is_true(check.gradients(call, { pl.randn { rows, 10, dtype = "float64" } }, 1e-6, rows .. " rows"))
    end
  end)
end)

describe("Adam's step", function()
  local function textbook(p, g, m, v, t, o)
    if not o.decoupled then g = g + o.decay * p else p = p * (1 - o.rate * o.decay) end
    m, v = o.beta1 * m + (1 - o.beta1) * g, o.beta2 * v + (1 - o.beta2) * g * g
    local mean, variance = m / (1 - o.beta1 ^ t), v / (1 - o.beta2 ^ t)
    return p - o.rate * mean / (math.sqrt(variance) + o.epsilon), m, v
  end

  it("is the textbook's", function()
    for _, decoupled in ipairs { false, true } do
      local p, m, v = leaf { 0.5, -1.5 }, pl.zeros { 2, dtype = "float64" }, pl.zeros { 2, dtype = "float64" }
      local options = { rate = 0.1, beta1 = 0.8, beta2 = 0.9, epsilon = 1e-3, decay = 0.05, decoupled = decoupled }
      local expected = { { 0.5, 0, 0 }, { -1.5, 0, 0 } }
      for step = 1, 3 do
        p.grad = nil;
        (p * p * p):sum():backward()
        options.step, options.parameters, options.first, options.second = step, { p }, { m }, { v }
        options.master = {}
        local gradient = p.grad:totable()
        core.adam_step(options)
        for i, e in ipairs(expected) do
          expected[i] = { textbook(e[1], gradient[i], e[2], e[3], step, options) }
        end
        check.near({ expected[1][1], expected[2][1] }, p, 1e-14)
        check.near({ expected[1][3], expected[2][3] }, v, 1e-14)
      end
    end
  end)

  it("refuses what does not fit", function()
    local p, other = leaf { 1, 2 }, pl.zeros { 2 }
    local options = { rate = 0.1, beta1 = 0.8, beta2 = 0.9, epsilon = 1e-3, decay = 0, step = 1,
      parameters = { p }, first = { other }, second = { other }, master = {} }
    core.adam_step(options) -- no gradient: left alone
    p:sum():backward()
    assert.matches("adam: the first moment is float32 %[2%] on cpu, expected float64 %[2%] on cpu",
      check.message(core.adam_step, options))
    options.first, options.second, options.master = { pl.zeros_like(p) }, { pl.zeros_like(p) }, { other }
    assert.matches("adam: a master is for parameters of 16 bits, which need one; this is float64",
      check.message(core.adam_step, options))
    options.first = nil
    assert.matches("adam_step: first: expected a table of tensors, got nil", check.message(core.adam_step, options))
    options.first, options.rate = { other }, "x"
    assert.matches("adam_step: rate: expected a number, got string", check.message(core.adam_step, options))
  end)
end)
