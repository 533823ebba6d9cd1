-- Everything that can be called is documented: the functions of perilune and of Lua.
local core = require "perilune.core"
local document = require "perilune.code.document"
local manual = require "perilune.code.manual"
local pl = require "perilune"

-- Adds the names of the functions and classes in a table about which nothing is written.
local function undocumented(list, path, holder)
  for name, value in next, holder do
    if document.definition(value) and not document.words(value) then list[#list + 1] = path .. name end
  end
  table.sort(list)
  return list
end

describe("every function is documented", function()
  it("of pl", function()
    for name in pairs(getmetatable(pl).__names) do assert.is_truthy(pl[name]) end -- loads what is loaded when used
    assert.same({}, undocumented({}, "pl.", pl))
  end)

  for _, name in ipairs { "nn", "optim", "train", "task", "plot", "display" } do
    it("of pl." .. name, function() assert.same({}, undocumented({}, name .. ".", pl[name])) end)
  end

  it("of perilune.comm", function() assert.same({}, undocumented({}, "comm.", require "perilune.comm")) end)

  it("that is a method", function()
    local list = undocumented({}, "tensor:", core.methods)
    undocumented(list, "module:", getmetatable(pl.nn.Linear).__index)
    local optimizer = pl.optim.SGD { pl.ones({ 1 }):requires_grad() }
    undocumented(list, "optimizer:", getmetatable(getmetatable(optimizer)).__index)
    undocumented(list, "timer:", getmetatable(pl.timer()).__index)
    undocumented(list, "scope:", getmetatable(pl.scope()).__index)
    undocumented(list, "comm:", getmetatable(require "perilune.comm".open "nobody").__index)
    undocumented(list, "monitor:", getmetatable(pl.monitor()).__index)
    assert.same({}, list)
  end)

  it("of Lua", function()
    local list = {}
    for _, name in ipairs { "coroutine", "debug", "io", "math", "os", "package", "string", "table", "utf8" } do
      undocumented(list, name .. ".", _G[name])
    end
    for name, f in pairs { print = print, require = require, xpcall = xpcall, next = next } do
      if not document.words(f) then list[#list + 1] = name end
    end
    assert.same({}, undocumented(list, "file:", getmetatable(io.stdout).__index))
  end)
end)

describe("the manual", function()
  it("writes calls from the tables of operations", function()
    assert.equal("sum(self [, dim [, keepdim]]) -> tensor", manual.of(core.sum)[1])
    assert.equal("the sum over all elements, or over the dimensions named", manual.of(core.sum)[2])
    assert.equal("softmax(self [, dim = -1]) -> tensor", manual.of(core.softmax)[1])
    assert.equal("maximum(a, b) -> tensor", manual.of(pl.maximum)[1])
    assert.equal(manual.of(core.maximum), manual.of(pl.maximum))
  end)

  it("knows no functions but those that are there", function()
    local rows = require "perilune.code.lua54"
    for path, list in pairs(rows) do
      local holder = path == "" and _G or path == "file" and getmetatable(io.stdout).__index or _G[path]
      for _, entry in ipairs(list) do
        assert.equal("function", type(holder[entry[1]:match "^[%w_]+"]), path .. " " .. entry[1])
      end
    end
  end)

  it("leaves functions in Lua to their comments", function()
    assert.is_nil(manual.of(pl.cross_entropy))
    assert.matches("^cross_entropy%(logits, labels", document.words(pl.cross_entropy))
    assert.is_nil(manual.of(nil))
  end)
end)
