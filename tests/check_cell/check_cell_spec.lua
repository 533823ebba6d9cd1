-- pl.check_cell: right cells pass, and what is wrong with others, or cannot be compared, is said.

local pl = require "perilune"
local devices = require "tests.devices"
local message_of = require "tests.message_of"

local function cell_of(name, step, more)
  local given = { name = name, states = { "h" }, gates = { "x" }, step = step }
  for key, value in pairs(more or {}) do given[key] = value end
  return pl.cell(given)
end

-- The report of a cell on the CPU, small unless it is told otherwise.
local function report_of(cell, more)
  local options = { device = "cpu", batch = 2, steps = 5, heads = 1, head_dim = 8, long_steps = 60 }
  for key, value in pairs(more or {}) do options[key] = value end
  return pl.check_cell(cell, options)
end

local function named(report, name)
  for _, check in ipairs(report.checks) do
    if check.name == name then return check end
  end
  error("no check " .. name)
end

local function failed(report)
  local names = {}
  for _, check in ipairs(report.checks) do
    if check.ok == false then names[#names + 1] = check.name end
  end
  return names
end

describe("pl.check_cell passes", function()
  for name, cell in pairs(pl.cells) do
    if name ~= "exponential_lstm" then
      it("the cell " .. name, function()
        local report = report_of(cell)
        assert.same({}, failed(report))
        assert.is_true(report.ok)
        local inputs = 2 + math.min(cell:count "recurrent", 1) + math.min(cell:count "bias", 1) + #cell.params
        assert.equal(inputs + 7 + 2, #report.checks)
        for _, check in ipairs(report.checks) do
          assert.is_true(check.ok)
          if check.limit then assert.is_true(check.error >= 0 and check.error <= check.limit) end
        end
      end)
    end
  end

  it("a cell that stops the gradient of an old state, an initial one, too", function()
    local report = report_of(cell_of("stopped", function(gate, state)
      return { h = 0.5 * pl.stop_gradient(state.h) + pl.tanh(gate.x) }
    end))
    assert.same({}, failed(report))
  end)

  it("a cell that is right but for what 16 bits round to another side, which it compares over one step", function()
    local report = report_of(cell_of("choice", function(gate, state)
      return { h = pl.where(pl.gt(gate.x, 0), pl.tanh(gate.x), 0.5 * state.h) }
    end))
    assert.is_true(report.ok)
    assert.matches("one step: past it a rounding may take another side of lt, where",
      named(report, "reference on cpu in bfloat16").note)
    assert.equal("", named(report, "reference on cpu in float32").note)
  end)
end)

describe("pl.check_cell says", function()
  it("where and by what a state stops being finite", function()
    local report = report_of(cell_of("doubles", function(gate, state)
      return { h = pl.tanh(gate.x), c = 4 * pl.exp(state.c) }
    end, { states = { "h", "c" } }))
    assert.is_false(report.ok)
    local check = named(report, "states over 60 steps")
    assert.is_false(check.ok)
    assert.matches("state c stops being finite at step 3: exp%(state.c%) is inf where state.c = 218", check.note)
  end)

  it("so for the LSTM without a stabiliser, too", function()
    local report = report_of(pl.cells.exponential_lstm, { long_steps = 1000 })
    assert.matches("stops being finite at step %d+: .* is %-?inf where", named(report, "states over 1000 steps").note)
    assert.matches("not finite for Wx, R, b, states, as the states", named(report, "gradients over 1000 steps").note)
  end)

  it("that a gradient is not finite though the states are", function()
    local report = report_of(cell_of("root", function(gate, state)
      return { h = pl.tanh(gate.x) + pl.sqrt(state.c), c = 0.5 * state.c }
    end, { states = { "h", "c" } }))
    assert.is_true(named(report, "states over 60 steps").ok)
    local check = named(report, "gradients over 60 steps")
    assert.is_false(check.ok)
    assert.matches("not finite for states, though the states are: a slope", check.note)
  end)

  it("that an entry is at a kink, where the gradient is right between two slopes", function()
    local report = report_of(cell_of("kink", function(gate, state)
      return { h = pl.tanh(gate.x) + pl.relu(state.c), c = 0.5 * state.c }
    end, { states = { "h", "c" } }))
    local check = named(report, "gradient of states")
    assert.is_true(check.ok)
    assert.matches("6 of 12 entries at a kink %(relu%): the gradient lies between", check.note)
    assert.equal("", named(report, "gradient of Wx").note)
  end)

  it("that entries are at a jump, and when nothing is left to compare", function()
    local report = report_of(cell_of("jump", function(gate, state)
      return { h = pl.tanh(gate.x) + pl.gt(state.c, 0), c = state.c }
    end, { states = { "h", "c" } }))
    local check = named(report, "gradient of states")
    assert.is_true(check.ok)
    assert.matches("6 of 12 entries at a jump %(lt%): a difference across it is no slope", check.note)
    check = named(report_of(cell_of("jumps", function(_, state) return { h = pl.gt(state.h, 0) } end)),
      "gradient of states")
    assert.is_false(check.ok)
    assert.matches("6 of 6 .*; nothing is left to compare", check.note)
  end)

  it("that gradient_clip is no derivative", function()
    local report = report_of(cell_of("clipped", function(gate)
      return { h = pl.tanh(pl.gradient_clip(gate.x, 0.01)) }
    end))
    assert.is_true(report.ok)
    local check = named(report, "gradients")
    assert.is_nil(check.ok)
    assert.matches("gradient_clip makes the gradient something else", check.note)
    assert.matches("\n%-%-  gradients ", tostring(report))
  end)

  it("that a compiled gradient is another's, and so is a result", function()
    local function made(factor)
      return cell_of("wrong", function(gate, state) return { h = pl.tanh(gate.x) * factor + 0.5 * state.h } end)
    end
    local cell, other = made(1), made(1.001)
    cell.compiled[false].backward = other.compiled[false].backward
    local report = report_of(cell)
    assert.is_false(report.ok)
    local check = named(report, "gradient of Wx")
    assert.is_false(check.ok)
    assert.is_true(check.error > 1e-4 and check.error < 1e-2)
    assert.is_true(named(report, "gradient of Wx").error > check.limit)
    check = named(report, "vanilla on cpu in float64")
    assert.is_false(check.ok)
    assert.matches("^d .* is off$", check.note)
    assert.matches("cell wrong is NOT right: %d+ checks passed, %d+ failed", tostring(report))
    assert.matches("\nFAIL  gradient of Wx", tostring(report))
  end)

  it("which backends take the cell, and why others do not", function()
    local report = report_of(pl.cells.lstm)
    for i, backend in ipairs { "reference", "vanilla" } do
      for k, dtype in ipairs { "float64", "float32", "bfloat16", "float16" } do
        assert.same({ backend = backend, device = "cpu", dtype = dtype, takes = true, why = "" },
          report.backends[4 * i - 4 + k])
      end
    end
    assert.equal("an H100", report.widest.where)
    assert.is_true(report.widest.largest >= 1024 and report.widest.next > report.widest.largest)
    assert.matches("has no plan that fits sm_90", report.widest.why)
    local many = {}
    for i = 1, 16 do many[i] = "g" .. i end
    local wide = report_of(cell_of("wide", function(gate)
      local sum = 0
      for _, name in ipairs(many) do sum = sum + pl.tanh(gate[name]) end
      return { h = sum / 16 }
    end, { gates = many }))
    assert.is_true(wide.ok)
    assert.is_true(wide.widest.largest < report.widest.largest)
    assert.matches("fused on an H100 in bfloat16, 16 rows: one head of up to %d+ units; not %d+: it has no plan",
      tostring(wide))
  end)

  it("how many parameters a layer has", function()
    local report = report_of(pl.cells.gru)
    assert.same({ input = 3, recurrent = 3, bias = 4, params = 0 }, report.parameters)
    local count = 0
    for _, p in ipairs(pl.nn.RNN { input_size = 256, hidden_size = 256, cell = "gru" }:parameters()) do
      count = count + p:numel()
    end
    assert.matches(("3 I H %%+ 3 H D %%+ 4 H in a layer .*; %d where"):format(count), tostring(report))
  end)
end)

describe("pl.check_cell", function()
  it("shows a page as text and as HTML", function()
    local report = report_of(cell_of("a<b", function(gate) return { h = pl.tanh(gate.x) } end))
    local bundle = getmetatable(report).__mime(report)
    assert.equal(tostring(report), bundle["text/plain"])
    assert.matches("<b>cell a&lt;b is right: %d+ checks passed, 0 failed</b>", bundle["text/html"])
    assert.matches("gradient of Wx</td>", bundle["text/html"], 1, true)
    for _, text in pairs(bundle) do assert.matches("new.h = tanh%(gate.x%)", text) end
  end)

  it("leaves random numbers, gradients, types and memory as they were", function()
    pl.seed(3)
    local expected = pl.randn({ 4 }):totable()
    pl.seed(3)
    local before = pl.tuning()
    report_of "elman"
    assert.equal(before, pl.tuning())
    assert.same(expected, pl.randn({ 4 }):totable())
    pl.no_grad(function() pl.autocast("bfloat16", function() assert.is_true(report_of("elman").ok) end) end)
    collectgarbage()
    collectgarbage()
    local buffers = pl.memory().cpu.buffers
    report_of "elman"
    collectgarbage()
    collectgarbage()
    assert.equal(buffers, pl.memory().cpu.buffers)
  end)

  it("names what is wrong with its arguments", function()
    local function says(words, ...)
      assert.matches("pl.check_cell: " .. words, message_of(pl.check_cell, ...), 1, true)
    end
    says("cell: expected a name or an object made by pl.cell, got nil", nil)
    says("cell: no cell 'lsmt'; there are", "lsmt")
    says("options: expected a table, got 3", "lstm", 3)
    says("unknown option 'size'; expected batch, device, head_dim, heads, long_steps, steps", "lstm", { size = 3 })
    says("steps: expected an integer of at least 1, got 0", "lstm", { steps = 0 })
    says("device: expected a string, got 1", "lstm", { device = 1 })
    says("device: there is no 'tpu' here", "lstm", { device = "tpu" })
  end)
end)

if not devices.has("cuda", "pl.check_cell on a GPU") then return end

describe("pl.check_cell on a GPU", function()
  it("compares fused and alternating, and says what fused does not take", function()
    local report = pl.check_cell("lstm", { long_steps = 60 })
    assert.same({}, failed(report))
    for _, dtype in ipairs { "float32", "bfloat16", "float16" } do
      assert.is_true(named(report, ("fused on %s in %s"):format(report.gpu, dtype)).ok)
    end
    assert.is_true(named(report, ("alternating on %s in float64"):format(report.gpu)).ok)
    assert.matches("not float64: it computes in float32", tostring(report), 1, true)
    assert.matches("not float32: it takes a head_dim that is a multiple of 8, got 10",
      tostring(pl.check_cell("lstm", { head_dim = 10, long_steps = 60 })), 1, true)
  end)
end)
