-- Labels of dyck1 and dyck2 by striking out brackets that belong together.
local pl = require "perilune"
local message_of = require "tests.message_of"
local rows = require "tests.task.rows"

-- The brackets of a prefix that are still open, in their order.
local function open_in(prefix)
  local before
  repeat before, prefix = prefix, prefix:gsub("%(%)", ""):gsub("%[%]", "") until prefix == before
  return prefix
end

for name, opening in pairs { dyck1 = "(", dyck2 = "([" } do
  describe(name, function()
    it("is labelled with how many brackets are open and the kind of the last", function()
      local deepest, bound <const> = 0, 4
      local count = rows(name, function(text, labels)
        for t = #text > 40 and #text or 1, #text do
          local open = open_in(text:sub(1, t))
          assert(not open:find "[])]", text)
          local kind = open ~= "" and opening:find(open:sub(-1), 1, true)
          assert((kind and 1 + (#open - 1) * #opening + kind or 1) == labels[t], text)
          deepest = math.max(deepest, #open)
        end
      end, { depth = bound })
      assert.are.equal(2020, count)
      assert.are.equal(bound, deepest)
    end)

    it("has as many classes as it says", function()
      local task = pl.task[name] { depth = 7 }
      assert.are.equal(1 + 7 * #opening, task.classes)
      assert.are.equal(2 * #opening, task.vocabulary)
      assert.matches("depth: expected an integer of at least 3, got 2", message_of(pl.task[name], { depth = 2 }))
    end)
  end)
end
