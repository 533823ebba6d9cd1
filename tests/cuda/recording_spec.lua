-- pl.cuda_graph with made-up CUDA libraries: what errors in the middle, the collector, a second GPU and the end of the
-- program do to a recording and its memory. tests/cuda/graph_spec.lua has what real GPUs compute.
local imaginary = require "cuda.imaginary"

-- `now()`: live bytes and buffers of the first GPU, besides a tensor `x`.
local BEGINNING <const> = [[
local x, kept = pl.ones { 1000, device = "cuda" }, nil
local function now()
  collectgarbage()
  collectgarbage()
  local memory = pl.memory()["cuda:0"]
  return memory.live - 4096, memory.buffers - 1
end
local function record(f) return pl.cuda_graph("cuda", f) end
]]

local function script(code) return imaginary.script(imaginary.ALL, "devices 2", BEGINNING .. code) end

describe("a recording", function()
  setup(imaginary.begin)
  teardown(imaginary.finish)

  it("that ends with an error leaves no memory, and the next one goes well", function()
    local out = script [[
      for _, why in ipairs { "no luck", { 1 }, false } do
        print((select(2, pcall(record, function() kept = x + 1; error(why) end))) == why)
        kept = nil
        print(now())
      end
      attempt(coroutine.wrap(function() record(function() coroutine.yield() end) end))
      record(function() kept = x + 1 end):replay():close()
      kept = nil
      print(now())]]
    assert.matches("^false\n0\t0\ntrue\n0\t0\ntrue\n0\t0\nfalse\t.*attempt to yield.*\n0\t0\n$", out)
  end)

  for _, call in ipairs { "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags",
    "cuLaunchKernel", "cuMemAlloc_v2", "cuGraphLaunch" } do
    it("that fails in " .. call .. " is an error that says so, and all goes on", function()
      local out = script(([[
        say "devices 2\n%s 1"
        attempt(function() record(function() kept = x + pl.ones { 3, 1000, device = "cuda" } end):replay() end)
        say "devices 2"
        kept = nil
        print(now())
        record(function() kept = x * 2 end):replay()
        print "good"]]):format(call))
      assert.matches("^false\t[^\n]*" .. call:sub(3):gsub("_v2", ""):gsub("WithFlags", "") .. "[^\n]*\n0\t0\ngood\n$",
        out)
    end)
  end

  it("keeps what its function refers to until it is closed", function()
    assert.equal("8192\t2\n0\t0\nfalse\n", script [[
      local function step()
        local sum = pl.zeros { 1000, device = "cuda" }
        return function() sum:add_(x) end
      end
      local graph = record(step())
      collectgarbage()
      local bytes, buffers = now()
      print(bytes * 2, buffers + 1) -- the sum
      graph:replay():close()
      print(now())
      print((pcall(graph.replay, graph)))]])
  end)

  it("may be given back while another is made", function()
    assert.equal("0\t0\n", script [[
      local first, second = record(function() kept = x * 2 end), record(function() return x * 3 end)
      kept = nil
      local third = record(function()
        local y = x * 3
        first:close()
        second = nil -- luacheck: ignore
        collectgarbage()
        kept = y + x * 4
      end)
      third:replay():close()
      kept = nil
      print(now())]])
  end)

  it("is of one GPU alone", function()
    local out = script [[
      local other = pl.ones { 10, device = "cuda:1" }
      record(function()
        print(#(other + 1):totable())
        attempt(other.to, other, "cuda:0")
        attempt(x.to, x, "cuda:1")
        pl.cuda_graph("cuda:1", function() kept = other + 2 end):replay()
        kept = x + 1
      end):replay()
      print "good"]]
    assert.matches("^10\nfalse\t.*a copy from another GPU cannot be recorded.*\nfalse\t.*a copy to another GPU cannot "
      .. "be recorded.*\ngood\n$", out)
  end)

  it("ends with the program", function()
    for _, how in ipairs { "os.exit(0)", "os.exit(0, true)" } do
      local code = imaginary.PRELUDE .. BEGINNING .. "record(function() kept = x + 1; " .. how .. " end)"
      local out, errors, status = imaginary.run(imaginary.ALL, "devices 2", "-e '" .. code .. "'")
      assert.same({ "", "", 0 }, { out, errors, status })
    end
  end)
end)
