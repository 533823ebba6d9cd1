-- Lines at which chunks can stop, against those that Lua itself tells of functions.
local lines_of = require "perilune.debugger.lines"

local function sorted(set)
  local list = {}
  for line in pairs(set) do list[#list + 1] = line end
  table.sort(list)
  return list
end

local function lines(code) return sorted(lines_of(assert(load(code)))) end

describe("lines", function()
  it("are those that have instructions, of inner functions too", function()
    assert.same({ 1, 2, 4, 7 }, lines "local a = 1\nfor i = 1, a do\n-- comment\n  print(i)\n\nend\nreturn a")
    assert.same({ 2, 3, 4 }, lines "-- comment\nfunction f(...)\n  return ...\nend\n")
    assert.same({ 1 }, lines "")
  end)

  it("are right where they are far apart", function()
    local gaps = { 1, 100, 127, 128, 129, 200, 1000, 70000 }
    local code, line, wanted = {}, 1, {}
    for _, gap in ipairs(gaps) do
      code[#code + 1] = ("x = 1%s"):format(("\n"):rep(gap))
      wanted[#wanted + 1] = line
      line = line + gap
    end
    wanted[#wanted + 1] = line
    assert.same(wanted, lines(table.concat(code) .. "y = 2"))
  end)

  it("are those of debug.getinfo, for every function that is loaded", function()
    local seen, compared = {}, 0
    local function compare(f)
      local of_lua = debug.getinfo(f, "SL")
      if of_lua.what == "C" then return end
      local found = lines_of(f)
      compared = compared + 1
      for line in pairs(of_lua.activelines) do assert(found[line], ("%s:%d"):format(of_lua.source, line)) end
      for line in pairs(found) do
        assert(line >= of_lua.linedefined and (line <= of_lua.lastlinedefined or of_lua.what == "main"), of_lua.source)
      end
    end
    local function visit(value)
      if seen[value] then return end
      seen[value] = true
      if type(value) == "function" then
        compare(value)
      elseif type(value) == "table" then
        for _, field in next, value do
          if type(field) == "table" or type(field) == "function" then visit(field) end
        end
      end
    end
    for _, module in pairs(package.loaded) do
      if type(module) == "table" or type(module) == "function" then visit(module) end
    end
    for path in io.popen("find lua -name '*.lua'"):lines() do compare(assert(loadfile(path))) end
    assert.is_true(compared > 300)
  end)
end)
