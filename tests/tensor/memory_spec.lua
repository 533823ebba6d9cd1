-- Who holds memory and for how long: scopes, limits, the collection budget, and that no failing call leaves a buffer.
local pl = require "perilune"
local check = require "tests.tensor.check"

local function memory() return pl.memory().cpu end

describe("a scope", function()
  it("drops what was made inside it, at once", function()
    local before = check.buffers()
    do
      local s <close> = pl.scope() -- luacheck: ignore
      for _ = 1, 10 do pl.ones { 100 } end
      assert.equal(before + 10, check.live())
    end
    assert.equal(before, check.live())
  end)

  it("lets keep move a tensor one scope outward", function()
    local before = check.buffers()
    local once, twice
    do
      local outer <close> = pl.scope() -- luacheck: ignore
      do
        local inner <close> = pl.scope() -- luacheck: ignore
        once, twice = pl.ones({ 1 }):keep(), pl.ones { 1 }
        assert.equal(twice, twice:keep():keep())
      end
      assert.equal(1, once:item())
      assert.equal(before + 2, check.live())
    end
    assert.matches("dropped when its scope closed", check.message(once.item, once))
    assert.equal(1, twice:item())
    twice:keep() -- outside all scopes: nothing happens
    twice = nil -- luacheck: ignore
    assert.equal(before, check.buffers())
  end)

  it("says in later errors where it closed", function()
    local t
    do
      local s <close> = pl.scope() -- luacheck: ignore
      t = pl.ones { 2 }
    end
    for _, use in ipairs {
      function() return t + 1 end, function() return 1 - t end, function() return t:sum() end,
        function() return t.shape end,
      function() return pl.cat { t } end, function() t[1] = 1 end, function() return #t end, function() return t[1] end,
      function() t:backward() end, function() pl.save("never.npy", t) end, function() return t:keep() end,
    } do
      assert.matches("was dropped when its scope closed at .*memory_spec%.lua:%d+ %(t:keep%(%) moves one outward%)",
        check.message(use))
    end
    assert.is_true(pl.is_tensor(t))
  end)

  it("closes on an error too", function()
    local before = check.buffers()
    local message = check.message(function()
      local s <close> = pl.scope() -- luacheck: ignore
      local t = pl.ones { 2 }
      return t + pl.ones { 3 }
    end)
    assert.matches("add: shapes %[2%] and %[3%] do not broadcast", message)
    assert.equal(before, check.live())
  end)

  it("closes once, also by hand, and in any order", function()
    local before = check.buffers()
    local outer = pl.scope()
    local a = pl.ones { 1 }
    local inner = pl.scope()
    local b = pl.ones { 1 }
    outer:close()
    outer:close()
    assert.matches("dropped", check.message(a.item, a))
    assert.equal(1, b:item())
    b:keep()
    inner:close()
    assert.equal(1, b:item())
    b = nil -- luacheck: ignore
    outer, inner = nil, nil -- luacheck: ignore
    assert.equal(before, check.buffers())
  end)

  it("that is forgotten hands its tensors on instead of dropping them", function()
    local before = check.buffers()
    do
      local outer <close> = pl.scope() -- luacheck: ignore
      local t
      do
        pl.scope() -- no variable: only the collector finds it
        t = pl.ones { 1 }
      end
      collectgarbage()
      collectgarbage()
      assert.equal(1, t:item())
      pl.ones { 1 }
    end
    assert.equal(before, check.live())
  end)

  it("outlives closed and collected ones around it", function()
    local kept = {} -- luacheck: ignore
    for i = 1, 50 do
      local outer, inner = pl.scope(), pl.scope()
      kept[i] = inner
      pl.ones { 1 }
      outer:close()
      inner:close()
      outer = nil -- luacheck: ignore
      collectgarbage "step"
    end
    collectgarbage()
    kept = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
  end)

  it("in a coroutine that is never finished lets go when it is collected", function()
    local before = check.buffers()
    local co = coroutine.create(function()
      local s <close> = pl.scope() -- luacheck: ignore
      local t = pl.ones { 1 }
      coroutine.yield()
      return t
    end)
    coroutine.resume(co)
    assert.equal(before + 1, check.live())
    assert.is_true(coroutine.close(co))
    assert.equal(before, check.live())
    co = coroutine.create(function()
      local s <close> = pl.scope() -- luacheck: ignore
      pl.ones { 1 }
      coroutine.yield()
    end)
    coroutine.resume(co)
    co = nil -- luacheck: ignore
    assert.equal(before, check.buffers())
    pl.ones { 1 }
  end)

  it("of a suspended coroutine takes no tensors of others", function()
    local before = check.buffers()
    local co = coroutine.wrap(function()
      do
        local s <close> = pl.scope() -- luacheck: ignore
        pl.ones { 1 }
        coroutine.yield()
        pl.ones { 1 }
      end
      coroutine.yield()
    end)
    co()
    local mine = pl.ones { 1 }
    do
      local s <close> = pl.scope() -- luacheck: ignore
      local other = coroutine.wrap(function() return pl.ones { 2 } end)() -- made for the scope around it
      assert.equal(2, #other)
      mine:keep()
      pl.ones({ 1 }):keep()
    end
    co()
    assert.equal(1, mine:item())
    local failed = coroutine.create(function()
      local s <close> = pl.scope() -- luacheck: ignore
      error "x" -- leaves its variable open, as coroutine.resume does
    end)
    coroutine.resume(failed)
    local later = pl.ones { 1 }
    coroutine.close(failed)
    assert.equal(1, later:item())
    mine, later, co = nil, nil, nil -- luacheck: ignore
    assert.equal(before, check.buffers())
  end)

  it("does not own what a module or an optimiser retains", function()
    local core = require "perilune.core"
    local t
    do
      local s <close> = pl.scope() -- luacheck: ignore
      t = core.retain(pl.ones { 1 })
    end
    assert.equal(1, t:item())
  end)
end)

describe("memory", function()
  it("counts live, cached and peak bytes", function()
    pl.ones { 1 << 20 }
    check.buffers() -- should the cache be full, this empties it: it is not when the next block is freed
    local before = memory()
    local t = pl.ones { 1 << 20 } -- luacheck: ignore
    local during = memory()
    assert.equal(before.live + (4 << 20), during.live)
    assert.equal(before.buffers + 1, during.buffers)
    assert.is_true(during.peak >= during.live)
    t = nil -- luacheck: ignore
    check.buffers()
    local after = memory()
    assert.equal(before.live, after.live)
    assert.is_true(after.cached >= 4 << 20)
    local again = pl.ones { 1 << 20 }
    assert.is_true(memory().cached < after.cached, "the freed block is used again")
    assert.is_not_nil(again)
  end)

  it("peaks anew after a reset", function()
    do
      local _ <close> = pl.scope()
      pl.ones { 1 << 20 }
    end
    assert.is_true(memory().peak > memory().live)
    pl.reset_peak_memory()
    assert.equal(memory().live, memory().peak)
    local before = memory().peak
    do
      local _ <close> = pl.scope()
      pl.ones { 1 << 20 }
    end
    assert.equal(before + (4 << 20), memory().peak)
  end)

  it("that is cached stays bounded when sizes never repeat", function()
    local s <close> = pl.scope() -- luacheck: ignore
    local most = 0
    for i = 1, 400 do
      local step <close> = pl.scope() -- luacheck: ignore
      pl.zeros { 1000 * i }
      pl.zeros { 3000 * i }
      most = math.max(most, memory().cached)
    end
    assert.is_true(most <= memory().peak + (65 << 20), most .. " bytes cached")
  end)

  it("is flat over many steps", function()
    check.buffers()
    local w = pl.randn({ 32, 32 }):requires_grad()
    local held
    for i = 1, 300 do
      do
        local s <close> = pl.scope() -- luacheck: ignore
        local y = (pl.randn { 8, 32 }):matmul(w):tanh():mean()
        w.grad = nil
        y:backward()
      end
      if i == 1 then held = memory() end
      assert.equal(held.buffers, memory().buffers)
      assert.equal(held.live, memory().live)
    end
  end)

  it("that scripts drop without scopes is collected over a budget", function()
    local most = 0
    for _ = 1, 60 do
      local t = pl.zeros { 1 << 22 } -- 16 MiB that Lua's collector takes for a few bytes
      most = math.max(most, memory().live)
      assert.is_not_nil(t)
    end
    assert.is_true(most < 700 << 20, ("%d MiB were live"):format(most >> 20))
    check.buffers()
  end)
end)

describe("a memory limit", function()
  after_each(function() pl.memory_limit(nil) end)

  it("makes allocation fail with a Lua error, and lifting it ends that", function()
    check.buffers()
    local before = memory()
    pl.memory_limit(before.live + (1 << 20))
    assert.matches("cpu: out of memory: 8000000 bytes asked, %d+ live, limit %d+", check.message(pl.zeros, { 2000000 }))
    assert.equal(before.buffers, memory().buffers)
    assert.equal(6, pl.ones({ 6 }):sum():item())
    pl.memory_limit(nil)
    assert.equal(2000000, pl.ones({ 2000000 }):sum():item())
  end)

  it("collects garbage before it gives up", function()
    check.buffers()
    pl.memory_limit(memory().live + (5 << 20))
    for _ = 1, 20 do pl.zeros { 1 << 20 } end -- each fits only once the one before is collected
  end)

  it("reached in the middle of an operation leaves nothing", function()
    local x = pl.ones({ 300, 300 }):requires_grad()
    local before = check.buffers()
    local many = {
      function() return x:softmax():matmul(x):layer_norm():logsumexp(1) end,
      function() return x:layer_norm(x[1], x[2]) end,
      function() return x:var(1) end,
      function() return x:logsumexp(1) end,
      function() return pl.cross_entropy(x, pl.ones { 300, dtype = "int64" },
        { label_smoothing = 0.1, ignore_index = 2 }) end,
      function() return x:norm(1) end,
      function() return x:dropout(0.5) end,
      function() return pl.one_hot(pl.ones { 400, dtype = "int64" }, 300) end,
      function() return pl.stack { x, x } end,
      function() return x:t():matmul(x) end,
      function() return x:rms_norm():max(2) end,
      function() return pl.embedding(x, pl.ones { 400, dtype = "int64" }) end,
      function() return x:to "float64" end,
      function() return x:cumsum(1) end,
      function() return pl.tensor { { 1, 2 }, { 3, 4 } } end,
      function() return pl.arange(1, 500) end,
      function() (x * x):exp():sum():backward() end,
      function() x:logsumexp(1):layer_norm():sum():backward() end,
      function() x:matmul(x):var():backward() end,
    }
    local failed = 0
    for number, f in ipairs(many) do
      for room = 0, 24 do
        pl.memory_limit(memory().live + 512 + room * 120000)
        local ok, message = pcall(f)
        pl.memory_limit(nil)
        if not ok then
          assert.matches("out of memory", message)
          failed = failed + 1
        end
        x.grad, message = nil, nil -- luacheck: ignore (the result, if there is one)
        assert.equal(before, check.buffers(), ("function %d with room %d"):format(number, room))
        if ok then break end
      end
    end
    assert.is_true(failed > 30)
  end)

  it("takes bytes and a device", function()
    assert.matches("memory_limit: bytes: expected a positive number", check.message(pl.memory_limit, -1))
    assert.matches("there is no 'gpu' here", check.message(pl.memory_limit, 1, "gpu"))
  end)
end)

describe("a failing call", function()
  it("leaves no buffer, whatever it was", function()
    local a, b, index = pl.ones { 2, 3 }, pl.ones { 4, 5 }, pl.tensor({ 9, 1 }, { dtype = "int64" })
    local leaf = pl.ones({ 2, 3 }):requires_grad()
    local calls = {
      function() return a + b end, function() return a:matmul(b) end, function() return leaf:matmul(leaf) end,
      function() return pl.cat({ a, b }) end, function() return pl.stack { a, b } end,
      function() return pl.stack({ a, a }, 7) end, function() return a:reshape { 7 } end,
      function() return a:t():reshape { -1, 4 } end, function() return a:expand { 3, 3 } end,
      function() return a:gather(1, index) end, function() return a:index_select(1, index) end,
      function() return pl.embedding(a, index) end, function() return pl.one_hot(index, 3) end,
      function() return pl.cross_entropy(a, { 1, 9 }) end, function() return pl.cross_entropy(a, { 1 }) end,
      function() return pl.cross_entropy(leaf, { 1, 9 }, { ignore_index = 1, label_smoothing = 0.1 }) end,
      function() return a:scatter_add(2, pl.tensor({ { 9 } }, { dtype = "int64" }), pl.ones { 1, 1 }) end,
      function() return a:layer_norm(pl.ones { 2 }) end, function() return a:rms_norm(b) end,
      function() return a:dropout(1.5) end, function() return pl.zeros({ 0 }):max() end,
      function() return pl.zeros({ 0, 2 }):max(1) end, function() return pl.zeros({ 0 }):logsumexp() end,
      function() return a:var({ 1, 2, 3 }) end, function() return pl.ones({ 1 }):var() end,
      function() return pl.tensor { { 1, 2 }, { 3 } } end, function() return pl.tensor { 1, "x" } end,
      function() return index % 0 end, function() return index:softmax() end, function() return index:layer_norm() end,
      function() return a:copy_(b) end, function() return a:add_(b) end, function() return a:add_(b, 2) end,
      function() return a:to "nowhere" end, function() return (leaf * 2):backward() end,
      function() return (leaf * 2):backward(b) end, function() return pl.full({ 2 }, "x") end,
      function() return pl.zeros { 2, dtype = "real" } end, function() return pl.zeros { 1 << 40, 1 << 40 } end,
      function() return pl.load "/nowhere/x.npy" end, function() return pl.load "/nowhere/x.safetensors" end,
      function() return pl.save("/nowhere/x.npy", a) end, function()
        return pl.save("/nowhere/x.safetensors", { a = a }) end,
      function() return a:max({ 1, 2 }) end, function() return a:split { 1 } end, function() return a[4] end,
      function() a[1] = b end, function() return pl.where(a, b, 1) end, function() return a:narrow(1, 2, 2) end,
      function() return pl.no_grad(function() return a + b end) end,
    }
    local before = check.buffers()
    for number, f in ipairs(calls) do
      assert.is_false(pcall(f), "call " .. number .. " should fail")
      assert.equal(before, check.buffers(), "call " .. number)
    end
    assert.is_true(pl.grad_enabled())
    assert.is_not_nil(leaf)
  end)
end)
