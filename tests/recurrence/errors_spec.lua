-- perilune.rnn.errors: what its numbers are made of, against errors that are put in by hand.
local pl = require "perilune"
local errors = require "perilune.rnn.errors"
local message_of = require "tests.message_of"

local shape <const> = { batch = 2, steps = 5, heads = 1, head_dim = 8 }

describe("errors of a recurrence", function()
  it("are relative, of the whole and of each time step", function()
    local exact = pl.tensor { { { 3, 4 }, { 0, 0 }, { 0, 0 } }, { { 0, 0 }, { 0, 2 }, { 0, 0 } } }:to "float64"
    local found = pl.tensor { { { 3, 4.5 }, { 0, 0 }, { 0, 0 } }, { { 0, 0 }, { 1, 2 }, { 0, 0 } } }
    assert.are.same({ 0.1, 0.5, 0.0 }, errors.per_step(found, exact))
    assert.are.equal(math.sqrt(1.25 / 29), errors.relative(found, exact))
    assert.are.equal(0, errors.relative(exact, exact))
  end)

  it("are infinite where something is not finite, or is not zero", function()
    local exact = pl.tensor({ { { 1 }, { 0 } } }, { dtype = "float64" })
    assert.are.same({ math.huge, 0.0 }, errors.per_step(pl.tensor { { { 0 / 0 }, { 0 } } }, exact))
    assert.are.same({ 0.0, math.huge }, errors.per_step(pl.tensor { { { 1 }, { 1 } } }, exact))
    assert.are.equal(math.huge, errors.relative(pl.tensor { { { 1 / 0 }, { 0 } } }, exact))
  end)

  it("come of numbers that both sides share, with the bias that was asked for", function()
    pl.seed(1)
    local problem = errors.problem(pl.cells.lstm, shape, "cpu", { gate = "f", value = 3 })
    assert.are.same({ 3, 3 }, { problem.b:select(1, 2):min():item(), problem.b:select(1, 2):max():item() })
    assert.is_true(problem.b:select(1, 1):max():item() < 3)
    local rounded, exact = errors.rounded(problem, "bfloat16")
    for name, t in pairs(rounded) do
      assert.are.equal(0, errors.relative(t, exact[name]), name)
      assert.are.equal("bfloat16", t.dtype)
    end
    assert.is_true(errors.relative(rounded.Wx, problem.Wx) > 1e-4)
    assert.matches("gate: elman has no gate 'f' with a bias",
      message_of(errors.problem, pl.cells.elman, shape, "cpu", { gate = "f", value = 3 }))
  end)

  it("of the first steps are those of a shorter sequence", function()
    local cell = pl.cells.lstm
    local problem = errors.problem(cell, shape, "cpu")
    local opts = { backend = "reference", gradients = true }
    local whole, part = errors.run(cell, problem, 5, opts), errors.run(cell, problem, 3, opts)
    assert.are.same({ 2, 3, 1, 8 }, { table.unpack(part.states.c.shape) })
    assert.are.equal(0, errors.relative(whole.states.c:narrow(2, 1, 3), part.states.c))
    assert.are.equal(0, errors.relative(part.last.c, part.states.c:select(2, 3)))
    for name, size in pairs { Wx = 2 * 3 * 4 * 8, R = 4 * 8 * 8, b = 4 * 8, states = 2 * 2 * 8 } do
      assert.are.equal(size, part.gradients[name]:numel(), name)
    end
    assert.is_nil(errors.run(cell, problem, 3, { backend = "reference" }).gradients)
  end)
end)
