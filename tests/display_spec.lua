-- perilune.display as a script uses it: what is shown as text, which handles there are, and what is refused.
local display = require "perilune.display"
local code_help = require "perilune.code.help"
local message_of = require "tests.message_of"

describe("perilune.display", function()
  local shown

  before_each(function() shown = {} end)

  -- The lines that f prints.
  local function printed(f)
    local before = print
    _G.print = function(text) shown[#shown + 1] = text end -- luacheck: ignore
    local ok, problem = pcall(f)
    _G.print = before -- luacheck: ignore
    assert.is_true(ok, problem)
    return shown
  end

  it("shows plain text where nothing else can be shown", function()
    assert.are.same({ "# a", "e^x", '{"a": 1}', "<Vega-Lite figure>", "<HTML>", "<text/html>" }, printed(function()
      display.markdown "# a"
      display.latex "e^x"
      display.json { a = 1 }
      display.vegalite { mark = "point" }
      display.html "<b>b</b>"
      display.bundle { ["text/html"] = "<i>i</i>" }
    end))
  end)

  it("takes the element out of an SVG document", function()
    local before = '<?xml version="1.0" encoding="utf-8"?>\n<!-- a -->\n'
    assert.equal("<svg><g/></svg>", display.element(before .. "<svg><g/></svg>"))
    assert.equal("<svg/>", display.element "<svg/>")
    assert.equal("none", display.element "none")
  end)

  it("updates what was made with an id", function()
    assert.are.same({ "a", "b" }, printed(function()
      local handle = display.text("a", { id = "own" })
      assert.are.equal("own", handle.id)
      assert.are.equal(handle, handle:update "b")
    end))
  end)

  it("says at the user's line what is wrong", function()
    local function raises(expected, f, ...)
      local message = message_of(f, ...)
      assert.matches("^tests/", message)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    raises("display.html: a string is expected, got number", function() display.html(3) end)
    raises("display.json: cannot write a function as JSON", function() display.json(print) end)
    raises("display.vegalite: a table is expected, got number", function() display.vegalite(1) end)
    raises("display.bundle: a table is expected, got string", function() display.bundle "x" end)
    raises("display.bundle: MIME types with contents are expected, got an empty table",
      function() display.bundle {} end)
    raises("display.bundle: text/html: a string is expected, got number",
      function() display.bundle { ["text/html"] = 5 } end)
    raises("display.svg: options: a table is expected, got string", function() display.svg("<svg/>", "mine") end)
    raises("display.svg: unknown option 'idd'; expected id, metadata",
      function() display.svg("<svg/>", { idd = true }) end)
    raises("display.svg: id: a string is expected, got number", function() display.svg("", { id = 5 }) end)
    local handle
    printed(function() handle = display.text "a" end)
    raises("update: this display was made without an id", function() handle:update "b" end)
    printed(function() handle = display.markdown("a", { id = true }) end)
    raises("display.markdown: a string is expected, got number", function() handle:update(5) end)
  end)

  it("is documented, with its options", function()
    local text = code_help.of(display.latex, "display.latex")["text/plain"]
    assert.matches("a formula of LaTeX", text)
    assert.matches("Options: id, metadata", text)
  end)
end)
