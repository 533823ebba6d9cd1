-- Timers: on every device here they measure what the device does, can be used again, and refuse a stop without a start.
local pl = require "perilune"

local devices = { "cpu" }
for _, found in ipairs(pl.devices()) do
  if found.name == "cuda:0" then devices[2] = "cuda" end
end

for _, device in ipairs(devices) do
  describe("a timer on " .. device, function()
    it("measures what the device does, every time anew", function()
      local a, timer = pl.randn { 256, 256, device = device }, pl.timer(device)
      local function measure(products)
        assert.are.equal(timer, timer:start())
        local _ <close> = pl.scope()
        local b = a
        for _ = 1, products do b = a:matmul(b) * 1e-3 end
        return timer:stop()
      end
      measure(1)
      pl.synchronize(device)
      local began_s = pl.time()
      local long_ms = measure(100)
      local wall_ms = 1e3 * (pl.time() - began_s)
      assert.is_true(long_ms > 0 and long_ms <= wall_ms, ("%g ms of %g ms"):format(long_ms, wall_ms))
      assert.is_true(measure(1) < long_ms)
    end)

    it("measures on from one start to several stops", function()
      local timer = pl.timer(device):start()
      local first_ms = timer:stop()
      pl.randn { 512, 512, device = device }
      assert.is_true(timer:stop() > first_ms)
    end)

    it("measures to a mark, whatever comes behind it, and from start anew", function()
      local a, timers = pl.randn { 256, 256, device = device }, {}
      for i = 1, 3 do
        timers[i] = pl.timer(device):start()
        a:matmul(a)
        assert.are.equal(timers[i], timers[i]:mark())
      end
      for _ = 1, 50 do a:matmul(a) end
      local whole_ms = pl.timer(device):start():stop()
      for i = 1, 3 do
        local ms = timers[i]:stop()
        assert.is_true(ms > 0)
        assert.are.equal(ms, timers[i]:stop())
        whole_ms = whole_ms + ms
      end
      for _ = 1, 50 do a:matmul(a) end
      assert.is_true(timers[1]:start():stop() < whole_ms, "start forgets the mark")
    end)
  end)
end

describe("a timer", function()
  it("refuses a stop without a start, and devices that are not there", function()
    assert.has_error(function() pl.timer():mark() end, "timer:mark: this timer was never started; call start first")
    assert.has_error(function() pl.timer():stop() end, "timer:stop: this timer was never started; call start first")
    local _, message = pcall(pl.timer, "typo")
    assert.matches("there is no 'typo' here", message)
  end)
end)
