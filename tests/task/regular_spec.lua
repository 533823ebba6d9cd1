-- Labels of parity, even_pairs, cycle_navigation, aa_star and flip_flop, found again by looking at whole prefixes.
local rows = require "tests.task.rows"

-- How often a pattern is found in a text, starting at every place.
local function occurrences(text, pattern)
  local count = 0
  for start = 1, #text do
    if text:find("^" .. pattern, start) then count = count + 1 end
  end
  return count
end

local oracles <const> = {
  parity = function(prefix) return 1 + select(2, prefix:gsub("1", "")) % 2 end,
  even_pairs = function(prefix) return 1 + (occurrences(prefix, "ab") + occurrences(prefix, "ba")) % 2 end,
  cycle_navigation = function(prefix)
    local walked = select(2, prefix:gsub("%+", "")) - select(2, prefix:gsub("%-", ""))
    return 1 + walked % 5
  end,
  aa_star = function(prefix) return prefix:gsub("^ ", ""):gsub("aa", "") == "" and 1 or 2 end,
  flip_flop = function(prefix)
    local bit
    for written in prefix:gmatch "w([01])" do bit = written end
    return 1 + math.tointeger(bit or 0)
  end,
}

describe("tasks of finite memory", function()
  for name, oracle in pairs(oracles) do
    it("label every prefix of " .. name, function()
      local count = rows(name, function(text, labels)
        local shortest = #text > 40 and #text or 1 -- of the long ones the whole only
        for t = shortest, #text do assert(oracle(text:sub(1, t)) == labels[t], text) end
      end)
      assert.are.equal(2020, count)
    end)
  end

  it("keep to their languages", function()
    rows("aa_star", function(text) assert.matches("^ ?a*$", text) end)
    rows("flip_flop", function(text)
      local stored
      assert.are.equal("w", text:sub(1, 1))
      for instruction, bit in text:gmatch "([wri])([01])" do
        if instruction == "r" then assert.are.equal(stored, bit) end
        if instruction == "w" then stored = bit end
      end
      assert.are.equal("", (text:gsub("[wri][01]", ""):gsub("^[wri]$", "")))
    end)
  end)

  it("write and read a flip-flop a tenth of the time each", function()
    local found = { w = 0, r = 0, i = 0 }
    rows("flip_flop", function(text)
      for instruction in text:sub(2):gmatch "[wri]" do found[instruction] = found[instruction] + 1 end
    end)
    local all = found.w + found.r + found.i
    for instruction, share in pairs { w = 0.1, r = 0.1, i = 0.8 } do
      assert.is_true(math.abs(found[instruction] / all - share) < 5 * math.sqrt(share * (1 - share) / all))
    end
  end)
end)
