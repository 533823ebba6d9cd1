-- What the options of pl.rnn mean, checked on results that can be told without the oracle.

local pl = require "perilune"

local B, T, N, D = 2, 4, 2, 3

local function elman_arguments()
  pl.seed(5)
  return {
    Wx = pl.randn { B, T, 1, N, D, dtype = "float64" }:requires_grad(),
    R = pl.randn { 1, N, D, D, dtype = "float64" }:requires_grad(),
    b = pl.zeros { 1, N, D, dtype = "float64" },
  }
end

local function largest(t) return t:abs():max():item() end

for _, backend in ipairs { "reference", "vanilla" } do
  describe("on " .. backend, function()
    local function run(x, options)
      options.cell, options.backend = options.cell or "elman", backend
      return pl.rnn(x.Wx, x.R, x.b, options)
    end

    it("Wx beyond a row's length has no gradient, and before it has one", function()
      local x = elman_arguments()
      local states, last = run(x, { lengths = { 2, 4 } });
      (states:sum() + last:sum()):backward()
      assert.equal(0, largest(x.Wx.grad[1]:narrow(1, 3, 2)))
      assert.is_true(largest(x.Wx.grad[1]:narrow(1, 2, 1)) > 0)
      assert.is_true(largest(x.Wx.grad[2]:narrow(1, 4, 1)) > 0)
    end)

    it("a repeated state collects the gradients of all its repetitions", function()
      local x = elman_arguments()
      run(x, { lengths = { 1, 1 } }):sum():backward()
      local repeated = x.Wx.grad:clone()
      local y = elman_arguments()
      local states = run(y, {});
      (states:narrow(3, 1, 1):sum() * T):backward()
      assert.is_true(largest(repeated - y.Wx.grad) < 1e-15)
    end)

    it("the recurrent cut stops the gradient of h through R but not that of R", function()
      local x = elman_arguments()
      local _, last = run(x, { recurrent_grad_cut = true, outputs = "last" })
      last:sum():backward()
      assert.equal(0, largest(x.Wx.grad:narrow(2, 1, T - 1)))
      assert.is_true(largest(x.Wx.grad:narrow(2, T, 1)) > 0)
      assert.is_true(largest(x.R.grad) > 0)
    end)

    it("the recurrent clip bounds what arrives at h through R", function()
      local x = elman_arguments()
      local _, last = run(x, { recurrent_grad_clip = 1e-3, outputs = "last" })
      last:sum():backward()
      local before = largest(x.Wx.grad:narrow(2, 1, T - 1))
      assert.is_true(before > 0 and before <= 1e-3)
      assert.is_true(largest(x.Wx.grad:narrow(2, T, 1)) > 1e-3)
    end)

    it("the forward clip bounds h and has no gradient outside", function()
      local x = elman_arguments()
      local states = run(x, { forward_clip = 1e-3 })
      assert.equal(1e-3, largest(states))
      states:sum():backward()
      assert.equal(0, largest(x.Wx.grad * pl.eq(states:select(1, 1):abs():unsqueeze(3), 1e-3)))
    end)

    it("initial values are the cell's unless states are given", function()
      local cell = pl.cell {
        name = "counter", states = { "h", { "n", init = 3 } }, gates = { { "x", recurrent = false, bias = false } },
        step = function(gate, state) return { h = gate.x * state.n, n = state.n + 1 } end,
      }
      local x = { Wx = pl.ones { 1, 3, 1, 1, 1 } }
      assert.same({ 3, 4, 5 }, run(x, { cell = cell })[1]:reshape({ 3 }):totable())
      local from = pl.tensor { { { { { 0 } } } }, { { { { 7 } } } } }
      assert.same({ 7, 8, 9 }, run(x, { cell = cell, states = from })[1]:reshape({ 3 }):totable())
    end)

    it("products of a 16-bit type come from and give h of that type, while last stays exact", function()
      local x = elman_arguments()
      local single = { Wx = x.Wx:detach():float(), R = x.R:detach():float(), b = x.b:float() }
      local states, last = run(single, { dtype = "bfloat16" })
      local h = states:select(1, 1)
      assert.equal("float32", states.dtype)
      assert.equal(0, largest(h - h:to("bfloat16"):float()))
      assert.is_true(largest(last[1]:narrow(2, 1, 1) - h:narrow(2, T, 1)) > 0)
      assert.is_true(largest(last[1]:narrow(2, 1, 1) - h:narrow(2, T, 1)) < 2 ^ -8)
    end)
  end)
end

for _, backend in ipairs { "reference", "vanilla" } do
  describe("memory on " .. backend, function()
    local function step()
      local x = elman_arguments()
      local states, last = pl.rnn(x.Wx, x.R, x.b, { cell = "elman", backend = backend })
      return states, last
    end

    local function buffers()
      collectgarbage()
      collectgarbage()
      return pl.memory().cpu.buffers
    end

    it("is all given back after backward, without backward, and after an error", function()
      local before = buffers()
      step():sum():backward()
      step()
      assert.is_false(pcall(function() return step() + pl.ones { 7 } end))
      assert.equal(before, buffers())
    end)

    it("does not depend on when garbage is collected", function()
      local expected = step():totable()
      collectgarbage("generational")
      for _ = 1, 3 do
        collectgarbage("step")
        assert.same(expected, step():totable())
      end
      collectgarbage("incremental")
    end)

    it("of a scope is gone when it ends", function()
      local before = buffers()
      do
        local _ <close> = pl.scope()
        for _ = 1, 5 do step():sum():backward() end
      end
      assert.equal(before, pl.memory().cpu.buffers)
    end)
  end)
end

describe("the step function on tensors", function()
  it("is told apart from a misuse", function()
    local cell = pl.cell {
      name = "late", states = { "h" }, gates = { "x" },
      step = function(gate) return { h = pl.is_tensor(gate.x) and "wrong" or gate.x } end,
    }
    local Wx, R, b = pl.ones { 1, 1, 1, 1, 1 }, pl.ones { 1, 1, 1, 1 }, pl.ones { 1, 1, 1 }
    assert.error_matches(function() pl.rnn(Wx, R, b, { cell = cell, backend = "vanilla" }) end,
                         "cell 'late': step .* returned a string for state 'h'; expected a tensor or a number")
  end)
end)
