-- Labels of modular arithmetic against a recursive parser of the text.
local pl = require "perilune"
local message_of = require "tests.message_of"
local rows = require "tests.task.rows"

-- The value of an expression by its grammar, each function returning it and where to go on:
-- expression = ["-"] term { ("+" | "-") term }, term = operand { "*" operand }, operand = digit | "(" expression ")".
local parse_expression

local function parse_operand(text, at)
  local digit = text:match("^%d", at)
  if digit then return math.tointeger(digit), at + 1 end
  assert(text:sub(at, at) == "(", "an operand in " .. text .. " at " .. at)
  local value, after = parse_expression(text, at + 1)
  assert(text:sub(after, after) == ")", "a closing bracket in " .. text .. " at " .. after)
  return value, after + 1
end

local function parse_term(text, at)
  local value, after = parse_operand(text, at)
  if text:sub(after, after) ~= "*" then return value, after end
  local rest, behind = parse_term(text, after + 1)
  return value * rest % 5, behind
end

function parse_expression(text, at)
  local sign = text:sub(at, at) == "-" and -1 or 1
  local value, after = parse_term(text, sign < 0 and at + 1 or at)
  value = sign * value
  while text:find("^[+-]", after) do
    local minus = text:sub(after, after) == "-"
    local term
    term, after = parse_term(text, after + 1)
    value = minus and value - term or value + term
  end
  return value % 5, after
end

local function value_of(text)
  local value, after = parse_expression(text, 1)
  assert(#text + 1 == after, text)
  return value
end

-- The label of a prefix: what stands behind its last open bracket, without an operator at the end.
local function label_of(prefix)
  local part, closed = prefix, 0 -- luacheck: ignore 311
  repeat part, closed = part:gsub("%(([^()]*)%)", function(inner) return "" .. value_of(inner) end) until closed == 0
  part = part:match("[^(]*$"):gsub("[-+*]$", "")
  return 1 + (part == "" and 0 or value_of(part))
end

describe("modular arithmetic", function()
  it("is labelled with the value of every prefix", function()
    local count = rows("modular_arithmetic", function(text, labels)
      assert(value_of(text) + 1 == labels[#text], text)
      for t = 1, #text <= 40 and #text or 0 do assert(label_of(text:sub(1, t)) == labels[t], text) end
      assert.is_nil(text:find "[()]")
    end)
    assert.are.equal(2020, count)
  end)

  it("is labelled with brackets, too, which nest to the bound and no deeper", function()
    local deepest = 0
    local count = rows("modular_arithmetic_brackets", function(text, labels)
      assert(value_of(text) + 1 == labels[#text], text)
      for t = 1, #text <= 40 and #text or 0 do assert(label_of(text:sub(1, t)) == labels[t], text) end
      local open = 0
      for bracket in text:gmatch "[()]" do
        open = open + (bracket == "(" and 1 or -1)
        deepest = math.max(deepest, open)
      end
    end, { depth = 3 })
    assert.are.equal(2020, count)
    assert.are.equal(3, deepest)
  end)

  it("means what Lua means by an expression", function()
    rows("modular_arithmetic_brackets", function(text, labels)
      if #text < 20 then assert.are.equal(load("return " .. text)() % 5 + 1, labels[#text], text) end
    end)
  end)

  it("checks the depth", function()
    assert.matches("depth: expected an integer of at least 1, got 0",
      message_of(pl.task.modular_arithmetic_brackets, { depth = 0 }))
    assert.matches("unknown option 'depth'", message_of(pl.task.modular_arithmetic, { depth = 2 }))
  end)
end)
