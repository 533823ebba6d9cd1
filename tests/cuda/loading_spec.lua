-- What a user sees when CUDA is not there, is too old or breaks: `perilune` in processes of its own with made-up CUDA
-- libraries (tests/fakes) in front of the loader's path. Needs no GPU.

local core = require "perilune.core"
local imaginary = require "cuda.imaginary"
local program = require "bind.program"

local ALL <const>, PRELUDE <const> = imaginary.ALL, imaginary.PRELUDE
local run <const>, script <const> = imaginary.run, imaginary.script

-- What `perilune devices` prints. It succeeds whatever there is.
local function devices(folders, words)
  local out, errors, status = run(folders, words, "devices")
  assert.equal("", errors)
  assert.equal(0, status)
  assert.matches("^cpu: ", out)
  return out
end

-- `pl.zeros` on the GPU fails with these words, and so says `perilune devices`.
local function refuses(folders, words, ...)
  local listed = devices(folders, words)
  local raised = script(folders, words, 'attempt(pl.zeros, { 2, device = "cuda" })')
  assert.matches("there is no 'cuda' here", raised, 1, true)
  for _, expected in ipairs { ... } do
    assert.matches(expected, listed, 1, true)
    assert.matches(expected, raised, 1, true)
  end
end

describe("CUDA", function()
  setup(imaginary.begin)
  teardown(imaginary.finish)

  it("is used where all of it is there", function()
    local out = devices(ALL, "devices 2")
    assert.matches("cuda:0: Imaginary 0, sm_90", out, 1, true)
    assert.matches("cuda:1: Imaginary 1, sm_90", out, 1, true)
    assert.matches("driver for CUDA 13.0\ncuda: NVRTC 13.0\ncuda: cuBLAS is here", out, 1, true)
    assert.matches(imaginary.cache() .. "/perilune/cubin", out, 1, true)
    assert.equal("cuda:1\n", script(ALL, "devices 2", [[
      local a = pl.zeros { 2, 2, device = "cuda:1" }
      print((a:matmul(a) + 1).device)]]))
  end)

  it("says that there is no driver", function()
    refuses({ "no_cuda" }, "", "the NVIDIA driver's library libcuda.so.1 cannot be loaded: install NVIDIA's driver")
  end)

  it("says that the driver is too old", function()
    refuses(ALL, "version 11040", "the NVIDIA driver is too old: it is for CUDA 11.4, expected 12.0 or newer")
  end)

  it("says which function the driver lacks", function()
    refuses({ "lacking", "nvrtc", "cublas" }, "",
            "libcuda.so.1 lacks cuLaunchKernelEx: install NVIDIA's driver for CUDA 12.0 or newer")
  end)

  it("says that there is no GPU", function()
    refuses(ALL, "devices 0", "the NVIDIA driver is here, but it finds no GPU")
    refuses(ALL, "cuInit 100", "the NVIDIA driver is here, but it finds no GPU")
  end)

  it("says that a GPU is too old", function()
    refuses(ALL, "capability 75", "GPU 0, Imaginary 0, is sm_75; expected sm_80 or newer")
  end)

  it("goes on with the other GPU", function()
    local words <const> = "devices 2\ncapability 75"
    local out = devices(ALL, words)
    assert.matches("cuda:1: Imaginary 1, sm_90", out, 1, true)
    assert.matches("GPU 0, Imaginary 0, is sm_75", out, 1, true)
    out = script(ALL, words, [[
      print(pl.zeros({ 2, device = "cuda:1" }).device)
      attempt(pl.zeros, { 2, device = "cuda" })]])
    assert.matches("^cuda:1\nfalse\t.*'cuda:1'.*is sm_75; expected sm_80 or newer", out)
  end)

  -- A missing library: its name, and how to get it; the files that were tried are as old as the driver.
  local function missing(library, folders, operation)
    for version, files in pairs { [13000] = { 13, 12 }, [12040] = { 12 } } do
      local words <const> = "version " .. version
      local listed = devices(folders, words)
      local raised = script(folders, words, operation)
      assert.matches("false\t", raised)
      for _, text in ipairs { listed, raised } do
        assert.matches(("cannot be loaded: install CUDA's lib%s.so.13"):format(library), text, 1, true)
        for _, number in ipairs { 12, 13 } do
          local tried = text:find(("/no_%s/lib%s.so.%d: "):format(library, library, number), 1, true)
          assert.equal(number == files[1] or number == files[2], tried ~= nil)
        end
      end
    end
  end

  it("says that NVRTC is missing", function()
    missing("nvrtc", { "driver", "no_nvrtc", "cublas" }, 'attempt(pl.zeros, { 2, device = "cuda" })')
  end)

  it("says that cuBLAS is missing", function()
    missing("cublas", { "driver", "nvrtc", "no_cublas" }, [[
      local a = pl.zeros({ 2, 2 }):to "cuda"
      attempt(a.matmul, a, a)]])
  end)

  it("gives the log of a kernel that does not compile, and goes on", function()
    local out = script(ALL, "", [[
      local a = pl.zeros { 3, device = "cuda" }
      say "nvrtcCompileProgram 6"
      attempt(pl.tanh, a)
      say ""
      attempt(pl.tanh, a)]])
    assert.matches("^false\t.*: tanh: cuda: pointwise.cu does not compile for sm_90", out)
    assert.matches('made-up.cu(1): error: "nonsense" is undefined', out, 1, true)
    assert.matches("\ntrue\t\n$", out)
  end)

  -- Errors after which the context is lost, from a launch and from waiting.
  for _, words in ipairs { "cuLaunchKernel 700", "cuStreamQuery 719", "cuMemcpyDtoHAsync_v2 700" } do
    it("says to restart the kernel after " .. words, function()
      local out = script(ALL, "", ([[
        local a = pl.zeros { 3, device = "cuda" }
        say %q
        attempt(function() return (a + 1):totable() end)
        say ""
        attempt(function() return a + 1 end)
        attempt(function() return a:totable() end)
        attempt(pl.zeros, { 5000, device = "cuda" })
        a = nil
        collectgarbage()]]):format(words))
      local _, errors = out:gsub("false\t[^\n]*restart the kernel", "")
      assert.equal(4, errors, out)
      local name <const> = words:find "700"
        and "an illegal memory access was encountered" or "unspecified launch failure"
      assert.matches(name, out, 1, true)
    end)
  end

  it("ends with an error that nobody was told of", function()
    local out, errors, status = run(ALL, "", "-e " .. program.quote(PRELUDE .. [[
      local a = pl.zeros { 3, device = "cuda" }
      print "fine so far"
      say "cuStreamQuery 719"]]))
    assert.equal("fine so far\n", out)
    assert.matches("^perilune: cuda: unspecified launch failure .*restart the kernel", errors)
    assert.equal(1, status)
  end)

  -- What waits, and what goes by way of the host, would fail here.
  local BUSY <const> = "devices 2 cuStreamQuery 1 cuMemcpyDtoHAsync_v2 1 cuMemcpyHtoDAsync_v2 1 "
  local COPY <const> = [[
    local a = pl.ones { 3, device = "cuda:0" }
    pl.synchronize "cuda:0"
    say %q
    attempt(function() return a:to("cuda:1") end)
    say "devices 2"]]

  for _, words in ipairs { "", "peers 0 cuCtxEnablePeerAccess 1", "cuCtxEnablePeerAccess 704",
    "cuCtxEnablePeerAccess 711" } do
    it(("copies from one GPU to another and does not wait (%s)"):format(words), function()
      assert.equal("true\t\n", script(ALL, "devices 2", COPY:format(BUSY .. words)))
    end)
  end

  for _, call in ipairs { "cuDeviceCanAccessPeer", "cuCtxEnablePeerAccess", "cuMemcpyPeerAsync",
    "cuStreamWaitEvent" } do
    it("says that a copy between GPUs failed in " .. call, function()
      local out = script(ALL, "devices 2", COPY:format("devices 2 " .. call .. " 1"))
      assert.matches("^false\t.*: to: cuda: .*" .. call:sub(3), out)
    end)
  end

  it("is where recurrences are fused, unless they cannot be", function()
    local function plans(words)
      return script(ALL, words, [[
        local function plan(more)
          local given = { cell = "lstm", batch = 16, head_dim = 128, dtype = "bfloat16", device = "cuda" }
          for name, value in pairs(more) do given[name] = value end
          local made = pl.rnn_plan(given)
          print(made.backend, made.fused and made.fused.scope, made.product)
        end
        plan {} plan { head_dim = 768 } plan { head_dim = 12 } plan { dtype = "float64" } plan { backend = "vanilla" }
        plan { plan = { scope = "grid", rows = 16 } } plan { dtype = "float32", product = "float16" }
        pl.autocast("bfloat16", plan, { dtype = "float32" })
        attempt(plan, { backend = "fused", head_dim = 12 })
        attempt(plan, { product = "float64" })]])
    end
    local said = plans ""
    assert.equal("fused\tcluster\tbfloat16\nfused\tgrid\tbfloat16\nalternating\tnil\tbfloat16\n" ..
      "alternating\tnil\tfloat64\nvanilla\tnil\tbfloat16\nfused\tgrid\tbfloat16\nfused\tcluster\tfloat16\n" ..
      "fused\tcluster\tbfloat16\n", said:match "^(.-)false")
    assert.matches("backend: 'fused' takes a head_dim that is a multiple of 8, got 12", said, 1, true)
    assert.matches("product: expected float32, bfloat16, float16 (Wx has bfloat16), got 'float64'", said, 1, true)
    assert.matches("^fused\tblock\tbfloat16\nfused\tgrid\t", plans "capability 80")
    assert.matches("backends fused, alternating, vanilla", devices(ALL, ""), 1, true)
  end)

  it("runs no recurrence without being told how it is cut", function()
    local out = script(ALL, "", [[
      local core = require "perilune.core"
      local Wx, R = pl.zeros { 1, 2, 4, 1, 8, device = "cuda" }, pl.zeros { 4, 1, 8, 8, device = "cuda" }
      local b = pl.zeros { 4, 1, 8, device = "cuda" }
      attempt(core.recurrence, pl.cells.lstm:compile {}, Wx, R, b, {}, nil, {})
      attempt(core.recurrence, pl.cells.lstm:compile {}, Wx, R, b, {}, nil, { alternating = { forward = {} } })]])
    assert.matches("rnn: forward: on a GPU, expected a fused plan or how the steps are cut, got neither", out, 1, true)
    assert.matches("recurrence: forward.product: expected a number", out, 1, true)
  end)

  it("ends a wait for a GPU that is never done when it is interrupted, and goes on", function()
    local out, errors, status = run(ALL, "", "-i", "", [[
pl = require "perilune"; a = pl.ones { 3, device = "cuda" }
function say(words) local file <close> = io.open(os.getenv "PERILUNE_FAKE", "w"); file:write(words) end
function wait(f, ...) os.execute "(sleep 0.2; kill -INT $PPID) &"; time = pl.time(); f(...) end
say "cuStreamQuery 600"; wait(pl.synchronize, "cuda")
print("synchronize", pl.time() - time < 0.7); wait(a.totable, a)
print("totable", pl.time() - time < 0.7); say ""; pl.synchronize "cuda"; print(#a:totable())
]])
    assert.matches("synchronize\ttrue\n.*totable\ttrue\n.*3\n", out)
    assert.equal(2, select(2, errors:gsub("interrupted", "")))
    assert.equal(0, status)
  end)

  it("is interrupted while it waits at the end of a script", function()
    local code <const> = PRELUDE .. 'pl.ones { 3, device = "cuda" } print "done" io.flush() say "cuStreamQuery 600"'
    local out, errors, status = run(ALL, "", "-e " .. program.quote(code),
                                    "timeout --foreground --preserve-status -s INT 0.5")
    assert.equal("done\n", out)
    assert.equal("perilune: interrupted\n", errors)
    assert.equal(1, status)
  end)

  it("lets a notebook compute on the processor after the GPU is lost", function()
    local cells <const> = {
      PRELUDE:gsub("^local ", ""):gsub("\nlocal ", "\n") -- what later cells use is global
        .. 'a = pl.zeros { 3, device = "cuda" }; say "cuLaunchKernel 700"; b = a + 1',
      "cpu()",
      'pl.zeros { 3, device = "cuda" }',
      "cpu() + 1",
    }
    local list = {}
    for i, source in ipairs(cells) do
      list[i] = { cell_type = "code", id = "cell" .. i, source = source, outputs = core.json_array {}, metadata = {} }
    end
    local path, result = os.tmpname(), os.tmpname()
    program.write(path, core.json_encode { cells = list, metadata = {}, nbformat = 4, nbformat_minor = 5 })
    local _, _, status = run(ALL, "", ("notebook run %s -o %s --allow-errors"):format(path, result))
    local cell = core.json_decode(program.read(result)).cells
    os.remove(path)
    os.remove(result)
    assert.equal(0, status)
    for i, words in pairs { "illegal memory access.*restart the kernel", [3] = "restart the kernel" } do
      assert.equal("error", cell[i].outputs[1].output_type)
      assert.matches(words, cell[i].outputs[1].evalue)
    end
    assert.same({ "8.0" }, { table.unpack(cell[2].outputs[1].data["text/plain"]) })
    assert.same({ "9.0" }, { table.unpack(cell[4].outputs[1].data["text/plain"]) })
  end)

  it("collects garbage when memory runs out, and goes on", function()
    assert.equal("true\t\n", script(ALL, "bytes 67108864", [[
      attempt(function()
        for _ = 1, 200 do pl.zeros { 1 << 20, device = "cuda" } end -- 4 MiB each, left to the collector
      end)]]))
  end)

  it("says how memory stands when it runs out, and goes on", function()
    local out = script(ALL, "bytes 67108864", [[
      local list = {}
      attempt(function() for i = 1, 200 do list[i] = pl.zeros { 1 << 20, device = "cuda" } end end)
      print(#list)
      list = nil
      attempt(pl.zeros, { 3, 1 << 20, device = "cuda" })
      print(pl.memory()["cuda:0"].live)]])
    assert.matches("^false\t.*cuda:0: out of memory: 4194304 bytes asked, %d+ bytes live, 0 cached, peak %d+; "
                   .. "the GPU has %d+ of 67108864 bytes free", out)
    assert.matches("\n15\ntrue\t\n12582912\n$", out)
  end)

  it("makes room for cuBLAS's own memory", function()
    local out = script(ALL, "", [[
      local a = pl.zeros { 2, 2, device = "cuda" }
      say "cublasCreate_v2 3"
      attempt(a.matmul, a, a)
      say ""
      attempt(a.matmul, a, a)]])
    assert.matches("^false\t.*out of memory: asked by cuBLAS.*\ntrue\t\n$", out)
  end)
end)
