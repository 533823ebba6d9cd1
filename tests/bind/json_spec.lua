-- Lua values as JSON and back.
local core = require "perilune.core"

describe("json_encode", function()
  it("keeps kinds and order", function()
    assert.equal('{"a": [1, 2.5, true], "b": {}, "c": [], "d": null, "z": "é\\n"}',
      core.json_encode { z = "é\n", d = core.null, c = core.json_array {}, b = {}, a = { 1, 2.5, true } })
    assert.equal('{"1": 1, "3": 3}', core.json_encode { [1] = 1, [3] = 3 })
    assert.equal("[9007199254740993, 1.0, 0.1, 1e+300]", core.json_encode { 9007199254740993, 1.0, 0.1, 1e300 })
    assert.equal("[1000000000000000.0, 1e+16, -1234567890123456.0, 1e-05]", core.json_encode { 1e15, 1e16,
      -1234567890123456.0, 1e-5 })
    assert.equal('{\n "a": [\n  1,\n  2\n ],\n "b": []\n}',
      core.json_encode({ a = { 1, 2 }, b = core.json_array {} }, 1))
  end)

  it("stays strict where Lua is wider", function()
    assert.equal('[null, null, "\u{FFFD}", "\\u0000"]', core.json_encode { 0 / 0, 1 / 0, "\xff", "\0" })
  end)

  it("refuses what JSON cannot hold", function()
    local cycle = {}
    cycle.me = cycle
    for _, case in ipairs { { { print }, "function" }, { cycle, "contains itself" }, { { [true] = 1 }, "key" } } do
      local ok, message = pcall(core.json_encode, case[1])
      assert.is_false(ok)
      assert.truthy(message:find(case[2], 1, true), message)
    end
  end)
end)

describe("json_decode", function()
  it("reads everything back", function()
    local value = core.json_decode '{"a": [1, 2.5, null, "\\u0000"], "b": {}, "c": []}'
    assert.same({ 1, 2.5, core.null, "\0" }, { table.unpack(value.a) })
    assert.equal("integer", math.type(value.a[1]))
    assert.equal('{"a": [1, 2.5, null, "\\u0000"], "b": {}, "c": []}', core.json_encode(value))
  end)

  it("says where the text is wrong", function()
    local _, message = pcall(core.json_decode, "[1,\n2")
    assert.equal("invalid JSON at line 2, column 1: ']' expected near end of file", message)
    assert.is_false((pcall(core.json_decode, "")))
  end)
end)
