-- Tokens of unfinished code, and which local names are visible in it.
local text = require "perilune.code.text"

-- The names that are visible at the end of the code, in alphabetical order.
local function visible(source)
  local code = text.read(source)
  local names, set = {}, {}
  for _, one in ipairs((code:locals())) do
    if not set[one.name] and code:visible(one.name, code.count + 1) then
      set[one.name] = true
      names[#names + 1] = one.name
    end
  end
  table.sort(names)
  return table.concat(names, " ")
end

describe("text.read", function()
  it("says what a piece of code is made of", function()
    local code = text.read "local x <const> = f 'a' .. 0x1p4 -- end"
    assert.same({ "keyword", "name", "symbol", "name", "symbol", "symbol", "name", "string", "symbol", "number" },
      code.kind)
    assert.equal("'a'", code:word(8))
    assert.equal("", code:word(11))
  end)

  it("says what the text ends inside of", function()
    for source, open in pairs {
      ["x = 'a"] = "string", ["x = [[a\nb"] = "string", ["x = [==[a]]"] = "string", ["-- x"] = "comment",
      ["--[[ x\n"] = "comment", ["x = 'a\\"] = "string",
    } do
      assert.equal(open, text.read(source).open, source)
    end
    for _, source in ipairs { "x = 'a'", "x = [[a]]", "-- x\n", "--[[ x ]]", "x = 'a\ny", "" } do
      assert.is_nil(text.read(source).open, source)
    end
  end)

  it("ends a string that lacks its quote with the line", function()
    local code = text.read "x = 'abc\ny = 'd\\z\n  e' z"
    assert.same({ "x", "=", "'abc", "y", "=", "'d\\z\n  e'", "z" },
      { code:word(1), code:word(2), code:word(3), code:word(4), code:word(5), code:word(6), code:word(7) })
  end)
end)

describe("local names", function()
  it("are visible from their statement to the end of their block", function()
    assert.equal("a b", visible "local a, b <const> = 1, 2 ")
    assert.equal("a", visible "local a do local b = a end ")
    assert.equal("a b", visible "local a do local b = a ")
    assert.equal("", visible "if x then local a end ")
    assert.equal("b", visible "if x then local a else local b ")
    assert.equal("b", visible "if x then local a elseif y then local b ")
    assert.equal("", visible "while x do local a end ")
  end)

  it("are loop variables inside the loop, and parameters inside the function", function()
    assert.equal("i", visible "for i = 1, 2 do ")
    assert.equal("k v", visible "for k, v in pairs(t) do ")
    assert.equal("", visible "for i = 1, 2 do end ")
    assert.equal("a b f", visible "local function f(a, b, ...) ")
    assert.equal("f", visible "local function f(a, b) end ")
    assert.equal("self x", visible "function t.u:m(x) ")
    assert.equal("i x", visible "for i = 1, f(function() for j = 1, 2 do end end) do local x = i ")
  end)

  it("are not visible in what they are given", function()
    assert.equal("a", visible "local a = 1 local b = a +")
    assert.equal("a", visible "local a = 1 local b = f(a, ")
    assert.equal("a b", visible "local a = 1 local b = f(function() local c end) print(")
  end)

  it("of a repeat are visible in its condition", function()
    assert.equal("a", visible "repeat local a until a ==")
    assert.equal("", visible "repeat local a until a == 1 print(")
  end)

  it("survive code that is no Lua", function()
    for _, source in ipairs { "end end )", "local", "for", "function", "local function (", "local = = 1", "until x",
      "} ] )", "for do do", "local a <", "function f(a, ", "\0\255" } do
      assert.has_no.errors(function() visible(source) end)
    end
  end)
end)
