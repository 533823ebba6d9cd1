-- The README's Lua examples, each run as a script of its own, as a reader would.
local program = os.getenv "PERILUNE" or "build/perilune"

local function blocks(path, language)
  local found, lines = {}, nil
  for line in io.lines(path) do
    if line == "```" .. language then
      lines = {}
    elseif line == "```" and lines then
      found[#found + 1] = table.concat(lines, "\n")
      lines = nil
    elseif lines then
      lines[#lines + 1] = line
    end
  end
  return found
end

describe("README", function()
  local examples = blocks("README.md", "lua")

  it("has examples", function() assert.is_true(#examples >= 3) end)

  for i, example in ipairs(examples) do
    it("example " .. i .. " runs", function()
      local path = os.tmpname()
      local file <close> = assert(io.open(path, "w"))
      file:write(example)
      file:close()
      local pipe = assert(io.popen(("%s %s 2>&1"):format(program, path)))
      local output = pipe:read "a"
      local ok = pipe:close()
      os.remove(path)
      assert.is_true(ok, output)
      assert.is_true(#output > 0)
    end)
  end

  it("names two shell commands", function() assert.equal(2, #blocks("README.md", "sh")) end)
end)
