-- perilune.rnn.error_rows: which rows a measurement has, and that they come of the same numbers.
local error_report = require "perilune.rnn.error_report"
local error_rows = require "perilune.rnn.error_rows"
local errors = require "perilune.rnn.errors"

local spec <const> = {
  cell = "lstm", forget_bias = 3, batch = 2, heads = 1, head_dim = 8, device = "cpu", lengths = { 4, 8 },
  dtypes = { "float64", "bfloat16" }, backends = { "reference", "vanilla" }, vanilla_most = 4,
}

describe("rows of errors", function()
  it("are one for each type and backend, with a number for each length", function()
    local rows = error_rows.measure(spec)
    local found = {}
    for i, row in ipairs(rows) do
      found[i] = { row.dtype, row.backend, row.lengths }
      assert.same({ "errors", "lstm", 3, "2x1x8" }, { row.kind, row.cell, row.forget_bias, row.size })
      for _, of in ipairs { row.states.h.last, row.states.c.median, row.gradients.Wx, row.gradients.states } do
        assert.equal(#row.lengths, #of)
      end
      assert.equal(#row.steps, #row.gradients.per_step)
    end
    assert.same({
      { "float64", "reference", { 4, 8 } }, { "float64", "vanilla", { 4 } },
      { "bfloat16", "reference", { 4, 8 } }, { "bfloat16", "vanilla", { 4 } },
    }, found)
    assert.same({ 0, 0 }, rows[1].states.h.largest) -- reference in float64 is what the others are held to
    assert.is_true(rows[2].states.h.largest[1] < 1e-15)
    assert.is_true(rows[3].states.h.largest[2] > 1e-4)
    assert.same(rows, error_rows.measure(spec))
  end)

  it("have the numbers of their spec, with the bias of the gate that keeps a state", function()
    local problem = error_rows.problem(spec)
    assert.same({ 2, 8, 4, 1, 8 }, { table.unpack(problem.Wx.shape) })
    assert.equal(3, problem.b:select(1, 2):max():item())
    assert.equal(0, errors.relative(error_rows.problem(spec).Wx, problem.Wx))
    assert.same({ true, false }, { error_rows.has_forget_bias "gru", error_rows.has_forget_bias "elman" })
  end)

  it("go into a report, which draws them", function()
    local report = error_report.new()
    for _, row in ipairs(error_rows.measure(spec)) do assert.equal(report, report:add(row)) end
    assert.matches("bfloat16 vanilla", report:figure("2x1x8", "c"):svg())
    assert.is_nil(report:figure("2x1x9", "c"))
  end)
end)
